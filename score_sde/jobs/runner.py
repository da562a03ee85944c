"""The job room: numbered examples, shared among the processes, each done exactly once however often it is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np

from score_sde.core import files
from score_sde.core.errors import InputError, Stopped
from score_sde.core.progress import Progress
from score_sde.jobs.parts import Columns, Parts
from score_sde.parallel import processes


@dataclasses.dataclass(frozen=True)
class Timing:
    """What this process spent.

    Attributes:
        first: seconds of its first batch, which compiles; 0 where it had none.
        others: of all others together.
    """

    first: float
    others: float


def run(parts: Parts, n: int, batch_size: int, compute: Callable[[np.ndarray], Columns], what: str) -> Timing:
    """Have the results of the examples 0 .. n - 1 in `parts`, all of them; every process calls this.

    What is there already is not done again. A batch is always of the same examples for the same n and
    batch size, whoever computes it, so that a job that was stopped ends with the same numbers.

    Args:
        parts: where results are and go.
        n: the number of examples.
        batch_size: examples per batch of one process.
        compute: from the numbers of examples, consecutive, to their results, on this process's devices.
        what: the examples' name, for the progress.

    Raises:
        Stopped: after SIGTERM, with all done so far kept.
        InputError: where another run has this job.
    """
    first = processes.is_first()
    with processes.stopping() as stop, files.exclusive(parts.folder) if first else contextlib.nullcontext():
        done = processes.from_first((parts.done(n) if first else np.zeros(n, bool)).astype(np.uint8))
        todo = batches(done > 0, batch_size)
        mine = todo[processes.index() :: processes.count()]
        seconds: list[float] = []
        with Progress(what, n, int(done.sum()), sum(map(len, mine)), quiet=not first) as progress:
            for turn in range(math.ceil(len(todo) / processes.count())):
                if turn < len(mine):
                    began = time.perf_counter()
                    columns = compute(mine[turn])
                    seconds.append(time.perf_counter() - began)
                    parts.write(int(mine[turn][0]), columns, seconds[-1])
                    progress.add(len(mine[turn]))
                # Together, or a stop that all are to make after the same round might be far off for one of them.
                processes.barrier(f"round {turn}")
                if stop.after_this_round():
                    raise Stopped(
                        f"stopped by SIGTERM: {parts.folder} keeps what is done, and the same command goes on"
                    )
        processes.barrier(f"job {parts.folder.name}")
    return Timing(sum(seconds[:1]), sum(seconds[1:]))


def batches(done: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The numbers that are not done, in batches of consecutive ones, each gap cut from its beginning."""
    numbers = np.flatnonzero(~done)
    gaps = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [gap[low : low + batch_size] for gap in gaps for low in range(0, len(gap), batch_size)]


def equal_batches(n: int, most: int) -> int:
    """A batch size of at most `most`, with as little left over as can be, in as many batches for each process."""
    if n < 1:
        raise InputError("The split is empty; expected at least one example.")
    count = processes.count()
    rounds = math.ceil(n / (most * count))
    return math.ceil(n / (rounds * count))
