"""This module reads and writes result files, and keeps results of different identities apart.

The identity of a result is everything that the result depends on. All jobs follow one policy. An existing result of the
same identity is used again. A result of another identity is never overwritten; the new result goes into a folder
NAME-DIGEST beside the old result.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from typing import Any

import jax
import numpy as np

from score_sde.core import files
from score_sde.core.errors import InputError

Identity = dict[str, Any]


def place(folder: pathlib.Path, name: str, identity: Identity) -> pathlib.Path:
    """Return the folder for reading or writing the result NAME.json of this identity.

    The folder is `folder` if `folder` has no NAME.json or a NAME.json of this identity; otherwise `folder`/NAME-DIGEST.

    Raises:
        InputError: if NAME.json is not a result; the file is not changed.
    """
    if differences(folder / f"{name}.json", identity):
        return folder / f"{name}-{digest(identity)}"
    return folder


def is_there(folder: pathlib.Path, name: str, identity: Identity) -> bool:
    """Return whether a folder already has the result NAME.json of this identity."""
    path = folder / f"{name}.json"
    return path.exists() and not differences(path, identity)


def differences(path: pathlib.Path, identity: Identity) -> list[str]:
    """Return the entries in which a result file differs from an identity; no entries if the file is missing."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputError(
            f"{path} exists and holds no results: move the file away, and run the same command again."
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} exists and holds no results: move the file away, and run the same command again.")
    return [name for name, value in plain(identity).items() if found.get(name) != value]


def read(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """Return an existing result."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_bytes())
    return found


def write(path: pathlib.Path, results: dict[str, Any], identity: Identity) -> None:
    """Write results and their identity as JSON, whole or not at all."""
    files.write_text(path, json.dumps(plain({**results, **identity}), indent=2, allow_nan=False) + "\n")


def digest(identity: Identity) -> str:
    """Return eight hexadecimal digits that distinguish an identity from others."""
    text = json.dumps(plain(identity), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: tuples and arrays as lists, and null for a number that is not finite."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
