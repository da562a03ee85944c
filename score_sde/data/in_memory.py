"""A data set of arrays that somebody has at hand, as `score_sde.fit` takes them."""

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
    """Arrays in memory: a config keeps what they look like, and not the arrays.

    Args:
        shape: of an example's values.
        maximum: the largest value of whole numbers; None for real numbers.
        mean, std: of real numbers: the model works on (values - mean) / std.
        classes: the number of classes, where each example has the condition `label`.
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
        if others is not None and not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise InputError(f"others of InMemory is {shown(others)}; expected a dictionary of (shape, dtype).")
        further = {name: Condition(shape=tuple(one), dtype=dtype) for name, (one, dtype) in dict(others or {}).items()}
        self.conditions = Conditions(further | ({} if classes is None else {"label": Label(classes)}))
        self._splits: dict[str, Arrays] = {}

    def holding(self, **splits: Arrays) -> InMemory:
        """This data set, with the arrays of each split."""
        self._splits = splits
        return self

    def source(self, split: str) -> Source:
        if split not in self._splits:
            raise InputError(
                f"The split {split!r} was an array in memory, which a workdir does not keep: give the arrays to "
                "score_sde.fit again, or train on a data set of your own (docs/extending.md)."
            )
        return self._splits[split]


def arguments_of(values: np.ndarray, cond: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `InMemory` that fit these arrays.

    Whole numbers are quantised up to 255, or to their largest where that is more; real numbers are standardised where
    their size is far from 1.

    Args:
        values: (n, *shape).
        cond: conditions by name, each with leading axis n; whole numbers under 'label' are classes.

    Raises:
        InputError: for arrays that are no examples.
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
    """Mean and standard deviation to be taken out, where the values are far from the size that a model works on."""
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
