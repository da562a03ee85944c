"""This module reads many pictures in processes that share no lock, and few pictures in the current process."""

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
# An exception in place of an example gives the reason why the example is missing; the function yields it unchanged.
ReadMany = Callable[[Iterable[Example | Exception], Fit | None], Iterator[Any]]

_FEW = 512  # reading fewer pictures takes less time than starting processes
_GROUP, _GROUP_BYTES = 64, 2**22  # the most pictures and bytes of one request
_PIPE = 2**20  # capacity of a pipe in bytes
_SCRIPT = pathlib.Path(pixels_.__file__).resolve()


@contextlib.contextmanager
def reading(n: int, processes: int | None = None) -> Iterator[ReadMany]:
    """Yield a function of examples and a fit, which yields each example's pixels, or its header if the fit is None.

    The function yields Unreadable for an example that cannot be read. Several threads may call the function.

    Args:
        n: number of examples that will be read.
        processes: number of processes that read; None for one per usable core, or for no process if examples are few.
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
    """Yield the result of each example, read in the current process; see `reading`."""
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
    """`_Ended` is raised if a process that reads pictures has ended."""


class _Worker:
    """A `_Worker` runs pixels.py in a process."""

    def __init__(self) -> None:
        # The new process imports the same modules as the current process, but runs no start-up files of Python (-S).
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-S", "-P", str(_SCRIPT)]
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, **pipes)
        if sys.platform == "linux":
            import fcntl

            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # fails at the system's limit for one user
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)

    def ask(self, pictures: list[bytes], fit: Fit | None) -> list[Any]:
        """Return the answer of pixels.py: for each picture the header or the pixels, or Unreadable."""
        asked, answer = self._process.stdin, self._process.stdout
        assert asked is not None and answer is not None
        settings = None if fit is None else dataclasses.asdict(fit)
        request = {"fit": settings, "sizes": [len(picture) for picture in pictures]}
        try:
            asked.write(b"".join([json.dumps(request).encode(), b"\n", *pictures]))
            asked.flush()
            line = answer.readline()
            results = json.loads(line)
            count = 0 if fit is None else sum(is_read for is_read, _ in results)
            size = 0 if fit is None else fit.height * fit.width * fit.channels
            pixels = answer.read(count * size)
        except (OSError, ValueError) as error:  # a closed pipe, or a line that the process did not complete
            raise _Ended from error
        if len(results) != len(pictures) or len(pixels) != count * size:
            raise _Ended
        rows = iter(() if fit is None else np.frombuffer(pixels, np.uint8).reshape(count, *fit.shape))
        return [
            (Header(*told) if fit is None else next(rows)) if is_read else Unreadable(told) for is_read, told in results
        ]

    def end(self) -> None:
        """End the process, even if it is busy."""
        self._process.kill()
        self._process.communicate()


class Workers:
    """`Workers` holds processes that read pictures.

    If a damaged picture makes the decoder crash, only the process of the decoder ends. This picture is then found and
    reported as Unreadable.

    Args:
        count: number of processes.
    """

    def __init__(self, count: int) -> None:
        self._all: list[_Worker] = []
        self._closed = False
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(count):
            self._add()

    def read(self, examples: Iterable[Example | Exception], fit: Fit | None) -> Iterator[Any]:
        """Yield the result of each example; see `reading`."""
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
        """End the processes; a call of `read` that is under way starts no new one."""
        self._closed = True
        for worker in list(self._all):
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
            if self._closed:
                self._idle.put(worker)  # for another thread that waits
                return [Unreadable("was not read, as reading was stopped")] * len(pictures)
            self._all.remove(worker)
            self._add()
            if len(pictures) == 1:
                return [Unreadable("crashes the process that decodes it")]
            middle = len(pictures) // 2
            return [*self._ask(pictures[:middle], fit), *self._ask(pictures[middle:], fit)]
        self._idle.put(worker)
        return results
