"""This module reads the fields of a protocol-buffer message, for readers that know the message's layout."""

from __future__ import annotations

from collections.abc import Iterator


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and raw content of each field; a number's content is its varint.

    Raises:
        ValueError, IndexError: if the message is damaged.
    """
    place = 0
    while place < len(message):
        tag, place = varint(message, place)
        number, kind = tag >> 3, tag & 7
        begin = place
        if kind == 0:
            _, place = varint(message, place)
        elif kind == 2:
            length, begin = varint(message, place)
            place = begin + length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {number} has an unknown type")
        if place > len(message):
            raise ValueError("it is cut off")
        yield number, message[begin:place]


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number at a place of a message, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")
