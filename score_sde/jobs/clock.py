"""Where a run's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class Clock:
    """Times the steps between two records; the first call of a run, which compiles, is not among them.

    Args:
        first: the step that the run starts from.
        seconds: where times are added up: 'compiling', 'training', and of the latter 'input', spent on
            waiting for a batch and sending it off.
    """

    def __init__(self, seconds: dict[str, float], first: int) -> None:
        self._seconds, self._last, self._steps, self._compiled = seconds, first, 0, False
        self._began = time.perf_counter()

    def waiting_for(self, items: Iterable[T]) -> Iterator[T]:
        """The items, the wait for each counted; the first one's belongs to the compiling."""
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            if self._compiled:
                self._seconds["input"] += time.perf_counter() - began
            yield item

    def made(self, step: int, state: Any) -> int:
        """Count the steps up to this one; returns how many they are. The first call is waited for."""
        new, self._last = step - self._last, step
        if self._compiled:
            self._steps += new
        else:
            jax.block_until_ready(state)
            self._seconds["compiling"], self._compiled = time.perf_counter() - self._began, True
            self.restart()
        return new

    def restart(self) -> None:
        """Begin anew, after work that was not training."""
        self._steps, self._began = 0, time.perf_counter()

    def seconds_per_step(self) -> float | None:
        """Since the last restart; None where there was no step. The metrics of the last one must be known."""
        spent = time.perf_counter() - self._began
        self._seconds["training"] += spent
        return spent / self._steps if self._steps else None
