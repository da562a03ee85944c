"""This module reads files by name from a folder, a zip or a tar; it writes no file under a name from an archive."""

from __future__ import annotations

import abc
import lzma
import os
import pathlib
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from score_sde.core.errors import InputError
from score_sde.readers.pictures.collection import stamp_of
from score_sde.readers.pictures.packed import seekable
from score_sde.readers.refusal import shown

MOST_BYTES = 2**29  # largest size of one unpacked file
_SYSTEM = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Tree(abc.ABC):
    """A `Tree` lists files and reads each file by its name.

    Attributes:
        kind: form of the tree in words, such as 'zip'.
        where: path of the tree.
        names: sorted names of the files, with slashes; hidden files and files of the operating system are omitted.
    """

    kind: str
    where: pathlib.Path
    names: list[str]
    shards: bool = False  # whether a name begins with the name of an archive

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file; raise InputError with the name of the file if the content cannot be read."""

    @abc.abstractmethod
    def stamp(self, name: str) -> str:
        """Return a text that changes when the file changes."""

    def text(self, name: str) -> str:
        """Return the content of a text file in UTF-8."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.where}/{name} is not text in UTF-8 ({error}); expected UTF-8.") from error


def read_file(path: pathlib.Path) -> bytes:
    """Return the content of a file; raise InputError if the file cannot be read or is too large."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path} has {size:,} bytes; expected at most {MOST_BYTES:,} in one file.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): repair or remove it.") from error


def is_hidden(name: str) -> bool:
    """Return whether a name belongs to a hidden file or folder, or to a file or folder of the operating system."""
    return any(part.startswith(".") or part in _SYSTEM for part in name.split("/"))


class FolderTree(Tree):
    """`FolderTree` lists the files of a folder and of its sub-folders, and follows links."""

    def __init__(self, where: pathlib.Path) -> None:
        self.kind, self.where = "folder", where
        self._stamps: dict[str, str] = {}
        for name, found in _walk(where, "", (os.path.realpath(where),)):
            self._stamps[name] = f"{found.st_size} {found.st_mtime_ns}"
        self.names = sorted(self._stamps)

    def read(self, name: str) -> bytes:
        return read_file(self.where / name)

    def stamp(self, name: str) -> str:
        return self._stamps[name]


def _walk(folder: pathlib.Path, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files below a folder; `above` holds the real paths of the folder and its parents."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}): repair or remove it.") from error
    for entry in entries:
        name = prefix + entry.name
        if is_hidden(entry.name):
            continue
        try:
            found = entry.stat()
        except OSError as error:
            raise InputError(f"{entry.path} is a link that leads nowhere ({error.strerror}): remove it.") from error
        if stat.S_ISREG(found.st_mode):
            yield name, found
        elif stat.S_ISDIR(found.st_mode):
            real = os.path.realpath(entry.path)
            if real in above:
                raise InputError(f"{entry.path} is a link to {real}, a folder that contains it: remove this loop.")
            yield from _walk(pathlib.Path(entry.path), f"{name}/", (*above, real))


class ZipTree(Tree):
    """`ZipTree` lists the files of a zip."""

    def __init__(self, where: pathlib.Path) -> None:
        self.kind, self.where = "zip", where
        try:
            self._zip = zipfile.ZipFile(where)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise InputError(f"{where} cannot be opened as a zip ({str(error)[:100]}): get it again.") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            name = safe_name(where, member.filename)
            if name and not member.is_dir() and not is_hidden(name):
                if member.flag_bits & 1:
                    raise InputError(f"{where} is encrypted ({shown(name)}): unpack it, and give the folder.")
                self._members[name] = member
        self.names = sorted(self._members)
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        member = self._members[name]
        try:
            with self._lock, self._zip.open(member) as file:
                content = file.read(min(member.file_size, MOST_BYTES) + 1)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError) as error:
            raise InputError(f"{self.where}: {shown(name)} cannot be unpacked ({str(error)[:100]}).") from error
        if len(content) != member.file_size or member.file_size > MOST_BYTES:
            raise InputError(
                f"{self.where}: {shown(name)} does not unpack to the {member.file_size:,} bytes that it states, or "
                f"states more than {MOST_BYTES:,}; the file is not used."
            )
        return content

    def stamp(self, name: str) -> str:
        return f"{self._members[name].file_size} {self._members[name].CRC}"


class TarTree(Tree):
    """`TarTree` lists the files of one or several tars, gzipped or not, and reads a file from its place in the tar."""

    def __init__(self, where: pathlib.Path, tars: list[pathlib.Path]) -> None:
        self.kind, self.where, self.shards = "tar" if len(tars) == 1 else "folder of tars", where, len(tars) > 1
        self._files: list[IO[bytes]] = []
        self._stamps: list[str] = []
        self._places: dict[str, tuple[int, int, int]] = {}  # the tar, the offset, the size
        self._lock = threading.Lock()
        for path in tars:
            self._add(path, f"{path.relative_to(where).as_posix()}/" if len(tars) > 1 else "")
        self.names = sorted(self._places)

    def _add(self, path: pathlib.Path, prefix: str) -> None:
        number, file = len(self._files), seekable(path)
        self._files.append(file)
        self._stamps.append(stamp_of(path))
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    name = safe_name(path, member.name)
                    if member.issym() or member.islnk():
                        raise InputError(f"{path} has the link {shown(name)}; expected files: pack it without links.")
                    if member.isreg() and not member.issparse() and name and not is_hidden(name):
                        self._places[prefix + name] = (number, member.offset_data, member.size)
                size = file.seek(0, os.SEEK_END)
        except InputError:
            raise
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a tar ({str(error)[:100]}): get it again.") from error
        for name, (tar, offset, length) in self._places.items():
            if tar == number and offset + length > size:
                raise InputError(f"{path} is cut off: {shown(name)} ends after the end of the archive; get it again.")

    def read(self, name: str) -> bytes:
        tar, offset, size = self._places[name]
        if size > MOST_BYTES:
            raise InputError(f"{self.where}: {shown(name)} has {size:,} bytes; expected at most {MOST_BYTES:,}.")
        with self._lock:
            self._files[tar].seek(offset)
            return self._files[tar].read(size)

    def stamp(self, name: str) -> str:
        return f"{self._stamps[self._places[name][0]]} {self._places[name]}"


def safe_name(where: pathlib.Path, name: str) -> str:
    """Return a name of an archive with slashes, without a leading './'.

    Raises:
        InputError: if the name leads out of the archive.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if ".." in parts or plain.startswith("/") or (parts and len(parts[0]) == 2 and parts[0][1] == ":"):
        raise InputError(f"{where} has the name {shown(name)!r}, which leads out of it; the archive is not used.")
    return "/".join(parts)
