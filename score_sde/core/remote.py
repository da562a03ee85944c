"""This module provides workdirs at an address such as gs://bucket/run, with a copy in a local folder.

The copy is updated before a job begins. The files that the job writes are sent while the job runs and at its end. An
object store writes each object completely or not at all, and cannot rename. So a checkpoint is sent file by file, and
checkpoints/STEP.json, the list of its files with their sizes, is written last. A checkpoint without this list does not
exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from score_sde.core.errors import InputError, StorageError

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(.+)")  # pathlib replaces two slashes by one
_CHECKPOINTS = "checkpoints"
_TOKEN, _ALL_SENT = ".token", ".all-sent"
_EVERY_S = 10.0
_INSTALL = "pip install 'score_sde[cloud]' installs fsspec with gs:// and s3://"


def is_address(path: str | os.PathLike[str]) -> bool:
    """Return whether a path has the form of an address for fsspec, such as gs://bucket/run."""
    return _ADDRESS.fullmatch(os.fspath(path)) is not None


def read_bytes(address: str | os.PathLike[str], name: str) -> bytes | None:
    """Return the content of a file in a folder at an address, or None if the file does not exist."""
    fs, root = _store(address)
    try:
        content: bytes = fs.cat_file(f"{root}/{name}")
    except FileNotFoundError:
        return None
    return content


@contextlib.contextmanager
def here(
    workdir: str | os.PathLike[str], cache: pathlib.Path, *, writes: bool, owner: str = "", every_s: float = _EVERY_S
) -> Iterator[pathlib.Path]:
    """Yield a workdir as a local folder: the workdir itself, or the copy of a workdir at an address.

    Args:
        workdir: a folder, or an address.
        cache: folder in which copies are kept.
        owner: suffix of the folder of the copy, if one machine keeps several copies.
        writes: whether changes of the copy are sent to the address, every `every_s` seconds and at the end.
        every_s: time between two updates, in seconds.

    Raises:
        InputError: for an address that cannot be read, or whose store needs a package that is not installed.
        StorageError: if a file could not be sent; the copy keeps the file.
    """
    if not is_address(workdir):
        yield pathlib.Path(workdir).expanduser()
        return
    copy = Copy(workdir, cache, owner)
    copy.open(writes)
    if not writes:
        yield copy.folder
        return
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(every_s):
            with contextlib.suppress(StorageError):  # sent again later; `close` raises the error
                copy.send()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield copy.folder
    finally:
        ended.set()
        follower.join()
        copy.close()


class Copy:
    """`Copy` is the copy of a workdir at an address, in a folder of the cache.

    Args:
        address: address of the workdir, such as gs://bucket/run.
        cache: folder in which copies are kept, each in its own folder.
        owner: suffix of the folder of the copy, as in `here`.
    """

    def __init__(self, address: str | os.PathLike[str], cache: pathlib.Path, owner: str = "") -> None:
        self.address, (self._fs, self._root) = os.fspath(address), _store(address)
        name = self._root.rstrip("/").rpartition("/")[2] or "workdir"
        digest = hashlib.blake2b(f"{os.fspath(address)}".encode(), digest_size=6).hexdigest()
        self.folder = cache / "workdirs" / f"{name}-{digest}{owner}"
        self._sent: dict[str, Any] = {}  # by name: state of a file, or files of a checkpoint, at the address

    def open(self, writes: bool) -> None:
        """Fetch the files at the address into the folder, unless this folder was the last to write to the address.

        A process that writes first puts a new token at the address and in its folder. A folder with the token of the
        address is up to date or ahead: its process may have been killed before all files were sent. A folder with
        another token is outdated. An outdated folder is renamed if not all of its files were sent.
        """
        try:
            there, mine = read_bytes(self.address, _TOKEN), _read(self.folder / _TOKEN)
            ahead = mine is not None and there == mine
            if not ahead:
                self._put_aside()
                self._fetch()
            if writes:
                self._sent = self._whole(self._sizes()) if ahead else self._sent
                token = secrets.token_hex(8).encode()
                self._write(_TOKEN, token)
                (self.folder / _TOKEN).write_bytes(token)
                (self.folder / _ALL_SENT).unlink(missing_ok=True)
                if ahead:
                    self.send()
        except (StorageError, InputError):
            raise
        except Exception as error:  # each store has its own errors
            raise InputError(
                f"{self.address} cannot be opened ({_told(error)}): check that it exists and that you may use it."
            ) from error

    def close(self) -> None:
        """Send the remaining files, and mark the folder as completely sent."""
        self.send()
        (self.folder / _ALL_SENT).touch()

    def _put_aside(self) -> None:
        if self.folder.exists() and not (self.folder / _ALL_SENT).exists():
            aside = self.folder.with_name(f"{self.folder.name}-unsent-{secrets.token_hex(4)}")
            self.folder.rename(aside)
            warnings.warn(
                f"Another run has written to {self.address}; the files that were not sent from here are in {aside}.",
                stacklevel=2,
            )

    def _fetch(self) -> None:
        """Replace the folder by the files and the complete checkpoints at the address."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        sizes = self._sizes()
        self._sent = self._whole(sizes)
        for step, listed in self._sent.items():
            for name in listed:
                self._get(f"{_CHECKPOINTS}/{step}/{name}")
        for name in sizes:
            if not name.startswith((f"{_CHECKPOINTS}/", ".")):
                self._get(name)
                self._sent[name] = _state(self.folder / name)
        # If the address has no token, the empty token never matches, and the folder never counts as ahead.
        (self.folder / _TOKEN).write_bytes(read_bytes(self.address, _TOKEN) or b"")
        (self.folder / _ALL_SENT).touch()

    def send(self) -> None:
        """Send the changes of the folder to the address; write the list of a checkpoint after all of its files."""
        try:
            self._send_checkpoints()
            files = sorted(self._files(), key=lambda name: (self.folder / name).stat().st_mtime_ns)
            for name in files:
                state = _state(self.folder / name)
                if self._sent.get(name) != state:
                    self._put(name)
                    self._sent[name] = state
            for name in [name for name in self._sent if not name.isdecimal() and name not in files]:
                self._remove(name)
        except Exception as error:  # from the store, or for a file that the job has just removed
            raise StorageError(
                f"{self.address} cannot be written ({_told(error)}); all files are kept in {self.folder}: "
                "run the same command again when the address can be written."
            ) from error

    def _send_checkpoints(self) -> None:
        folder = self.folder / _CHECKPOINTS
        # orbax gives the folder of a checkpoint this name when the checkpoint is complete.
        steps = sorted((path.name for path in folder.glob("*") if path.name.isdecimal()), key=int)
        for step in steps:
            listed = {
                path.relative_to(folder / step).as_posix(): path.stat().st_size
                for path in sorted((folder / step).rglob("*"))
                if path.is_file()
            }
            if self._sent.get(step) == listed:
                continue
            for name in listed:
                self._put(f"{_CHECKPOINTS}/{step}/{name}")
            self._write(f"{_CHECKPOINTS}/{step}.json", json.dumps(listed).encode())
            self._sent[step] = listed
        for step in [name for name in self._sent if name.isdecimal() and name not in steps]:
            self._remove(f"{_CHECKPOINTS}/{step}.json")  # first: a checkpoint without this list does not exist
            for name in self._sent.pop(step):
                self._remove(f"{_CHECKPOINTS}/{step}/{name}")

    def _files(self) -> list[str]:
        """Return the files that belong at the address, except checkpoints and files that are being written."""
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        return [name for name in names if not re.search(r"(^|/)\.", name) and not name.startswith(f"{_CHECKPOINTS}/")]

    def _sizes(self) -> dict[str, int]:
        """Return the sizes of the files at the address, by name."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._fs._strip_protocol(self._root).rstrip("/")) + 1
        return {path[start:]: info["size"] for path, info in found.items() if path[start:]}

    def _whole(self, sizes: dict[str, int]) -> dict[str, Any]:
        """Return the complete checkpoints at the address, each with its files."""
        listed = {step: self._listed(step, sizes) for step in _steps_of(sizes)}
        return {step: files for step, files in listed.items() if files is not None}

    def _listed(self, step: str, sizes: dict[str, int]) -> dict[str, int] | None:
        """Return the files of a checkpoint with their sizes, or None if the checkpoint is not complete."""
        try:
            listed: dict[str, int] = dict(json.loads(self._fs.cat_file(f"{self._root}/{_CHECKPOINTS}/{step}.json")))
        except ValueError:
            return None
        whole = all(sizes.get(f"{_CHECKPOINTS}/{step}/{name}") == size for name, size in listed.items())
        return listed if whole else None

    def _get(self, name: str) -> None:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"{name!r} leads out of the workdir")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(f"{self._root}/{name}", str(path))

    def _put(self, name: str) -> None:
        self._in_folder(name, lambda path: self._fs.put_file(str(self.folder / name), path))

    def _write(self, name: str, content: bytes) -> None:
        self._in_folder(name, lambda path: self._fs.pipe_file(path, content))

    def _in_folder(self, name: str, put: Callable[[str], Any]) -> None:
        """Put an object at the address; if the store needs a folder for the object, create the folder."""
        path = f"{self._root}/{name}"
        try:
            put(path)
        except FileNotFoundError:
            parent = path.rpartition("/")[0]
            if self._fs.exists(parent):
                raise  # the local file is missing
            self._fs.makedirs(parent, exist_ok=True)
            put(path)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")
        self._sent.pop(name, None)


def _read(path: pathlib.Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _steps_of(names: dict[str, int]) -> list[str]:
    """Return the steps of the checkpoints whose list is at the address."""
    matches = (re.fullmatch(rf"{_CHECKPOINTS}/(\d+)\.json", name) for name in names)
    return [match[1] for match in matches if match]


def _state(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _store(address: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return (the filesystem of an address, the path in this filesystem)."""
    match = _ADDRESS.fullmatch(os.fspath(address))
    assert match is not None
    try:
        import fsspec

        store, root = fsspec.core.url_to_fs(f"{match[1]}://{match[2].rstrip('/')}")
    except (ImportError, ValueError) as error:  # ValueError: fsspec does not know the scheme
        raise InputError(f"{os.fspath(address)} cannot be opened: {error}; {_INSTALL}.") from error
    return store, root


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
