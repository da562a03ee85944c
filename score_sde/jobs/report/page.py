"""This module builds an HTML page in one file, without scripts, for wide and narrow screens in light and dark mode.

The page loads no other file.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# The policy permits only pictures inside the page, and no scripts.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p, figcaption { max-width: 46rem; } figcaption, .of { color: var(--dim); font-size: .85rem; }
figure { margin: .8rem 0; } img { max-width: 100%; height: auto; image-rendering: pixelated; }
svg { max-width: 100%; height: auto; } .row { display: flex; flex-wrap: wrap; gap: 1rem; }
.row figure { flex: 1 1 14rem; min-width: 0; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; } td, th { border-bottom: 1px solid var(--line);
padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; font-size: .8rem; border: 1px solid var(--line); padding: .6rem; }
summary { cursor: pointer; } .big { font-size: 1.5rem; }
"""


class Page:
    """`Page` builds a page section by section and escapes all text.

    Args:
        title: the title of the page.
    """

    def __init__(self, title: str) -> None:
        self._title, self._parts = title, [f"<h1>{html.escape(title)}</h1>"]

    def section(self, title: str) -> None:
        """Begin a section with a title."""
        self._parts.append(f"<h2>{html.escape(title)}</h2>")

    def text(self, words: str, of: str = "") -> None:
        """Add a paragraph, and in small print its source."""
        self._parts.append(f"<p>{html.escape(words)}</p>" + _small(of))

    def number(self, words: str, of: str) -> None:
        """Add the main number of a section in large print, and in small print its source."""
        self._parts.append(f'<p class="big">{html.escape(words)}</p>' + _small(of))

    def table(self, rows: Sequence[Sequence[Any]], head: Sequence[str] = ()) -> None:
        """Add a table of text and numbers."""
        above = f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>" if head else ""
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
        self._parts.append(f'<div class="scroll"><table>{above}{body}</table></div>')

    def plot(self, svg: str, caption: str) -> None:
        """Add a drawing with a caption."""
        self._parts.append(_figure(svg, caption))

    def pictures(self, captioned: Mapping[str, np.ndarray | bytes]) -> None:
        """Add pictures in a row, or in a column on a phone: {caption: uint8 (height, width, 3), or a PNG file}."""
        shown = "".join(_figure(_image(picture, caption), caption) for caption, picture in captioned.items())
        self._parts.append(f'<div class="row">{shown}</div>')

    def details(self, title: str, text: str) -> None:
        """Add text that is hidden until the reader opens it."""
        self._parts.append(f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>")

    def html(self) -> str:
        """Return the whole page as HTML."""
        head = (
            '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_POLICY)}">'
            f"<title>{html.escape(self._title)}</title><style>{_STYLE}</style>"
        )
        body = "\n".join(self._parts)
        return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _small(words: str) -> str:
    return f'<p class="of">{html.escape(words)}</p>' if words else ""


def _figure(inside: str, caption: str) -> str:
    return f"<figure>{inside}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _image(picture: np.ndarray | bytes, caption: str) -> str:
    content = picture if isinstance(picture, bytes) else _png(picture)
    encoded = base64.b64encode(content).decode("ascii")
    return f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{encoded}">'


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()
