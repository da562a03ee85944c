"""This module defines the exception with which a reader rejects a file."""

from __future__ import annotations

# Exceptions that a malicious file can cause in NumPy or Python where no check of a reader catches the fault.
UNFORESEEN = (ArithmeticError, LookupError, TypeError, ValueError, MemoryError, RecursionError, AttributeError)


class Refused(Exception):
    """`Refused` gives the reason why a file is not read, as the end of a sentence that begins with the file's name."""


def shown(text: object, most: int = 80) -> str:
    """Return text of a file as one printable line of at most `most` characters."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text)[: most + 1])
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def other_kind(start: bytes) -> str | None:
    """Return the kind of a file that is often mistaken for weights, with a remedy; None if it may be weights."""
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer of a file in Git LFS, not the file: fetch the file with git lfs pull"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page that was downloaded instead of the file: download the file itself"
    if start.startswith(b"\x89HDF"):
        return "it is an HDF5 file"
    if len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**30:
        return "it is a safetensors file: save its tensors again with torch.save"
    return None
