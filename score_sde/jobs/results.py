"""Result files: what they are results of, and where they are, so that no two are mixed up.

One policy for all jobs: a result that is there, of the same identity, is used again; one of another identity is never
overwritten, and the new one goes into a folder NAME-DIGEST beside it.
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
    """The folder where the result NAME.json of this identity is, or goes.

    `folder` itself if it has no NAME.json, or that of this identity; otherwise NAME-DIGEST in it.

    Raises:
        InputError: for a NAME.json that is none of a result; it stays as it is.
    """
    if differences(folder / f"{name}.json", identity):
        return folder / f"{name}-{digest(identity)}"
    return folder


def is_there(folder: pathlib.Path, name: str, identity: Identity) -> bool:
    """Whether the result NAME.json of this identity is in a folder already."""
    path = folder / f"{name}.json"
    return path.exists() and not differences(path, identity)


def differences(path: pathlib.Path, identity: Identity) -> list[str]:
    """In which entries a result file differs from an identity; none where there is no file."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputError(
            f"{path} is there and holds no results: move it away, and give the same command again."
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is there and holds no results: move it away, and give the same command again.")
    return [name for name, value in plain(identity).items() if found.get(name) != value]


def read(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """A result that is there."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_bytes())
    return found


def write(path: pathlib.Path, results: dict[str, Any], identity: Identity) -> None:
    """Write results and what they are of as JSON, whole or not at all."""
    files.write_text(path, json.dumps(plain({**results, **identity}), indent=2, allow_nan=False) + "\n")


def digest(identity: Identity) -> str:
    """Eight hexadecimal digits that tell an identity from others."""
    text = json.dumps(plain(identity), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def plain(value: Any) -> Any:
    """What JSON can hold: tuples and arrays as lists, and null for a number that is not finite."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
