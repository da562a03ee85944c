"""This module runs a computation over numbered examples that the processes share.

Each example is computed exactly once, however often the job is stopped.
"""

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
    """`Timing` holds the seconds that this process spent.

    Attributes:
        first: seconds of the first batch, which includes compilation; 0 if the process had no batch.
        others: total seconds of all other batches.
    """

    first: float
    others: float


def run(parts: Parts, n: int, batch_size: int, compute: Callable[[np.ndarray], Columns], what: str) -> Timing:
    """Compute the missing results of the examples 0 .. n - 1 and write them to `parts`; every process calls this.

    Existing results are not computed again. For the same n and batch size, a batch always holds the same examples,
    whichever process computes the batch. A job that was stopped therefore ends with the same numbers.

    Args:
        parts: the existing results; new results are added.
        n: the number of examples.
        batch_size: examples per batch of one process.
        compute: function from consecutive example numbers to their results, computed on this process's devices.
        what: the name of the examples in the progress display.

    Raises:
        Stopped: after SIGTERM; all finished results are kept.
        InputError: if another run is computing this job.
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
                # All processes stop after the same round; without the barrier one process could be far from that round.
                processes.barrier(f"round {turn}")
                if stop.after_this_round():
                    raise Stopped(
                        f"stopped by SIGTERM: {parts.folder} keeps what is done; run the same command again to resume"
                    )
        processes.barrier(f"job {parts.folder.name}")
    return Timing(sum(seconds[:1]), sum(seconds[1:]))


def batches(done: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return the numbers that are not done in batches of consecutive numbers; each gap is split from its beginning."""
    numbers = np.flatnonzero(~done)
    gaps = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [gap[low : low + batch_size] for gap in gaps for low in range(0, len(gap), batch_size)]


def equal_batches(n: int, most: int) -> int:
    """Return the smallest batch size, at most `most`, that covers n examples in the fewest batches per process."""
    if n < 1:
        raise InputError(f"The number of examples is {n}; expected at least 1.")
    count = processes.count()
    rounds = math.ceil(n / (most * count))
    return math.ceil(n / (rounds * count))
