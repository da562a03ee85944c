"""Many pictures: read in processes that hold no lock of each other's, or in this one where they are few."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from score_sde.core.machine import usable_cores
from score_sde.readers.pictures import pixels as pixels_
from score_sde.readers.pictures.image import Fit, Header, decode, fit_array, header
from score_sde.readers.pictures.pixels import Unreadable

Example = bytes | np.ndarray
# An error in the place of an example says why there is none; it is handed on.
ReadMany = Callable[[Iterable[Example | Exception], Fit | None], Iterator[Any]]

_FEW = 512  # pictures that are read sooner than processes start
_GROUP, _GROUP_BYTES = 64, 2**22  # of pictures that are sent at once
_PIPE = 2**20  # bytes that a pipe holds
_SCRIPT = pathlib.Path(pixels_.__file__).resolve()


@contextlib.contextmanager
def reading(n: int, processes: int | None = None) -> Iterator[ReadMany]:
    """A function of examples and a fit that yields the pixels of each, or its header where the fit is None.

    In the place of an example that cannot be read the function yields Unreadable. Several threads may call it.

    Args:
        n: how many examples there will be.
        processes: how many processes read; None for one on each usable core, or for none where examples are few.
    """
    if processes is None:
        processes = usable_cores() if n >= _FEW and sys.executable else 0
    workers = Workers(processes) if processes > 0 else None
    try:
        yield here if workers is None else workers.read
    finally:
        if workers is not None:
            workers.close()


def here(examples: Iterable[Example | Exception], fit: Fit | None) -> Iterator[Any]:
    """Read examples in this process; see `reading`."""
    for example in examples:
        yield example if isinstance(example, Exception) else _one(example, fit)


def _one(example: Example, fit: Fit | None) -> Any:
    try:
        if fit is None:
            return header(example)
        return decode(example, fit) if isinstance(example, bytes) else fit_array(example, fit)
    except Unreadable as error:
        return error


class _Ended(Exception):
    """A process that reads pictures has ended."""


class _Worker:
    """A process that runs pixels.py."""

    def __init__(self) -> None:
        # The modules that this process would import, without what its start-up files do.
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-S", "-P", str(_SCRIPT)]
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, **pipes)
        if sys.platform == "linux":
            import fcntl

            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # the system's limit for one user is reached
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)

    def ask(self, pictures: list[bytes], fit: Fit | None) -> list[Any]:
        """What pixels.py answers: for each picture its header or pixels, or Unreadable."""
        asked, answer = self._process.stdin, self._process.stdout
        assert asked is not None and answer is not None
        settings = None if fit is None else dataclasses.asdict(fit)
        request = {"fit": settings, "sizes": [len(picture) for picture in pictures]}
        try:
            asked.write(b"".join([json.dumps(request).encode(), b"\n", *pictures]))
            asked.flush()
            line = answer.readline()
            results = json.loads(line) if line else []
            count = 0 if fit is None else sum(is_read for is_read, _ in results)
            size = 0 if fit is None else fit.height * fit.width * fit.channels
            pixels = answer.read(count * size)
        except OSError as error:
            raise _Ended from error
        if not line or len(pixels) != count * size:
            raise _Ended
        rows = iter(() if fit is None else np.frombuffer(pixels, np.uint8).reshape(count, *fit.shape))
        return [
            (Header(*told) if fit is None else next(rows)) if is_read else Unreadable(told) for is_read, told in results
        ]

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()


class Workers:
    """Processes that read pictures.

    A decoder that a damaged picture ends takes its process along and nothing else: the picture is found, and called
    unreadable.

    Args:
        count: the number of processes.
    """

    def __init__(self, count: int) -> None:
        self._all: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(count):
            self._add()

    def read(self, examples: Iterable[Example | Exception], fit: Fit | None) -> Iterator[Any]:
        """See `reading`."""
        group: list[Example | Exception] = []
        size = 0
        for example in examples:
            group.append(example)
            size += (len(example) if isinstance(example, bytes) else 0) + (
                0 if fit is None else int(np.prod(fit.shape))
            )
            if len(group) == _GROUP or size >= _GROUP_BYTES:
                yield from self._group(group, fit)
                group, size = [], 0
        yield from self._group(group, fit)

    def close(self) -> None:
        """End the processes."""
        for worker in self._all:
            worker.end()

    def _add(self) -> None:
        worker = _Worker()
        self._all.append(worker)
        self._idle.put(worker)

    def _group(self, group: list[Example | Exception], fit: Fit | None) -> list[Any]:
        results = iter(self._ask([example for example in group if isinstance(example, bytes)], fit))
        return [next(results) if isinstance(example, bytes) else next(here([example], fit)) for example in group]

    def _ask(self, pictures: list[bytes], fit: Fit | None) -> list[Any]:
        if not pictures:
            return []
        worker = self._idle.get()
        try:
            results = worker.ask(pictures, fit)
        except _Ended:
            worker.end()
            self._all.remove(worker)
            self._add()
            if len(pictures) == 1:
                return [Unreadable("ends the process that decodes it")]
            middle = len(pictures) // 2
            return [*self._ask(pictures[:middle], fit), *self._ask(pictures[middle:], fit)]
        self._idle.put(worker)
        return results
