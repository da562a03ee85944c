"""This module records the sizes and checksums of a checkpoint's files, to find damaged files before they are read.

The digests in a checkpoint identify the saved arrays. The record of files names a damaged file immediately. With a
damaged file orbax may take minutes, or print a hundred stack traces from its threads.
"""

from __future__ import annotations

import json
import pathlib
import zlib
from collections.abc import Iterable

from score_sde.core import files

_NAME = pathlib.Path("about") / "files.json"


def write(folder: pathlib.Path) -> None:
    """Write the record of the files of a finished checkpoint."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _NAME)
    record = {path.relative_to(folder).as_posix(): [path.stat().st_size, _checksum(path)] for path in found}
    files.write_text(folder / _NAME, json.dumps(record, indent=0) + "\n")


def damage(folder: pathlib.Path, items: Iterable[str]) -> str | None:
    """Return what is wrong with the files of these items, or None; a checkpoint without a record passes."""
    try:
        record = {name: (int(size), int(checksum)) for name, (size, checksum) in _read(folder).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # the run ended before the record was written, or the record is damaged: digests decide
    wanted = {*items, "about"}
    for name, (size, checksum) in record.items():
        path = folder / name
        if name.partition("/")[0] not in wanted and "/" in name:
            continue
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _checksum(path) != checksum:
            return f"{name} is not what was written: its checksum differs"
    return None


def _read(folder: pathlib.Path) -> dict[str, list[int]]:
    content: dict[str, list[int]] = json.loads((folder / _NAME).read_text())
    return content


def _checksum(path: pathlib.Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            total = zlib.crc32(block, total)
    return total
