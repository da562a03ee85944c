"""This module shows the progress of training.

The first process shows a bar on a terminal, otherwise one line per minute. Other processes show nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm

from score_sde.core.progress import TELL_EVERY_S, in_words
from score_sde.parallel import processes


class StepProgress:
    """`StepProgress` shows the progress of training.

    Args:
        last: the last step of training.
        first: the step from which training starts or resumes.
        quiet: whether nothing is shown.
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
        """Count steps; `metrics` holds the metrics of the last call and is read at most once per minute."""
        self._step += count
        self._bar.update(count)
        now = time.perf_counter()
        if self._lines and now - self._told >= TELL_EVERY_S and self._step < self._last:
            loss = float(np.ravel(np.asarray(metrics["loss"]))[-1])
            left = (now - self._began) * (self._last - self._step) / (self._step - self._first)
            print(f"step {self._step:,} of {self._last:,}: loss {loss:.4f}, about {in_words(left)} left", flush=True)
            self._told = now

    def tell(self, **values: float | None) -> None:
        """Show numbers beside the bar."""
        self._bar.set_postfix(values, refresh=False)
