"""This module reads the constants of a frozen TensorFlow graph, without TensorFlow.

A GraphDef is a protocol-buffer message. The reader follows node (1), and in a node name (1), op (2) and attr (5); in an
attribute it follows tensor (8); in a tensor dtype (1), tensor_shape (2) and tensor_content (4) or float_val (5). All
other fields are skipped. Nothing is executed.
"""

from __future__ import annotations

import math
import pathlib

import numpy as np

from score_sde.readers.protobuf import fields, varint
from score_sde.readers.refusal import Refused, shown

_FLOAT = 1  # TensorFlow's number of the dtype float32
_MOST_AXES = 8


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the float32 constants of a frozen graph by the names of their nodes.

    Raises:
        Refused: if the file is not a GraphDef, or if it is damaged.
    """
    return parse(memoryview(path.read_bytes()))


def parse(data: memoryview) -> dict[str, np.ndarray]:
    """Return the float32 constants of a frozen graph in memory; raise the same errors as `read`."""
    arrays: dict[str, np.ndarray] = {}
    try:
        for field, node in fields(data):
            if field == 1:
                _add(node, arrays)
    except (ValueError, IndexError) as error:
        raise Refused(f"it is no frozen graph of TensorFlow, or it is cut off, or damaged ({shown(error)})") from error
    if not arrays:
        raise Refused("it has no constants, so it is not a frozen graph of TensorFlow")
    return arrays


def _add(node: memoryview, arrays: dict[str, np.ndarray]) -> None:
    """Add the value of a node to the arrays, if the node is a constant of float32."""
    name, op, attributes = "", b"", []
    for number, content in fields(node):
        if number == 1:
            name = str(content, "utf-8")
        elif number == 2:
            op = bytes(content)
        elif number == 5:
            attributes.append(content)
    array = _constant(attributes) if op == b"Const" else None
    if array is not None:
        arrays[name] = array


def _constant(attributes: list[memoryview]) -> np.ndarray | None:
    """Return the value of a node; None if the value is not of float32."""
    for attribute in attributes:
        entry = dict(fields(attribute))
        if entry.get(1) == b"value" and 2 in entry:
            for number, content in fields(entry[2]):
                if number == 8:
                    return _tensor(content)
    return None


def _tensor(message: memoryview) -> np.ndarray | None:
    dtype, content = 0, memoryview(b"")
    shape: tuple[int, ...] = ()
    floats: list[memoryview] = []
    for number, part in fields(message):
        if number == 1:
            dtype, _ = varint(part, 0)
        elif number == 2:
            shape = _shape(part)
        elif number == 4:
            content = part
        elif number == 5:
            floats.append(part)
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
    for number, dimension in fields(message):
        if number == 2:
            size = next((varint(part, 0)[0] for name, part in fields(dimension) if name == 1), 0)
            if size >= 2**31:
                raise Refused("it has a tensor with a size that is no count")
            sizes.append(size)
    if len(sizes) > _MOST_AXES:
        raise Refused(f"it has a tensor with {len(sizes)} axes")
    return tuple(sizes)
