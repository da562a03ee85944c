"""This module reports the progress of a task: a bar on a terminal, otherwise one line a minute."""

from __future__ import annotations

import sys
import time

import tqdm

TELL_EVERY_S = 60.0


class Progress:
    """`Progress` shows a bar on a terminal, otherwise one line a minute, with the time left.

    Args:
        what: plural name of the examples, such as 'samples'.
        n: number of examples in total.
        before: number of examples that were done before.
        mine: number of examples that this process does.
        quiet: whether nothing is printed, as in all processes except one.
    """

    def __init__(self, what: str, n: int, before: int, mine: int, quiet: bool = False) -> None:
        self._what, self._n, self._before, self._mine, self._done = what, n, before, mine, 0
        self._began = self._told = time.perf_counter()
        self._lines = not quiet and not sys.stderr.isatty()
        # The bar counts the examples of all processes, and assumes that all processes are equally fast.
        bar = {"total": n, "initial": before, "unit": what.rstrip("s")}
        self._bar = tqdm.tqdm(**bar, disable=quiet or self._lines)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, count: int) -> None:
        """Add the number of examples that this process has done."""
        self._done += count
        all_done = self._before + round((self._n - self._before) * self._done / self._mine)
        self._bar.update(all_done - self._bar.n)
        now = time.perf_counter()
        if self._lines and now - self._told >= TELL_EVERY_S:
            left = (now - self._began) * (self._mine - self._done) / self._done
            print(f"{all_done:,} of {self._n:,} {self._what}, about {in_words(left)} left", flush=True)
            self._told = now


def in_words(seconds: float) -> str:
    """Return a time as text in the two largest units of hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
