"""The pickles inside PyTorch's files, read by a small machine of our own.

A pickle is a program: Python's own reader imports and calls what it names. This one knows the few names that weights
need, each as a function of ours on plain values; any other name ends the reading. Every instruction costs a bounded
amount of memory beyond the bytes that it was read from.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from score_sde.published.refusal import Refused, shown

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
class _ScalarType:
    """numpy.dtype of a single number."""

    code: str
    order: str = "<"


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that is known, and what stands for it; None where it cannot be called."""

    name: str
    call: Callable[..., Any] | None = None


class _Mark:
    pass


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Stored:
    whole = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= 8
    if not (isinstance(storage, Storage) and _is_count(offset) and whole):
        raise Refused("a tensor in it is not made as PyTorch makes them")
    if not all(map(_is_count, (*shape, *strides))):
        raise Refused("a tensor in it has sizes or strides that are no whole numbers")
    return Stored(storage, offset, shape, strides)


def _parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


def _dictionary(*items: Any) -> dict[Any, Any]:
    if items not in ((), ([],)):
        raise Refused("an ordered dictionary in it is not made as PyTorch makes them")
    return {}


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("bytes in it are not written as NumPy writes them")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise Refused("bytes in it are not written as NumPy writes them") from error


def _scalar_type(code: Any, *rest: Any) -> _ScalarType:
    if not isinstance(code, str) or code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise Refused("a number in it has an unknown type")
    return _ScalarType(code)


def _scalar(kind: Any, raw: Any = b"") -> float | int:
    if not isinstance(kind, _ScalarType) or not isinstance(raw, bytes):
        raise Refused("a number in it is not written as NumPy writes them")
    dtype = np.dtype(kind.order + kind.code if kind.order in "<>" else kind.code)
    if len(raw) != dtype.itemsize:
        raise Refused("a number in it has too few or too many bytes")
    return np.frombuffer(raw, dtype)[0].item()


def _size(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, tuple | list):
        raise Refused("a torch.Size in it is not made as PyTorch makes them")
    return tuple(items)


KNOWN: dict[tuple[str, str], _Name | np.dtype[Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Name("_rebuild_tensor_v2", _tensor),
    ("torch._utils", "_rebuild_tensor"): _Name("_rebuild_tensor", _tensor),
    ("torch._utils", "_rebuild_parameter"): _Name("_rebuild_parameter", _parameter),
    ("collections", "OrderedDict"): _Name("OrderedDict", _dictionary),
    ("_codecs", "encode"): _Name("encode", _encode),
    ("numpy", "dtype"): _Name("dtype", _scalar_type),
    ("torch", "Size"): _Name("Size", _size),
    **{(f"numpy.{core}.multiarray", "scalar"): _Name("scalar", _scalar) for core in ("core", "_core")},
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def read(data: bytes | memoryview, start: int = 0) -> tuple[Any, int]:
    """The value that a pickle makes, and where in the data it ends.

    Raises:
        Refused: for a pickle that names what weights do not need, or that is none.
    """
    machine = _Machine(memoryview(data), start)
    try:
        return machine.run(), machine.place
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise Refused(f"a pickle in it is damaged near byte {machine.place}") from error


class _Machine:
    """Stack, memo, and a place in the data."""

    def __init__(self, data: memoryview, place: int) -> None:
        self.data, self.place = data, place
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                return self.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise Refused(f"a pickle in it has the instruction 0x{code:02x}, which weights do not need")
            instruction(self)

    def take(self, count: int) -> memoryview:
        if count < 0 or self.place + count > len(self.data):
            raise Refused("it is cut off, or damaged")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def line(self) -> str:
        begin = self.place
        while self.take(1)[0] != 0x0A:
            if self.place - begin > 1000:
                raise Refused("it is cut off, or damaged")
        return str(self.data[begin : self.place - 1], "utf-8")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise IndexError("a mark where a value was expected")
        return value

    def pop_to_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while not isinstance(self.stack[place], _Mark):
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def name(self, module: Any, attribute: Any) -> None:
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise ValueError("names are text")
        known = KNOWN.get((module, attribute))
        if known is None:
            raise Refused(
                f"it asks for {shown(f'{module}.{attribute}')}, which weights do not need; nothing of it was executed"
            )
        self.push(known)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not (isinstance(function, _Name) and function.call is not None and isinstance(arguments, tuple)):
            raise ValueError("no known function")
        self.push(function.call(*arguments))

    def build(self) -> None:
        state, value = self.pop(), self.stack[-1]
        if isinstance(value, _ScalarType) and isinstance(state, tuple) and state[1] in ("<", ">", "|", "="):
            value.order = state[1]
        elif not isinstance(value, dict):  # of a state dict it is the versions of its modules
            raise ValueError("nothing that has a state")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Others could be nested so deeply that hashing them would end the process.
            if not isinstance(key, str | int):
                raise ValueError("a key that is neither text nor a number")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("no list")
        target.extend(items)

    def persistent(self) -> None:
        match self.pop():
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as length, *_) if _is_count(length):
                self.push(Storage(key, dtype, length))
            case _:
                raise Refused("a tensor in it is kept in an unknown way")

    def long(self, size: int) -> None:
        if size > 64:
            raise Refused("it has a number of more than 64 bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))


Instruction = Callable[[_Machine], Any]


def _instructions() -> dict[int, Instruction]:
    """The instructions of pickle protocols 0 to 5 that plain data need (Python's pickletools lists them all)."""

    def text(form: str) -> Instruction:
        return lambda m: m.push(str(m.take(m.number(form)), "utf-8"))

    def raw(form: str) -> Instruction:
        return lambda m: m.push(bytes(m.take(m.number(form))))

    def whole(form: str) -> Instruction:
        return lambda m: m.push(m.number(form))

    def tuple_of(count: int) -> Instruction:
        return lambda m: m.push(tuple(reversed([m.pop() for _ in range(count)])))

    def put(key: Callable[[_Machine], int]) -> Instruction:
        return lambda m: m.memo.__setitem__(key(m), m.stack[-1])

    def get(form: str) -> Instruction:
        return lambda m: m.push(m.memo[m.number(form)])

    def constant(make: Callable[[], Any]) -> Instruction:
        return lambda m: m.push(make())

    def set_item(m: _Machine) -> None:
        value, key = m.pop(), m.pop()
        m.set_items([key, value])

    def stack_global(m: _Machine) -> None:
        attribute, module = m.pop(), m.pop()
        m.name(module, attribute)

    def refuse_class(m: _Machine) -> None:
        m.name(m.line(), m.line())
        raise Refused("it makes an object of a class, which weights do not need")

    return {
        **{ord("N"): constant(lambda: None), 0x88: constant(lambda: True), 0x89: constant(lambda: False)},
        **{ord("}"): constant(dict), ord("]"): constant(list), ord(")"): constant(tuple), ord("("): constant(_Mark)},
        **{ord("K"): whole("<B"), ord("M"): whole("<H"), ord("J"): whole("<i"), ord("G"): whole(">d")},
        **{0x8A: lambda m: m.long(m.number("<B")), 0x8B: lambda m: m.long(m.number("<i"))},
        **{ord("X"): text("<I"), 0x8C: text("<B"), 0x8D: text("<Q")},
        **{ord("B"): raw("<I"), ord("C"): raw("<B"), 0x8E: raw("<Q")},
        **{0x85: tuple_of(1), 0x86: tuple_of(2), 0x87: tuple_of(3)},
        ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),
        **{ord("q"): put(lambda m: m.number("<B")), ord("r"): put(lambda m: m.number("<I"))},
        0x94: put(lambda m: len(m.memo)),
        **{ord("h"): get("<B"), ord("j"): get("<I")},
        **{ord("a"): lambda m: m.append([m.pop()]), ord("e"): lambda m: m.append(m.pop_to_mark())},
        **{ord("s"): set_item, ord("u"): lambda m: m.set_items(m.pop_to_mark())},
        **{ord("c"): lambda m: m.name(m.line(), m.line()), 0x93: stack_global},
        **{ord("i"): refuse_class, ord("R"): _Machine.reduce, ord("b"): _Machine.build, ord("Q"): _Machine.persistent},
        **{0x80: lambda m: m.take(1), 0x95: lambda m: m.take(8), ord("0"): _Machine.pop},  # version, frame, pop
    }


_INSTRUCTIONS = _instructions()
