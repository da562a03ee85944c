"""The names that a pickle of weights or arrays may use, and what stands for each: functions of ours on plain values."""

from __future__ import annotations

import dataclasses
import math
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

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code if self.order in "<>" else self.code)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Bytes that are written as text of Latin-1; they are made when they are asked for, and cost nothing before."""

    text: str

    def __len__(self) -> int:
        return len(self.text)

    def content(self) -> bytes:
        try:
            return self.text.encode("latin1")
        except UnicodeEncodeError as error:
            raise Refused("bytes in it are not written as NumPy writes them") from error


@dataclasses.dataclass
class Array:
    """An array of NumPy's, whose numbers are made when they are asked for."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = dataclasses.field(default_factory=lambda: np.dtype("u1"))
    raw: bytes | str | Encoded = b""
    fortran: bool = False

    def set_state(self, state: Any) -> None:
        """Take the state that NumPy gives its arrays: version, shape, type, order of axes, bytes."""
        match state:
            case (int(), tuple() as shape, ScalarType() as kind, bool() | int() as fortran, raw) if (
                len(shape) <= 8 and all(map(is_count, shape)) and isinstance(raw, bytes | str | Encoded)
            ):
                self.shape, self.dtype, self.raw, self.fortran = shape, kind.numpy(), raw, bool(fortran)
            case _:
                raise Refused("an array in it is not made as NumPy makes them")

    def numbers(self) -> np.ndarray:
        """The array; raises Refused where bytes and shape do not fit."""
        raw = Encoded(self.raw) if isinstance(self.raw, str) else self.raw
        content = raw if isinstance(raw, bytes) else raw.content()
        if len(content) != self.dtype.itemsize * math.prod(self.shape):
            raise Refused("an array in it has too few or too many bytes")
        return np.frombuffer(content, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")


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


def _encode(text: Any, encoding: Any = "latin1") -> Encoded:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("bytes in it are not written as NumPy writes them")
    return Encoded(text)


def _array(kind: Any, shape: Any = (), code: Any = b"") -> Array:
    if not isinstance(kind, Name):
        raise Refused("an array in it is not made as NumPy makes them")
    return Array()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    array = Array()
    array.set_state((1, shape, kind, order == "F", raw))
    return array


def _scalar_type(code: Any, *rest: Any) -> ScalarType:
    if not isinstance(code, str) or code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise Refused("a number in it has an unknown type")
    return ScalarType(code)


def _scalar(kind: Any, raw: Any = b"") -> float | int:
    if not isinstance(kind, ScalarType) or not isinstance(raw, bytes | Encoded) or len(raw) > 8:
        raise Refused("a number in it is not written as NumPy writes them")
    dtype, raw = kind.numpy(), raw if isinstance(raw, bytes) else raw.content()
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
    ("numpy", "ndarray"): Name("ndarray"),
    ("torch", "Size"): Name("Size", _size),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Name("_reconstruct", _array) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Name("_frombuffer", _from_buffer) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Name("scalar", _scalar) for core in ("core", "_core")},
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}
