"""This module makes the time grids of chains: levels by their numbers, and level 0, which is data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.sampling.time_grid.named import check_steps
from score_sde.sde import SDE


def linspace(sde: SDE, n: int) -> np.ndarray:
    """Return n levels of a chain, evenly spaced from the last to the first, and data: shape (n + 1,).

    The model is evaluated at the n levels round(1 + (N - 1) i / (n - 1)) (Nichol & Dhariwal 2021, arXiv:2102.09672),
    and the last step leads to level 0, which is data. A sampler takes each next level from the grid.
    """
    levels = _levels_of(sde, n, "linspace")
    return _to_data(sde, np.round(np.linspace(1, levels, n)) if n > 1 else np.asarray([levels]))


def trailing(sde: SDE, n: int) -> np.ndarray:
    """Return n levels of a chain, round(N - N i / n) for i = 0 .. n - 1, and data: shape (n + 1,).

    The last level N is one of them (Lin et al. 2023, arXiv:2305.08891, Table 2).
    """
    levels = _levels_of(sde, n, "trailing")
    return _to_data(sde, np.round(levels - levels * np.arange(n) / n))


def leading(sde: SDE, n: int) -> np.ndarray:
    """Return n levels of a chain, 1 + i floor(N / n) for i = 0 .. n - 1, the highest moved to N, and data: (n + 1,).

    The published spacing (Lin et al. 2023, arXiv:2305.08891, Table 2) never reaches level N, but starts from noise of
    level N. Here the highest level is N, so that the noise at the start is that of the prior.
    """
    levels = _levels_of(sde, n, "leading")
    return _to_data(sde, np.append(1 + np.arange(n - 1) * (levels // n), levels))


def spaced(sde: SDE, counts: str | Sequence[int]) -> np.ndarray:
    """Return levels of a chain by counts per section, and data (Nichol & Dhariwal 2021, published code).

    The levels 1 .. N are divided into equal sections, from the least noise to the most; the first sections have one
    level more if N does not divide. In each section the given number of levels is evenly spaced, with both ends.

    Args:
        sde: the chain.
        counts: numbers of levels, such as (10, 15, 20) or '10,15,20'.
    """
    numbers = _counts(counts)
    levels = _levels_of(sde, sum(numbers), "spaced")
    chosen: list[float] = []
    first = 1
    for i, count in enumerate(numbers):
        size = levels // len(numbers) + (i < levels % len(numbers))
        if count > size:
            raise InputError(
                f"counts asks for {count} levels of section {i}, which has {size} of the {levels} levels of "
                f"{type(sde).__name__}: use smaller counts."
            )
        chosen.extend(np.round(np.linspace(first, first + size - 1, count)) if count > 1 else [first])
        first += size
    if chosen[-1] != levels:
        chosen[-1] = levels  # a section of one level is the highest one, where the prior is
    return _to_data(sde, np.asarray(chosen))


def _levels_of(sde: SDE, n: int, name: str) -> int:
    check_steps(n)
    levels = sde.levels
    if levels is None:
        raise InputError(f"{type(sde).__name__} has no levels for time_grid.{name}; expected a chain, or 'uniform'.")
    if n > levels:
        raise InputError(
            f"{name} was asked for {n} steps, and {type(sde).__name__} has {levels} levels; expected at most {levels}."
        )
    return levels


def _counts(counts: Any) -> list[int]:
    parts = counts.split(",") if isinstance(counts, str) else counts
    try:
        numbers = [int(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise InputError(f"counts is {counts!r}; expected whole numbers, such as '10,15,20'.") from error
    if not numbers or min(numbers) < 1:
        raise InputError(f"counts is {counts!r}; expected whole numbers of at least 1, such as '10,15,20'.")
    return numbers


def _to_data(sde: SDE, levels: np.ndarray) -> np.ndarray:
    """Return the times of levels in descending order, and of level 0."""
    assert sde.levels is not None
    return np.append(np.sort(levels)[::-1], 0) / sde.levels
