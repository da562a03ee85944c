"""PyTorch's files: a zip of one pickle and each storage's raw numbers; before 1.6, pickles one after another."""

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
    """A file read: its pickle's value, whose tensors become arrays when they are asked for.

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
        """A tensor's numbers, a view of what was read of the file."""
        numbers = self._numbers(stored.storage)
        count = int(np.prod([float(size) for size in stored.shape])) if stored.shape else 1
        last = stored.offset + sum((size - 1) * step for size, step in zip(stored.shape, stored.strides, strict=True))
        if not count or count > len(numbers) or last >= len(numbers):
            raise Refused("a tensor in it is empty, or larger than the numbers that are kept for it")
        item = numbers.dtype.itemsize
        # Where there is one place only, the step to the next may be any number.
        strides = [item * step if size > 1 else 0 for size, step in zip(stored.shape, stored.strides, strict=True)]
        return np.lib.stride_tricks.as_strided(numbers[stored.offset :], stored.shape, strides, writeable=False)

    def _numbers(self, storage: Storage) -> np.ndarray:
        if storage.key not in self._read:
            raw = self._raw(storage)
            self._total += len(raw)
            if self._total > self._size:
                raise Refused("its parts overlap")
            if len(raw) != storage.length * storage.dtype.itemsize:
                raise Refused(f"it keeps {len(raw)} bytes for {storage.length} numbers of type {storage.dtype}")
            self._read[storage.key] = np.frombuffer(raw, storage.dtype)
        numbers = self._read[storage.key]
        if numbers.dtype != storage.dtype:
            raise Refused("the same numbers in it have two types")
        return numbers


def read(path: pathlib.Path) -> TorchFile:
    """A file of torch.save.

    Raises:
        Refused: for one that is none, is damaged, or asks for more than weights need.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    with _damage_told():
        return _read_zip(path) if zipped else _read_legacy(path)


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """What a damaged zip makes its reader raise, as a refusal."""
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
    """The pickle's value, and how to get a storage's bytes."""
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
        raise Refused(f"it is a zip file, but none of PyTorch's: it has {len(mains)} parts data.pkl")
    folder = mains[0].removesuffix("data.pkl")
    order = folder + "byteorder"
    if order in entries and content(order).strip() != _LITTLE.encode():
        raise Refused("its numbers are big-endian")
    value, _ = pickles.read(content(mains[0]))
    return value, lambda storage: content(f"{folder}data/{storage.key}")


def _read_legacy(path: pathlib.Path) -> TorchFile:
    """Five pickles (a magic number, a version, facts of the machine, the value, the storages' keys), then numbers."""
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
        raise Refused(f"it has {len(data) - place} bytes behind its end")

    def raw(storage: Storage) -> memoryview:
        begin = begins.get(storage.key)
        if begin is None:
            raise Refused("a tensor in it has no numbers")
        return data[begin : begin + storage.length * storage.dtype.itemsize]

    return TorchFile(value, raw, len(data))


def _storages(value: Any) -> list[Storage]:
    """Every storage in a value; each container is entered once, however often it is referred to."""
    found, seen, waiting = [], set(), [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Stored):
            found.append(each.storage)
        elif isinstance(each, dict | list | tuple) and id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return found
