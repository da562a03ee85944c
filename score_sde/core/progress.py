"""How far a task is: a bar on a terminal, else a line a minute, with the time left."""

from __future__ import annotations

import sys
import time

import tqdm

TELL_EVERY_S = 60.0


class Progress:
    """A bar on a terminal, else a line a minute, with the time left.

    Args:
        what: the examples' name.
        n: how many there are.
        before: how many of them were done already.
        mine: how many this process is to do.
        quiet: whether nothing is said, as in all processes but one.
    """

    def __init__(self, what: str, n: int, before: int, mine: int, quiet: bool = False) -> None:
        self._what, self._n, self._before, self._mine, self._done = what, n, before, mine, 0
        self._began = self._told = time.perf_counter()
        self._lines = not quiet and not sys.stderr.isatty()
        # The others are taken to go as fast: the bar counts for all.
        bar = {"total": n, "initial": before, "unit": what.rstrip("s")}
        self._bar = tqdm.tqdm(**bar, disable=quiet or self._lines)

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
        if self._lines and now - self._told >= TELL_EVERY_S:
            left = (now - self._began) * (self._mine - self._done) / self._done
            print(f"{all_done:,} of {self._n:,} {self._what}, about {in_words(left)} left", flush=True)
            self._told = now


def in_words(seconds: float) -> str:
    """A time in the two largest of hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
