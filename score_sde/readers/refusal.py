"""How a reader of files from elsewhere says no."""

from __future__ import annotations


class Refused(Exception):
    """Why a file is not read: the end of a sentence that begins with the file's name."""


def shown(text: object, most: int = 80) -> str:
    """Text of a file as one line that a terminal can bear."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text)[: most + 1])
    return plain if len(plain) <= most else plain[: most - 3] + "..."
