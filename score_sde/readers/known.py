"""This module maps each name that a pickle of weights or arrays may use to a function of plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from score_sde.readers.refusal import Refused

# The dtype of the elements of each torch storage. Big-endian machines write little-endian files too.
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
    """`Storage` refers by a key to numbers that are stored elsewhere in the file."""

    key: str
    dtype: np.dtype[Any]
    length: int


@dataclasses.dataclass(frozen=True)
class Stored:
    """`Stored` describes a tensor as a view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass
class ScalarType:
    """`ScalarType` holds the numpy.dtype of one number: its code and its byte order."""

    code: str
    order: str = "<"

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code if self.order in "<>" else self.code)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """`Encoded` holds bytes as Latin-1 text; `content` makes the bytes on demand, so that unused bytes cost nothing."""

    text: str

    def __len__(self) -> int:
        return len(self.text)

    def content(self) -> bytes:
        try:
            return self.text.encode("latin1")
        except UnicodeEncodeError as error:
            raise Refused("it has bytes that are not encoded as NumPy encodes them, in Latin-1") from error


@dataclasses.dataclass
class Array:
    """`Array` holds the state of a NumPy array; `numbers` makes the array on demand."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = dataclasses.field(default_factory=lambda: np.dtype("u1"))
    raw: bytes | str | Encoded = b""
    fortran: bool = False

    def set_state(self, state: Any) -> None:
        """Set the array from the state that NumPy pickles: version, shape, type, order of axes, bytes."""
        match state:
            case (int(), tuple() as shape, ScalarType() as kind, bool() | int() as fortran, raw) if (
                len(shape) <= 8 and all(map(is_count, shape)) and isinstance(raw, bytes | str | Encoded)
            ):
                self.shape, self.dtype, self.raw, self.fortran = shape, kind.numpy(), raw, bool(fortran)
            case _:
                raise Refused("it has an array that is not in NumPy's pickle format")

    def numbers(self) -> np.ndarray:
        """Return the array; raise Refused if the number of bytes does not fit the shape."""
        raw = Encoded(self.raw) if isinstance(self.raw, str) else self.raw
        content = raw if isinstance(raw, bytes) else raw.content()
        if len(content) != self.dtype.itemsize * math.prod(self.shape):
            raise Refused("it has an array with too few or too many bytes")
        return np.frombuffer(content, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")


@dataclasses.dataclass(frozen=True)
class Name:
    """`Name` holds a known name and the function that replaces it, or None if the name cannot be called."""

    name: str
    call: Callable[..., Any] | None = None


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Stored:
    whole = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= 8
    if not (isinstance(storage, Storage) and is_count(offset) and whole):
        raise Refused("it has a tensor that is not in PyTorch's pickle format")
    if not all(map(is_count, (*shape, *strides))):
        raise Refused("it has a tensor whose sizes or strides are not whole numbers")
    return Stored(storage, offset, shape, strides)


def _parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


def _dictionary(*items: Any) -> dict[Any, Any]:
    if items not in ((), ([],)):
        raise Refused("it has an ordered dictionary that is not in PyTorch's pickle format")
    return {}


def _encode(text: Any, encoding: Any = "latin1") -> Encoded:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("it has bytes that are not encoded as NumPy encodes them, in Latin-1")
    return Encoded(text)


def _array(kind: Any, shape: Any = (), code: Any = b"") -> Array:
    if not isinstance(kind, Name):
        raise Refused("it has an array that is not in NumPy's pickle format")
    return Array()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    array = Array()
    array.set_state((1, shape, kind, order == "F", raw))
    return array


def _scalar_type(code: Any, *rest: Any) -> ScalarType:
    if not isinstance(code, str) or code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise Refused("it has a number of an unknown type")
    return ScalarType(code)


def _scalar(kind: Any, raw: Any = b"") -> float | int:
    if not isinstance(kind, ScalarType) or not isinstance(raw, bytes | Encoded) or len(raw) > 8:
        raise Refused("it has a number that is not in NumPy's pickle format")
    dtype, raw = kind.numpy(), raw if isinstance(raw, bytes) else raw.content()
    if len(raw) != dtype.itemsize:
        raise Refused("it has a number with too few or too many bytes")
    return np.frombuffer(raw, dtype)[0].item()


def _size(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, tuple | list) or len(items) > 8:
        raise Refused("it has a torch.Size that is not in PyTorch's pickle format")
    return tuple(items)


# The keys are module and name.
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
