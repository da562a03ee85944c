"""Result files: what they are results of, so that no two are mixed up."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

from score_sde.core import files
from score_sde.core.errors import InputError


def is_there(path: pathlib.Path, identity: dict[str, Any]) -> bool:
    """Whether a results file is there already, of the same checkpoint and settings.

    Raises:
        InputError: for a file that is not one of results, or holds those of something else; it stays as it is.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return False
    try:
        found, different = differences(text, identity)
    except ValueError as error:
        raise InputError(f"{path} is there and holds no results: move it away, and evaluate again.") from error
    if different:
        name = different[0]
        raise InputError(
            f"{path} holds results of {name} = {found.get(name)!r}, and this evaluation has {plain(identity)[name]!r}: "
            f"move {path.parent} away to keep them, and evaluate again."
        )
    return True


def differences(text: bytes, identity: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a results file says, and in what it differs from an identity; raises ValueError for text of another kind."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} is no results")
    return found, [name for name, value in plain(identity).items() if found.get(name) != value]


def write(path: pathlib.Path, results: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write results and what they are of as JSON, whole or not at all."""
    files.write_text(path, json.dumps(plain({**results, **identity}), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """What JSON can hold: tuples as lists, and null for a number that is not finite."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
