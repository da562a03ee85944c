"""This module says how many steps of a walk a strength keeps."""

from __future__ import annotations

import math

import numpy as np

from score_sde.core.checks import is_number, shown
from score_sde.core.errors import InputError

_DIGITS = 9  # after which strength x steps is rounded, so that 0.56 x 50 is 28 and not 28.000000000000004


def kept_steps(strength: float, steps: int) -> int:
    """Return the number of steps that a walk of this strength takes: strength x steps, with halves rounded up.

    The product is first rounded to nine digits, because 0.58 x 50 is 28.999999999999996 in floating point numbers.
    """
    return math.floor(round(strength * steps, _DIGITS) + 0.5)


def kept(grid: np.ndarray, strength: float) -> np.ndarray:
    """Return the last part of a time grid, with `kept_steps` steps; its first time is the level where a walk starts.

    Strength 0 keeps no step, and strength 1 keeps all steps. The strength is a share of the steps of the grid, and not
    of the noise.
    """
    steps = len(grid) - 1
    return grid[steps - kept_steps(strength, steps) :]


def check_strength(strength: float, name: str) -> None:
    """Raise InputError for a strength outside [0, 1]."""
    if not is_number(strength) or not 0 <= strength <= 1:
        raise InputError(
            f"strength of {name} is {shown(strength)}; expected a number from 0, which returns the picture, to 1, "
            "which forgets it."
        )


__all__ = ["check_strength", "kept", "kept_steps"]
