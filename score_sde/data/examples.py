"""This module reads the examples of a split with the conditions that a run needs, and checks the examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from score_sde.core.conditions import Conditions
from score_sde.core.errors import InputError
from score_sde.data.base import Arrays, Batch, Source, as_batch, check_source, read
from score_sde.data.codec import Codec, shape_hint

_CHUNK = 4096
_LOOKED_AT = 8


class Examples:
    """`Examples` reads examples by number, and checks each example against the declarations of its data set.

    The checks cover the shape of the values, the requirements of the codec (range, whole numbers, finite), and the
    conditions (shape, dtype, range, finite). The error message names the first wrong example.

    Args:
        source: the examples.
        reads: conditions that are read; others are omitted.
        codec: codec of the values; None if the values are not checked.
        name: name of the examples in messages, such as "the split 'train' of Digits".
    """

    def __init__(
        self,
        source: Source,
        reads: Conditions = Conditions(),  # noqa: B008 (immutable)
        codec: Codec | None = None,
        name: str = "the data set",
    ) -> None:
        check_source(source, name)
        self.source, self.reads, self.codec, self.name = source, reads, codec, name

    def __len__(self) -> int:
        return len(self.source)

    @property
    def in_memory(self) -> bool:
        """Return whether the source is `Arrays`, which reads many examples at once."""
        return isinstance(self.source, Arrays)

    def batch(self, numbers: Sequence[int] | np.ndarray) -> Batch:
        """Return the examples with these numbers: {'values': (n, *shape), 'cond': None or the conditions by name}.

        Raises:
            InputError: if an example cannot be read, or differs from the declarations of the data set.
        """
        columns = read(self.source, numbers)
        try:
            return self._checked(columns)
        except InputError:
            for place, number in enumerate(numbers):
                try:
                    self._checked(_one(columns, place))
                except InputError as error:
                    raise InputError(f"Example {int(number)} of {self.name}: {error}") from error
            raise

    def look(self) -> None:
        """Check examples before they are needed: all examples of `Arrays`, up to 8 examples of any other source.

        Raises:
            InputError: if there are no examples, and in the cases of `batch`.
        """
        if not len(self):
            raise InputError(f"{self.name} is empty; expected at least one example.")
        if self.in_memory:
            for low in range(0, len(self), _CHUNK):
                self.batch(np.arange(low, min(low + _CHUNK, len(self))))
        else:
            self.batch(np.unique(np.linspace(0, len(self) - 1, _LOOKED_AT).astype(int)))

    def _checked(self, columns: dict[str, Any]) -> Batch:
        batch = as_batch(columns, self.reads)
        if self.codec is not None:
            values, shape = batch["values"], tuple(self.codec.data_shape)
            if values.shape[1:] != shape:
                hint = shape_hint(values.shape[1:], shape)
                raise InputError(f"values have shape {values.shape[1:]}; expected {shape}, as in its codec{hint}.")
            if values.dtype.kind not in "biuf":
                raise InputError(f"values have dtype {values.dtype}; expected numbers.")
            self.codec.check(values)
        return batch


def _one(columns: dict[str, Any], place: int) -> dict[str, Any]:
    return {name: jax.tree.map(lambda leaf: leaf[place : place + 1], column) for name, column in columns.items()}
