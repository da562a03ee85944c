"""This module reads flax's msgpack checkpoints: maps, lists, numbers, and arrays as an extension (msgpack.org)."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

from score_sde.readers.refusal import Refused, shown

_ARRAY, _SCALAR = 1, 3  # flax's extension types
_DEEPEST = 32
_KINDS = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)
DTYPES: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(name).newbyteorder("<") for name in _KINDS},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_CHUNKED = "__msgpack_chunked_array__"


def read(path: pathlib.Path) -> Any:
    """Return the value of a file: dicts, lists, numbers, text, and NumPy arrays.

    Raises:
        Refused: if the file is not msgpack, has bytes after the value, or has an extension that weights do not need.
    """
    data = memoryview(path.read_bytes())
    reader = _Reader(data)
    try:
        value = reader.value(0)
    except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise Refused(f"it is cut off, or damaged ({shown(error)})") from error
    if reader.place != len(data):
        raise Refused(f"it has {len(data) - reader.place} bytes after its end")
    return value


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.place = data, 0

    def take(self, count: int) -> memoryview:
        if count < 0 or self.place + count > len(self.data):
            raise Refused("it is cut off, or damaged")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise Refused(f"it is nested more than {_DEEPEST} deep")
        code = self.take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code < 0x90:
            return self._map(code & 0x0F, depth)
        if code < 0xA0:
            return self._list(code & 0x0F, depth)
        if code < 0xC0:
            return str(self.take(code & 0x1F), "utf-8")
        return self._long(code, depth)

    def _long(self, code: int, depth: int) -> Any:
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self.number(_NUMBERS[code])
        if code in _SIZED:
            kind, form = _SIZED[code]
            size = self.number(form)
            if kind == "text":
                return str(self.take(size), "utf-8")
            if kind == "bytes":
                return bytes(self.take(size))
            if kind == "list":
                return self._list(size, depth)
            if kind == "map":
                return self._map(size, depth)
            return self._extension(self.number("b"), self.take(size), depth)
        if 0xD4 <= code <= 0xD8:
            return self._extension(self.number("b"), self.take(1 << (code - 0xD4)), depth)
        raise Refused(f"it has the code 0x{code:02x}, which msgpack does not define")

    def _list(self, count: int, depth: int) -> list[Any]:
        if count > len(self.data) - self.place:  # each item takes at least one byte
            raise Refused("it is cut off, or damaged")
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> Any:
        if count > len(self.data) - self.place:
            raise Refused("it is cut off, or damaged")
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str):
                raise Refused("it has a map with a key that is not text")
            found[key] = self.value(depth + 1)
        return _joined(found) if _CHUNKED in found else found

    def _extension(self, kind: int, content: memoryview, depth: int) -> Any:
        if kind not in (_ARRAY, _SCALAR):
            raise Refused(f"it has an extension of type {kind}, which weights do not need")
        inner = _Reader(content).value(depth + 1)
        match inner:
            case [list() as shape, str() as name, bytes() as raw]:
                return _array(shape, name, raw)
        raise Refused("it has an array that is not in flax's format")


def _array(shape: list[Any], name: str, raw: bytes) -> np.ndarray:
    dtype = DTYPES.get(name)
    if dtype is None:
        raise Refused(f"it has an array of the unknown type {shown(name)}")
    if len(shape) > 8 or not all(isinstance(side, int) and 0 <= side < 2**62 for side in shape):
        raise Refused("it has an array whose sizes are not whole numbers")
    count = int(np.prod([float(side) for side in shape])) if shape else 1
    if count * dtype.itemsize != len(raw):
        raise Refused(f"it has an array with {len(raw)} bytes for {shown(shape)} numbers of type {name}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _joined(parts: dict[str, Any]) -> np.ndarray:
    """Return an array of more than a gigabyte, which flax writes in chunks."""
    shape, chunks = parts.get("shape"), parts.get("chunks")
    if isinstance(shape, dict):
        shape = list(shape.values())
    if isinstance(chunks, dict):
        chunks = list(chunks.values())
    arrays = isinstance(chunks, list) and chunks and all(isinstance(chunk, np.ndarray) for chunk in chunks)
    if not (isinstance(shape, list) and isinstance(chunks, list) and arrays) or len({c.dtype for c in chunks}) != 1:
        raise Refused("it has an array that is not in flax's format")
    whole = np.concatenate([chunk.ravel() for chunk in chunks])
    if not all(isinstance(side, int) and 0 <= side < 2**62 for side in shape):
        raise Refused("it has an array whose sizes are not whole numbers")
    return whole.reshape(shape)


_CONSTANTS: dict[int, Any] = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(zip(range(0xCA, 0xD4), (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True))
_SIZED = {
    **dict(zip((0xC4, 0xC5, 0xC6), (("bytes", f) for f in (">B", ">H", ">I")), strict=True)),
    **dict(zip((0xC7, 0xC8, 0xC9), (("extension", f) for f in (">B", ">H", ">I")), strict=True)),
    **dict(zip((0xD9, 0xDA, 0xDB), (("text", f) for f in (">B", ">H", ">I")), strict=True)),
    **dict(zip((0xDC, 0xDD), (("list", f) for f in (">H", ">I")), strict=True)),
    **dict(zip((0xDE, 0xDF), (("map", f) for f in (">H", ">I")), strict=True)),
}
