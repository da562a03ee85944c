"""This module defines `Estimate`, a number with its standard error, and the checks of features."""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike

from score_sde.core.errors import InputError


class Estimate(float):
    """An `Estimate` is a float with a standard error.

    Attributes:
        stderr: the standard error of the number; NaN if it is unknown.
    """

    stderr: float

    def __new__(cls, value: float, stderr: float = float("nan")) -> Estimate:
        made = super().__new__(cls, value)
        made.stderr = float(stderr)
        return made

    def __reduce__(self) -> tuple[type[Estimate], tuple[float, float]]:
        return Estimate, (float(self), self.stderr)

    @property
    def value(self) -> float:
        """Return the number as a plain float."""
        return float(self)

    def __repr__(self) -> str:
        return f"{float(self):.6g} +- {self.stderr:.2g}"


def as_features(features: ArrayLike, name: str, least: int = 2) -> np.ndarray:
    """Return features as a float64 array (n, d).

    Raises:
        InputError: if the features have another number of axes, fewer than `least` rows, or values that are not finite.
    """
    array = np.asarray(features)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiub":
        raise InputError(
            f"{name} have shape {array.shape} and dtype {array.dtype}; expected numbers of shape (examples, features)."
        )
    if len(array) < least:
        raise InputError(f"{name} have {len(array)} rows; expected at least {least} examples.")
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{name} have a value that is not finite in row {row}; expected finite features.")
    return array


def as_pair(real: ArrayLike, fake: ArrayLike, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of two sets of examples; raise InputError if their dimensions differ."""
    first, second = as_features(real, "real features", least), as_features(fake, "fake features", least)
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"real features have {first.shape[1]} dimensions and fake features {second.shape[1]}; expected features of "
            "one network."
        )
    return first, second
