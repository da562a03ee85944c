"""This module derives the arguments of `Files` that are 'auto' from a collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from score_sde.core.checks import AUTO
from score_sde.core.errors import InputError
from score_sde.data.declared import Declared, as_arrays
from score_sde.data.parting import alike, row_digest, test_part
from score_sde.data.survey import Survey
from score_sde.readers.pictures import Collection

_MOST_HELD_OUT, _SHARE = 1000, 0.1
_MOST_LEVELS = 2**16 - 1  # the limit of QuantizedCodec
_PER_DIMENSION = 64  # length of a vector up to which each of its numbers is standardised separately


def is_auto(value: Any) -> bool:
    """Return whether an argument is 'auto', so that its value comes from the data."""
    return isinstance(value, str) and value == AUTO


def is_pictures(collection: Collection) -> bool:
    """Return whether examples are encoded pictures, or arrays of bytes in the shape of pictures."""
    values = collection.values
    return values is None or (values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] <= 4)


def chosen(
    collection: Collection, declared: Declared, given: Mapping[str, Any], survey: Callable[[], Survey]
) -> dict[str, Any]:
    """Return the arguments of `Files` with a value from the data in place of each 'auto'.

    Args:
        collection: the examples.
        declared: conditions of the examples.
        given: arguments of `Files`.
        survey: function that surveys the pictures; called only if size or channels are 'auto'.

    Raises:
        InputError: if the data cannot be used for training.
    """
    if len(collection) < 2:
        raise InputError(f"{collection.where} has one example; expected two or more, because a part is held out.")
    _check_parts(collection)
    found: dict[str, Any] = dict(classes=declared.classes, text=declared.text, others=dict(declared.others))
    found["held_out"] = min(_SHARE, _MOST_HELD_OUT / len(collection))
    merged = dict(given) | {name: value for name, value in found.items() if is_auto(given[name])}
    if is_pictures(collection):
        found = dict(shape=None, maximum=255)
        if is_auto(given["size"]) or is_auto(given["channels"]):
            found |= dict(size=survey().size(), channels=survey().channels())
    else:
        values = collection.values
        assert values is not None
        found = dict(size=None, channels=None, shape=tuple(values.shape[1:]))
        if values.dtype.kind in "iu":
            found["maximum"] = _largest(collection, values)
        else:
            found["maximum"] = None
            if (given["mean"], given["std"]) == (0.0, 1.0):
                own = Declared(merged["classes"], merged["text"], merged["others"])
                merged |= _moments(collection, values, own, merged["held_out"])
    return merged | {name: value for name, value in found.items() if is_auto(given[name])}


def _largest(collection: Collection, values: np.ndarray) -> int:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MOST_LEVELS:
        raise InputError(
            f"{collection.where} has values from {low} to {high}; expected whole numbers from 0 to {_MOST_LEVELS}, or "
            "real numbers."
        )
    return max(255, high)


def _check_parts(collection: Collection) -> None:
    splits, labels = collection.splits, collection.columns.get("label")
    if splits is None:
        return
    for part in ("train", "test"):
        mine = [number for number, split in enumerate(splits) if split == part]
        if not mine:
            raise InputError(
                f"{collection.where} has no example in its split {part!r}; expected examples in both splits."
            )
        if labels is not None and all(labels[number] is None for number in mine):
            raise InputError(
                f"{collection.where} has labels, but none in its split {part!r}; expected labels in both splits, or in "
                "neither."
            )


def _moments(collection: Collection, values: np.ndarray, declared: Declared, share: float) -> dict[str, Any]:
    """Return mean and standard deviation of the training split; of each number for vectors of up to 64 numbers."""
    with np.errstate(over="ignore"):
        singles = np.asarray(values, np.float32)
    finite = np.isfinite(singles.reshape(len(singles), -1)).all(axis=1)
    if not finite.all():
        name = collection.names[int(np.argmin(finite))]
        raise InputError(
            f"{name} of {collection.where} contains NaN, infinity or numbers too large for float32; expected finite "
            "numbers."
        )
    digests = np.stack([row_digest(row) for row in singles])
    try:
        columns = as_arrays(collection.columns, declared, collection.classes)
        is_test = test_part(collection, columns, np.arange(len(singles)), alike(digests), share)
    except InputError as error:
        raise InputError(f"{collection.where}: {error}") from error
    train = singles[~is_test]
    axis = 0 if train.ndim == 2 and train.shape[1] <= _PER_DIMENSION else None
    mean, std = (np.asarray(one(train, axis=axis, dtype=np.float64)) for one in (np.mean, np.std))
    if not std.all():
        raise InputError(f"{collection.where} has numbers that are equal in all examples; expected numbers that vary.")
    return dict(mean=mean.tolist(), std=std.tolist())
