"""This module measures how a run spends its time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class Clock:
    """`Clock` times the steps between two records, without the first call of a run, which compiles.

    Args:
        first: the step from which the run starts.
        seconds: the totals to which times are added: 'compiling', 'training' and 'input'. 'input' is the part of
            'training' that is spent on waiting for a batch and sending the batch to the devices.
    """

    def __init__(self, seconds: dict[str, float], first: int) -> None:
        self._seconds, self._last, self._steps, self._compiled = seconds, first, 0, False
        self._began = time.perf_counter()

    def waiting_for(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items and count the wait for each item; the wait for the first item belongs to 'compiling'."""
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
        """Count the new steps up to `step` and return their number; wait for the state of the first call."""
        new, self._last = step - self._last, step
        if self._compiled:
            self._steps += new
        else:
            jax.block_until_ready(state)
            self._seconds["compiling"], self._compiled = time.perf_counter() - self._began, True
            self.restart()
        return new

    def restart(self) -> None:
        """Restart the timing after work that was not training."""
        self._steps, self._began = 0, time.perf_counter()

    def seconds_per_step(self) -> float | None:
        """Return the seconds per step since the last restart, or None without a step.

        The metrics of the last step must be known when this method is called, so that the step is complete.
        """
        spent = time.perf_counter() - self._began
        self._seconds["training"] += spent
        return spent / self._steps if self._steps else None
