"""This module reads PyTorch files: a zip of one pickle and the storages' raw numbers; before 1.6, several pickles."""

from __future__ import annotations

import contextlib
import pathlib
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from score_sde.readers import pickles
from score_sde.readers.known import Storage, Stored
from score_sde.readers.refusal import Refused, shown

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LITTLE = "little"


class TorchFile:
    """`TorchFile` holds the value of a file's pickle; `array` reads the numbers of a tensor on demand.

    Attributes:
        value: dicts, lists, numbers, and `Stored` tensors.
    """

    def __init__(
        self,
        value: Any,
        raw: Callable[[Storage], memoryview | bytes],
        size: int,
        close: Callable[[], None] | None = None,
    ) -> None:
        self.value, self._raw, self._size, self._close = value, raw, size, close
        self._read: dict[str, np.ndarray] = {}
        self._total = 0

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close is not None:
            self._close()

    def array(self, stored: Stored) -> np.ndarray:
        """Return the numbers of a tensor as a read-only view of the numbers that were read from the file."""
        numbers = self._numbers(stored.storage)
        count = int(np.prod([float(size) for size in stored.shape])) if stored.shape else 1
        last = stored.offset + sum((size - 1) * step for size, step in zip(stored.shape, stored.strides, strict=True))
        if not count or count > len(numbers) or last >= len(numbers):
            raise Refused("it has a tensor that is empty, or larger than the numbers that are stored for it")
        item = numbers.dtype.itemsize
        # An axis of size 1 has no second element, so the file may state any stride for this axis.
        strides = [item * step if size > 1 else 0 for size, step in zip(stored.shape, stored.strides, strict=True)]
        return np.lib.stride_tricks.as_strided(numbers[stored.offset :], stored.shape, strides, writeable=False)

    def _numbers(self, storage: Storage) -> np.ndarray:
        if storage.key not in self._read:
            raw = self._raw(storage)
            self._total += len(raw)
            if self._total > self._size:
                raise Refused("its parts overlap")
            if len(raw) != storage.length * storage.dtype.itemsize:
                raise Refused(f"it has {len(raw)} bytes for {storage.length} numbers of type {storage.dtype}")
            self._read[storage.key] = np.frombuffer(raw, storage.dtype)
        numbers = self._read[storage.key]
        if numbers.dtype != storage.dtype:
            raise Refused("it has a storage with two dtypes")
        return numbers


def read(path: pathlib.Path) -> TorchFile:
    """Read a file that torch.save wrote.

    Raises:
        Refused: if torch.save did not write the file, or if the file is damaged or asks for more than weights need.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    with _damage_told():
        return _read_zip(path) if zipped else _read_legacy(path)


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """Convert the exceptions that a damaged zip causes into Refused."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        struct.error,
        ValueError,
        RuntimeError,
        KeyError,
    ) as error:
        raise Refused(f"it is cut off, or damaged ({shown(error)})") from error


def _read_zip(path: pathlib.Path) -> TorchFile:
    size = path.stat().st_size
    archive = zipfile.ZipFile(path)
    try:
        value, raw = _parts(archive, size)
    except BaseException:
        archive.close()
        raise
    return TorchFile(value, raw, size, archive.close)


def _parts(archive: zipfile.ZipFile, size: int) -> tuple[Any, Callable[[Storage], bytes]]:
    """Return the value of the pickle, and a function that returns the bytes of a storage."""
    entries = {entry.filename: entry for entry in archive.infolist()}

    def content(name: str) -> bytes:
        entry = entries.get(name)
        if entry is None:
            raise Refused(f"it has no part {shown(name)}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise Refused(f"its part {shown(name)} is compressed, which PyTorch's files are not")
        with _damage_told():
            return archive.read(entry)

    mains = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(mains) != 1:
        raise Refused(f"it is a zip file but not a PyTorch file: it has {len(mains)} parts named data.pkl")
    folder = mains[0].removesuffix("data.pkl")
    order = folder + "byteorder"
    if order in entries and content(order).strip() != _LITTLE.encode():
        raise Refused("its numbers are big-endian")
    value, _ = pickles.read(content(mains[0]))
    return value, lambda storage: content(f"{folder}data/{storage.key}")


def _read_legacy(path: pathlib.Path) -> TorchFile:
    """Read five pickles (magic number, version, properties of the computer, value, storage keys) and the numbers."""
    data = memoryview(path.read_bytes())
    magic, place = pickles.read(data) if data[:1] == b"\x80" else (None, 0)
    if magic != _LEGACY_MAGIC:
        raise Refused("it is neither a file of PyTorch nor one of flax")
    _, place = pickles.read(data, place)
    machine, place = pickles.read(data, place)
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise Refused("its numbers are big-endian")
    value, place = pickles.read(data, place)
    keys, place = pickles.read(data, place)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("it is cut off, or damaged")
    begins: dict[str, int] = {}
    storages = {storage.key: storage for storage in _storages(value)}
    for key in keys:
        (length,) = struct.unpack_from("<q", data, place)
        if key not in storages or length != storages[key].length:
            raise Refused("it is cut off, or damaged")
        begins[key] = place + 8
        place += 8 + length * storages[key].dtype.itemsize
        if place > len(data):
            raise Refused("it is cut off, or damaged")
    if place != len(data):
        raise Refused(f"it has {len(data) - place} bytes after its end")

    def raw(storage: Storage) -> memoryview:
        begin = begins.get(storage.key)
        if begin is None:
            raise Refused("it has a tensor without numbers")
        return data[begin : begin + storage.length * storage.dtype.itemsize]

    return TorchFile(value, raw, len(data))


def _storages(value: Any) -> list[Storage]:
    """Return every storage in a value; visit each container once, even if several objects refer to it."""
    found, seen, waiting = [], set(), [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Stored):
            found.append(each.storage)
        elif isinstance(each, dict | list | tuple) and id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return found
