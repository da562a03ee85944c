"""This module reads pickles of weights and arrays with its own small interpreter.

A pickle is a program: Python's reader imports and calls what the pickle names. The interpreter here knows the few names
that weights need (known.py); any other name stops the reading. Every instruction costs a bounded amount of memory
beyond the bytes of the instruction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from score_sde.readers.known import KNOWN, Array, Encoded, Name, ScalarType, Storage, is_count
from score_sde.readers.refusal import Refused, shown

_MOST_ARGUMENTS = 16


class _Mark:
    pass


def read(data: bytes | memoryview, start: int = 0) -> tuple[Any, int]:
    """Return the value that a pickle makes, and the place in the data where the pickle ends.

    Raises:
        Refused: if the data is not a pickle, or if the pickle names something that weights do not need.
    """
    machine = _Machine(memoryview(data), start)
    try:
        return machine.run(), machine.place
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise Refused(f"a pickle in it is damaged near byte {machine.place}") from error


class _Machine:
    """`_Machine` holds the stack, the memo, and the current place in the data."""

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
                f"it asks for {shown(f'{module}.{attribute}')}, which weights and arrays do not need; nothing of it "
                "was executed"
            )
        self.push(known)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not (isinstance(function, Name) and function.call is not None and isinstance(arguments, tuple)):
            raise ValueError("no known function")
        if len(arguments) > _MOST_ARGUMENTS:  # repeated references would cost more memory than their bytes
            raise Refused("it calls a function with more arguments than weights need")
        self.push(function.call(*arguments))

    def build(self) -> None:
        state, value = self.pop(), self.stack[-1]
        if isinstance(value, ScalarType) and isinstance(state, tuple) and state[1] in ("<", ">", "|", "="):
            value.order = state[1]
        elif isinstance(value, Array):
            value.set_state(state)
        elif not isinstance(value, dict):  # the state of a state dict holds the versions of its modules
            raise ValueError("nothing that has a state")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A key of another type could be nested so deeply that hashing the key would end the process.
            if isinstance(key, bytes | Encoded):
                key = str(key, "latin1") if isinstance(key, bytes) else key.text
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
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as length, *views) if is_count(
                length
            ) and views in ([], [None]):
                self.push(Storage(key, dtype, length))
            case _:
                raise Refused("it has a tensor that is stored in an unknown way")

    def long(self, size: int) -> None:
        if size > 64:
            raise Refused("it has a number of more than 64 bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))


Instruction = Callable[[_Machine], Any]


def _instructions() -> dict[int, Instruction]:
    """Return the instructions of pickle protocols 0 to 5 that plain data need (Python's pickletools lists all)."""

    def text(form: str) -> Instruction:
        return lambda m: m.push(str(m.take(m.number(form)), "utf-8"))

    def old_text(form: str) -> Instruction:
        return lambda m: m.push(str(m.take(m.number(form)), "latin1"))

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
        **{ord("U"): old_text("<B"), ord("T"): old_text("<I")},  # text of Python 2
        **{ord("B"): raw("<I"), ord("C"): raw("<B"), 0x8E: raw("<Q"), 0x96: raw("<Q"), 0x98: lambda m: None},
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
