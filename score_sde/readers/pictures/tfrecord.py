"""This module reads TFRecord files without TensorFlow: files of StyleGAN (raw pixels) or with encoded pictures.

A record consists of the length of its content (8 bytes), a checksum of the length, the content, and a checksum of the
content. The content is a message tf.train.Example: a map from names to lists of bytes, floats or whole numbers.
"""

from __future__ import annotations

import functools
import pathlib
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers import protobuf
from score_sde.readers.pictures.collection import TRAIN, Collection, part_of_file, stamp_of
from score_sde.readers.refusal import shown

NAME = re.compile(r".*\.tfrecords?(-\d+-of-\d+)?$")
_LEVEL = re.compile(r"-r(\d+)\.tfrecords$")
_PICTURES = ("image", "image/encoded", "image_raw", "img", "jpg", "png")
_LABELS = ("label", "image/class/label", "labels", "class")
_CAPTIONS = ("text", "caption", "image/caption")
_MOST_BYTES = 2**29


def of_files(where: pathlib.Path, files: Sequence[pathlib.Path]) -> Collection:
    """Return the pictures of TFRecord files; of StyleGAN's, only the file of the largest resolution.

    Raises:
        InputError: if a file is cut off or damaged, or if the records have no pictures.
    """
    levels = {path: int(match[1]) for path in files if (match := _LEVEL.search(path.name))}
    notes: tuple[str, ...] = ()
    if len(levels) == len(files) > 1:
        largest = max(levels.values())
        notes = (f"of {len(files)} files only the one of the largest resolution is used",)
        files = [path for path in files if levels[path] == largest]
    places = [(number, offset, length) for number, path in enumerate(files) for offset, length in _records(path)]
    handles = [path.open("rb") for path in files]
    lock = threading.Lock()

    def example(number: int) -> dict[str, list[Any]]:
        file, offset, length = places[number]
        with lock:
            handles[file].seek(offset)
            content = handles[file].read(length)
        try:
            return features(content)
        except (IndexError, ValueError, struct.error) as error:
            raise InputError(
                f"{names[number]} of {where} is not a tf.train.Example ({error}): get the file again."
            ) from error

    told = [path.relative_to(where).as_posix() if path != where else path.name for path in files]
    names = [f"{told[file]}/{place:08d}" for place, (file, _, _) in enumerate(places)]
    if not places:
        raise InputError(f"{where} has no records; expected pictures.")
    columns: dict[str, list[Any]] = {}
    for number in range(len(places)):
        entries = example(number)
        for meaning, known in (("label", _LABELS), ("text", _CAPTIONS)):
            name = next((name for name in known if len(entries.get(name, ())) == 1), None)
            if name is not None:
                columns.setdefault(meaning, [None] * len(places))[number] = _one(entries[name])
    splits = [part_of_file(told[file]) for file, _, _ in places]
    stamps = [stamp_of(path) for path in files]
    return Collection(
        "TFRecord files" if len(files) > 1 else "a TFRecord file",
        where,
        names,
        lambda number: _picture(example(number), names[number]),
        lambda number: stamps[places[number][0]],
        splits if TRAIN in splits and len(set(splits)) > 1 and "" not in splits else None,
        columns,
        notes=notes,
    )


def _one(entries: list[Any]) -> Any:
    entry = entries[0]
    return entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry


def _picture(example: dict[str, list[Any]], name: str) -> bytes | np.ndarray:
    shape, data = example.get("shape"), example.get("data")
    if shape and data and isinstance(data[0], bytes):
        whole = len(shape) == 3 and all(isinstance(side, int) and side > 0 for side in shape)
        if not whole or shape[0] not in (1, 3, 4):
            raise InputError(f"{name} has the shape {shown(shape)}; expected (channels, height, width).")
        if len(data[0]) != shape[0] * shape[1] * shape[2]:
            raise InputError(f"{name} has {len(data[0]):,} bytes of pixels; expected one per value of shape {shape}.")
        return np.frombuffer(data[0], np.uint8).reshape(shape).transpose(1, 2, 0)
    found = next((example[key][0] for key in _PICTURES if example.get(key)), None)
    if not isinstance(found, bytes):
        raise InputError(f"{name} has features {shown(', '.join(example), 200)}; expected shape and data, or image.")
    return found


def _records(path: pathlib.Path) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length of the content of each record."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place = 0
        while place < size:
            head = file.read(12)
            if len(head) < 12 or _masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
                raise InputError(f"{path} is not a TFRecord file, or is damaged near byte {place:,}: get it again.")
            length = struct.unpack("<Q", head[:8])[0]
            if place + 16 + length > size or length > _MOST_BYTES:
                raise InputError(f"{path} is cut off in the record at byte {place:,}: get it again.")
            yield place + 12, length
            place += 16 + length
            file.seek(place)


def is_tfrecord(head: bytes) -> bool:
    """Return whether 12 bytes can be the head of a record."""
    return len(head) >= 12 and _masked_crc(head[:8]) == struct.unpack("<I", head[8:12])[0]


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def _masked_crc(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of the data, rotated and shifted as in TFRecord files."""
    crc, table = 0xFFFFFFFF, _crc_table()
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def features(content: bytes) -> dict[str, list[Any]]:
    """Return the features of a tf.train.Example: for each name a list of bytes, floats or whole numbers.

    Raises:
        ValueError, IndexError, struct.error: if the bytes are not a tf.train.Example.
    """
    found: dict[str, list[Any]] = {}
    for _, example in _fields(memoryview(content), 1):
        for _, entry in _fields(example, 1):
            key, value = "", memoryview(b"")
            for number, field in _fields(entry, 1, 2):
                key, value = (str(field, "utf-8"), value) if number == 1 else (key, field)
            found[key] = _values(value)
    return found


def _values(feature: memoryview) -> list[Any]:
    values: list[Any] = []
    for kind, entries in _fields(feature, 1, 2, 3):
        if kind == 1:
            values += [bytes(entry) for _, entry in _fields(entries, 1)]
        elif kind == 2:
            packed = b"".join(bytes(entry) for _, entry in _fields(entries, 1))
            values += np.frombuffer(packed, "<f4").tolist()
        else:
            values += [whole for _, entry in _fields(entries, 1) for whole in _varints(entry)]
    return values


def _fields(message: memoryview, *wanted: int) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of each wanted field; an unpacked value has the same bytes as a packed value."""
    return ((number, content) for number, content in protobuf.fields(message) if number in wanted)


def _varints(packed: memoryview) -> Iterator[int]:
    place = 0
    while place < len(packed):
        value, place = protobuf.varint(packed, place)
        yield value - 2**64 if value >= 2**63 else value
