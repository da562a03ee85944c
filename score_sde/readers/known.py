"""The names that a pickle of weights may use, and what stands for each: functions of ours on plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from score_sde.readers.refusal import Refused

# torch's storages by the type of their elements; big-endian machines write little-endian files too.
STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers that are kept elsewhere in the file, by their key."""

    key: str
    dtype: np.dtype[Any]
    length: int


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor: a view of a storage, in elements of it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass
class ScalarType:
    """numpy.dtype of a single number."""

    code: str
    order: str = "<"


@dataclasses.dataclass(frozen=True)
class Name:
    """A name that is known, and what stands for it; None where it cannot be called."""

    name: str
    call: Callable[..., Any] | None = None


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Stored:
    whole = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= 8
    if not (isinstance(storage, Storage) and is_count(offset) and whole):
        raise Refused("a tensor in it is not made as PyTorch makes them")
    if not all(map(is_count, (*shape, *strides))):
        raise Refused("a tensor in it has sizes or strides that are no whole numbers")
    return Stored(storage, offset, shape, strides)


def _parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


def _dictionary(*items: Any) -> dict[Any, Any]:
    if items not in ((), ([],)):
        raise Refused("an ordered dictionary in it is not made as PyTorch makes them")
    return {}


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or len(text) > 64 or encoding != "latin1":
        raise Refused("bytes in it are not written as NumPy writes them")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise Refused("bytes in it are not written as NumPy writes them") from error


def _scalar_type(code: Any, *rest: Any) -> ScalarType:
    if not isinstance(code, str) or code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise Refused("a number in it has an unknown type")
    return ScalarType(code)


def _scalar(kind: Any, raw: Any = b"") -> float | int:
    if not isinstance(kind, ScalarType) or not isinstance(raw, bytes):
        raise Refused("a number in it is not written as NumPy writes them")
    dtype = np.dtype(kind.order + kind.code if kind.order in "<>" else kind.code)
    if len(raw) != dtype.itemsize:
        raise Refused("a number in it has too few or too many bytes")
    return np.frombuffer(raw, dtype)[0].item()


def _size(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, tuple | list) or len(items) > 8:
        raise Refused("a torch.Size in it is not made as PyTorch makes them")
    return tuple(items)


# By module and name.
KNOWN: dict[tuple[str, str], Name | np.dtype[Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): Name("_rebuild_tensor_v2", _tensor),
    ("torch._utils", "_rebuild_tensor"): Name("_rebuild_tensor", _tensor),
    ("torch._utils", "_rebuild_parameter"): Name("_rebuild_parameter", _parameter),
    ("collections", "OrderedDict"): Name("OrderedDict", _dictionary),
    ("_codecs", "encode"): Name("encode", _encode),
    ("numpy", "dtype"): Name("dtype", _scalar_type),
    ("torch", "Size"): Name("Size", _size),
    **{(f"numpy.{core}.multiarray", "scalar"): Name("scalar", _scalar) for core in ("core", "_core")},
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}
