"""How far a job is: a bar on a terminal, else a line a minute, from the first process alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm

from score_sde.parallel import processes

_TELL_EVERY_S = 60.0


class Progress:
    """A bar on a terminal, else a line a minute, with the time left; from the first process alone.

    Args:
        what: the examples' name.
        n: how many there are.
        before: how many of them were done already.
        mine: how many this process is to do.
    """

    def __init__(self, what: str, n: int, before: int, mine: int) -> None:
        self._what, self._n, self._before, self._mine, self._done = what, n, before, mine, 0
        self._began = self._told = time.perf_counter()
        self._lines = processes.is_first() and not sys.stderr.isatty()
        # The others are taken to go as fast: the bar counts for all.
        bar = {"total": n, "initial": before, "unit": what.rstrip("s")}
        self._bar = tqdm.tqdm(**bar, disable=self._lines or not processes.is_first())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, count: int) -> None:
        """Count what this process has done."""
        self._done += count
        all_done = self._before + round((self._n - self._before) * self._done / self._mine)
        self._bar.update(all_done - self._bar.n)
        now = time.perf_counter()
        if self._lines and now - self._told >= _TELL_EVERY_S:
            left = (now - self._began) * (self._mine - self._done) / self._done
            print(f"{all_done:,} of {self._n:,} {self._what}, about {in_words(left)} left", flush=True)
            self._told = now


def in_words(seconds: float) -> str:
    """A time in the two largest of hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class StepProgress:
    """How far training is.

    Args:
        last: the step that it goes to.
        first: the step that it goes on from.
        quiet: whether nothing is said.
    """

    def __init__(self, last: int, first: int, quiet: bool = False) -> None:
        self._last, self._first, self._step = last, first, first
        self._began = self._told = time.perf_counter()
        quiet = quiet or not processes.is_first()
        self._lines = not quiet and not sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=last, initial=first, unit="step", disable=quiet or self._lines)

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, count: int, metrics: Mapping[str, Any]) -> None:
        """Count steps; `metrics` are those of the last call, looked at once a minute."""
        self._step += count
        self._bar.update(count)
        now = time.perf_counter()
        if self._lines and now - self._told >= _TELL_EVERY_S and self._step < self._last:
            loss = float(np.ravel(np.asarray(metrics["loss"]))[-1])
            left = (now - self._began) * (self._last - self._step) / (self._step - self._first)
            print(f"step {self._step:,} of {self._last:,}: loss {loss:.4f}, about {in_words(left)} left", flush=True)
            self._told = now

    def tell(self, **values: float | None) -> None:
        """Show numbers beside the bar."""
        self._bar.set_postfix(values, refresh=False)
