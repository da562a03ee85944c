"""This module reads the weights of feature networks from files, without executing anything in them."""

from __future__ import annotations

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers import graphdef, pickles, torch_file
from score_sde.readers.known import Array as Pickled
from score_sde.readers.known import Stored
from score_sde.readers.refusal import UNFORESEEN, Refused, other_kind, shown

_MOST_DEPTH = 8
_MOST_ARRAYS = 4096
FID_FILE = "pt_inception-2015-12-05-6726825d.pth (of pytorch-fid; torch-fidelity's has the same content)"


class WeightsFile(NamedTuple):
    """`WeightsFile` holds the arrays of a file by name.

    Attributes:
        path: the path of the file.
        sha256: the SHA-256 of the file, in hexadecimal.
        form: 'torch', 'tensorflow' or 'numpy'.
        arrays: the arrays; the names of nested dictionaries are joined by '/'.
    """

    path: pathlib.Path
    sha256: str
    form: str
    arrays: dict[str, np.ndarray]


def read_arrays(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a state dict of PyTorch, a frozen graph of TensorFlow (.pb), or a pickle of nested dictionaries of arrays.

    Raises:
        InputError: if the file is missing, damaged, of another kind, or asks for more than weights need.
    """
    path = pathlib.Path(path).expanduser()
    try:
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        _refuse_others(path, start)
        form, arrays = _arrays(path, start)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected a file of weights.") from error
    except Refused as error:
        raise InputError(f"{path} is not read: {error}. Expected a state dict of PyTorch (.pth).") from error
    except UNFORESEEN as error:
        raise InputError(f"{path} is not read: it is damaged ({type(error).__name__}: {shown(error)}).") from error
    return WeightsFile(path, sha256, form, arrays)


def _refuse_others(path: pathlib.Path, start: bytes) -> None:
    """Raise Refused for files that users confuse with weights, with the name of the right file."""
    if what := other_kind(start):
        raise Refused(what)
    if start[:2] == b"\x1f\x8b":
        raise Refused("it is a compressed archive: unpack it, and name the file in it, classify_image_graph_def.pb")
    if start.startswith(b"PK\x03\x04") and _is_torchscript(path):
        raise Refused(f"it is a TorchScript archive, which is a program: use {FID_FILE}")


def _is_torchscript(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return False


def _arrays(path: pathlib.Path, start: bytes) -> tuple[str, dict[str, np.ndarray]]:
    if start.startswith(b"PK\x03\x04"):
        return "torch", _of_torch(path)
    if start[:1] == b"\x80":
        try:
            return "torch", _of_torch(path)
        except Refused as not_torch:
            try:
                value, _ = pickles.read(path.read_bytes())
            except Refused as error:
                raise Refused(f"{error} (a pickle with a network in it cannot be read: use {FID_FILE})") from not_torch
            found: dict[str, np.ndarray] = {}
            _flatten(value, "", found, 0)
            return "numpy", found
    return "tensorflow", graphdef.read(path)


def _of_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    with torch_file.read(path) as file:
        value = file.value
        if not isinstance(value, dict):
            raise Refused("it holds no dictionary of tensors")
        state = value.get("state_dict", value)
        if not (isinstance(state, dict) and state and all(isinstance(part, Stored) for part in state.values())):
            raise Refused("it holds no state dict of tensors")
        # Views: tensors that share their numbers need no memory of their own.
        return {str(name): file.array(stored) for name, stored in state.items()}


def _flatten(value: Any, prefix: str, into: dict[str, np.ndarray], depth: int) -> None:
    """Collect the arrays of nested dictionaries by their paths."""
    if isinstance(value, Pickled):
        into[prefix] = value.numbers()
    elif isinstance(value, dict) and depth < _MOST_DEPTH:
        if len(into) > _MOST_ARRAYS:  # a dictionary that is referred to many times costs few bytes of the file
            raise Refused(f"it has more than {_MOST_ARRAYS} arrays")
        for name, part in value.items():
            _flatten(part, f"{prefix}/{name}" if prefix else str(name), into, depth + 1)
    else:
        raise Refused(f"it has {shown(prefix or 'a value')}, which is neither an array nor a dictionary of arrays")


def take(file: WeightsFile, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of a file in float32.

    Raises:
        InputError: if the array is missing, has another shape or dtype, or is not finite.
    """
    array = file.arrays.get(name)
    if array is None:
        raise InputError(f"{file.path} has no {name!r}; expected the weights of another network: name the right file.")
    if array.shape != shape or array.dtype.kind != "f":
        raise InputError(
            f"{file.path}: {name!r} has shape {array.shape} and dtype {array.dtype}; expected {shape} floats."
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{file.path}: {name!r} has values that are not finite; expected weights.")
    return array


def only(file: WeightsFile, names: Mapping[str, Any] | set[str], ignored: tuple[str, ...] = ()) -> None:
    """Raise InputError if a file has an array that is neither named nor ends with an ignored word."""
    left = [name for name in file.arrays if name not in names and not name.endswith(ignored or ("\0",))]
    if left:
        raise InputError(
            f"{file.path} has {len(left)} arrays that the network does not have, such as {shown(left[0])!r}: name the "
            "file of this network."
        )
