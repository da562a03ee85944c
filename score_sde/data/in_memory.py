"""This module defines the data set of arrays in memory, which `score_sde.fit` uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.core.arrays import as_array
from score_sde.core.checks import as_shape, shown
from score_sde.core.conditions import Condition, Conditions, Label
from score_sde.core.errors import InputError
from score_sde.data.base import Arrays, Dataset, Source
from score_sde.data.codec import Codec, ContinuousCodec, QuantizedCodec


class InMemory(Dataset):
    """`InMemory` holds arrays in memory; a config stores the description of the arrays, not the arrays.

    Args:
        shape: shape of an example's values.
        maximum: largest value of whole numbers; None for real numbers.
        mean, std: mean and standard deviation of real numbers; the model's scale is (values - mean) / std.
        classes: number of classes if each example has the condition `label`; otherwise None.
        others: {name: (shape, dtype)} of further conditions.
        dir: not used.
    """

    def __init__(
        self,
        shape: Sequence[int] = (),
        maximum: int | None = None,
        mean: Any = 0.0,
        std: Any = 1.0,
        classes: int | None = None,
        others: Mapping[str, Any] | None = None,
        dir: str | None = None,
    ) -> None:
        self.codec: Codec = (
            ContinuousCodec(
                as_shape("shape of InMemory", shape),
                as_array(mean, "mean of InMemory"),
                as_array(std, "std of InMemory"),
            )
            if maximum is None
            else QuantizedCodec(as_shape("shape of InMemory", shape), maximum)
        )
        pairs = dict(others).values() if isinstance(others, Mapping) else [None]
        if others is not None and not all(
            isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], list | tuple) for pair in pairs
        ):
            raise InputError(f"others of InMemory is {shown(others)}; expected a dictionary of (shape, dtype).")
        further = {name: Condition(shape=tuple(one), dtype=dtype) for name, (one, dtype) in dict(others or {}).items()}
        self.conditions = Conditions(further | ({} if classes is None else {"label": Label(classes)}))
        self._splits: dict[str, Arrays] = {}

    def holding(self, **splits: Arrays) -> InMemory:
        """Set the arrays of each split, and return this data set."""
        self._splits = splits
        return self

    def source(self, split: str) -> Source:
        if split not in self._splits:
            raise InputError(
                f"The split {split!r} was an array in memory, and a workdir does not store arrays: pass the arrays to "
                "score_sde.fit again, or define a data set of your own (docs/extending.md)."
            )
        return self._splits[split]


def arguments_of(values: np.ndarray, cond: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `InMemory` for these arrays.

    Whole numbers are quantised with maximum 255, or with their largest value if it is above 255. Real numbers are
    standardised if the standard deviation is outside [0.1, 10] or |mean| is above 2 standard deviations.

    Args:
        values: array of shape (n, *shape).
        cond: conditions by name, each with leading axis n; whole numbers in 'label' are classes.

    Raises:
        InputError: if the arrays are not valid examples.
    """
    if values.ndim < 2 or not values.size:
        raise InputError(f"data have shape {values.shape}; expected (n, *shape), with one example or more.")
    if values.dtype.kind not in "biuf":
        raise InputError(f"data have dtype {values.dtype}; expected numbers.")
    found: dict[str, Any] = {"shape": tuple(values.shape[1:])}
    if values.dtype.kind in "biu":
        if values.min() < 0:
            raise InputError(f"data contain {values.min()}; expected whole numbers from 0, or floating point numbers.")
        found["maximum"] = max(255, int(values.max()))
    else:
        found |= _size(values)
    others = {}
    for name, array in cond.items():
        if isinstance(array, Mapping) or np.shape(array)[:1] != values.shape[:1]:
            raise InputError(
                f"The condition {name!r} has shape {np.shape(array)}; expected one entry for each of the {len(values)} "
                "examples."
            )
        array = np.asarray(array)
        if name == "label":
            found["classes"] = _classes(array)
        elif array.dtype.kind in "biuf":
            others[name] = (tuple(array.shape[1:]), "float32" if array.dtype.kind == "f" else "int32")
        else:
            raise InputError(f"The condition {name!r} has dtype {array.dtype}; expected numbers.")
    return found | ({"others": others} if others else {})


def _size(values: np.ndarray) -> dict[str, Any]:
    """Return mean and standard deviation if the values need standardisation, otherwise an empty dictionary."""
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
        raise InputError(f"Example {bad} of the data contains NaN or infinity; expected finite numbers.")
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if std == 0:
        raise InputError(f"data are {mean:g} throughout; expected values that differ.")
    return {} if 0.1 <= std <= 10 and abs(mean) <= 2 * std else {"mean": mean, "std": std}


def _classes(labels: np.ndarray) -> int:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        shown = labels.ravel()[:3].tolist()
        raise InputError(
            f"The labels are {labels.dtype} of shape {labels.shape}, such as {shown}; expected whole numbers from 0, "
            "one for each example: np.unique(labels, return_inverse=True)[1] makes them."
        )
    return int(labels.max()) + 1
