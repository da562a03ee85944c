"""This module reads the constants of a frozen TensorFlow graph, without TensorFlow.

A GraphDef is a protocol-buffer message. The reader follows node (1), and in a node name (1), op (2) and attr (5); in an
attribute it follows tensor (8); in a tensor dtype (1), tensor_shape (2) and tensor_content (4) or float_val (5). All
other fields are skipped. Nothing is executed.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator

import numpy as np

from score_sde.readers.refusal import Refused, shown

_FLOAT = 1  # TensorFlow's number of the dtype float32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_AXES = 8
Value = int | memoryview


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the float32 constants of a frozen graph by the names of their nodes.

    Raises:
        Refused: if the file is not a GraphDef, or if it is damaged.
    """
    return parse(memoryview(path.read_bytes()))


def parse(data: memoryview) -> dict[str, np.ndarray]:
    """Return the float32 constants of a frozen graph in memory; raise the same errors as `read`."""
    arrays: dict[str, np.ndarray] = {}
    for field, node in _fields(data):
        if field != 1:
            continue
        name, op, attributes = "", "", []
        for number, value in _fields(_message(node)):
            if number == 1:
                name = _text(value)
            elif number == 2:
                op = _text(value)
            elif number == 5:
                attributes.append(_message(value))
        if op == "Const":
            array = _constant(attributes)
            if array is not None:
                arrays[name] = array
    if not arrays:
        raise Refused("it has no constants, so it is not a frozen graph of TensorFlow")
    return arrays


def _constant(attributes: list[memoryview]) -> np.ndarray | None:
    """Return the value of a node; None if the value is not of float32."""
    for attribute in attributes:
        entry = dict(_fields(attribute))
        if entry.get(1) == b"value" and 2 in entry:
            for number, value in _fields(_message(entry[2])):
                if number == 8:
                    return _tensor(_message(value))
    return None


def _tensor(message: memoryview) -> np.ndarray | None:
    dtype, content = 0, memoryview(b"")
    shape: tuple[int, ...] = ()
    floats: list[memoryview] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2:
            shape = _shape(_message(value))
        elif number == 4:
            content = _message(value)
        elif number == 5:
            floats.append(_message(value))
    if dtype != _FLOAT:
        return None
    raw = bytes(content) if len(content) else b"".join(floats)
    size = math.prod(shape)
    if not len(content) and len(raw) == 4 and size > 0:
        # A constant of one repeated value stores the value once; a view repeats it without memory.
        return np.broadcast_to(np.frombuffer(raw, "<f4"), shape)
    if len(raw) != 4 * size:
        raise Refused(f"it has {len(raw)} bytes for a tensor of {size} numbers")
    return np.frombuffer(raw, "<f4").reshape(shape)


def _shape(message: memoryview) -> tuple[int, ...]:
    sizes: list[int] = []
    for number, dimension in _fields(message):
        if number == 2:
            size = dict(_fields(_message(dimension))).get(1, 0)
            if not isinstance(size, int) or size >= 2**31:
                raise Refused("it has a tensor with a size that is no count")
            sizes.append(size)
    if len(sizes) > _MOST_AXES:
        raise Refused(f"it has a tensor with {len(sizes)} axes")
    return tuple(sizes)


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field of a message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        value: Value
        if kind == _VARINT:
            value, place = _varint(data, place)
        elif kind in (_BYTES, _FIXED32, _FIXED64):
            size = {_FIXED32: 4, _FIXED64: 8}.get(kind, 0)
            if kind == _BYTES:
                size, place = _varint(data, place)
            if place + size > len(data):
                raise Refused("it is cut off, or damaged")
            value, place = data[place : place + size], place + size
        else:
            raise Refused(f"it is no protocol-buffer message (kind {kind} near byte {place})")
        yield number, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise Refused("it is cut off, or damaged")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise Refused("it is damaged: a number has more than 64 bits")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise Refused("it is damaged: a number stands in the place of a message")
    return value


def _text(value: Value) -> str:
    try:
        return str(_message(value), "utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"it has a name that is no text ({shown(error)})") from error
