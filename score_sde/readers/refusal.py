"""This module defines the exception with which a reader rejects a file."""

from __future__ import annotations


class Refused(Exception):
    """`Refused` gives the reason why a file is not read, as the end of a sentence that begins with the file's name."""


def shown(text: object, most: int = 80) -> str:
    """Return text of a file as one printable line of at most `most` characters."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text)[: most + 1])
    return plain if len(plain) <= most else plain[: most - 3] + "..."
