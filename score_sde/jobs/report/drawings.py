"""This module draws curves and histograms with Matplotlib as SVG in the colours of the page."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_SIZE = (6.4, 3.2)  # inches
_COLOURS = ("#3b82c4", "#d9822b", "#4f9d5d", "#b14f9d")  # readable on black and on white
_SETTINGS = {"svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    xscale: str = "linear",
    yscale: str = "log",
) -> str:
    """Return an SVG of named curves {name: (xs, ys)}."""

    def draw(axes: Any) -> None:
        axes.set(xlabel=x, ylabel=y, xscale=xscale, yscale=yscale)
        for colour, (name, (xs, ys)) in zip(_COLOURS, lines.items(), strict=False):
            axes.plot(xs, ys, label=name, color=colour, marker="o" if len(xs) < 30 else None, markersize=3)
        axes.legend(frameon=False)

    return _svg(draw, repr((x, y, dict(lines))))


def histogram(named: Mapping[str, np.ndarray], x: str, y: str) -> str:
    """Return an SVG of histograms, by name, in common bins."""
    edges = np.histogram_bin_edges(np.concatenate([np.ravel(values) for values in named.values()]), bins=30)

    def draw(axes: Any) -> None:
        axes.set(xlabel=x, ylabel=y)
        for colour, (name, values) in zip(_COLOURS, named.items(), strict=False):
            axes.hist(values, edges, label=name, color=colour, alpha=0.6)
        axes.legend(frameon=False)

    return _svg(draw, repr((x, y, {name: values.tolist() for name, values in named.items()})))


def _svg(draw: Any, told: str) -> str:
    """Return the SVG that `draw` puts on axes.

    The same `told` gives the same bytes. The digest of `told` keeps the names of SVG parts unique.
    """
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would keep global state and need a display

    salt = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
    with matplotlib.rc_context(_SETTINGS | {"svg.hashsalt": salt}):
        figure = Figure(figsize=_SIZE, layout="constrained", facecolor="none")
        draw(figure.add_subplot(facecolor="none"))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Matplotlib uses the same part names in every figure.
    text = re.sub(r'(id="|href="#|url\(#)([^")]+)', rf"\1\2-{salt}", text)
    return text.replace("#000000", "currentColor").replace("<text ", '<text fill="currentColor" ')
