"""This module defines a source of rows of arrays that stay on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from score_sde.data.base import Arrays


class Rows(Arrays):
    """`Rows` selects rows of arrays that may be memory-mapped from files; a row is read on request only.

    Args:
        arrays: arrays by name, (n, ...), or dictionaries of arrays, as in `Arrays`.
        rows: numbers of the rows, in order.
        digest: digest of these rows.
    """

    def __init__(self, arrays: Mapping[str, Any], rows: np.ndarray, digest: str) -> None:
        self._arrays, self._rows, self._digest = dict(arrays), rows, digest

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row = self._rows[index]
        return {name: jax.tree.map(lambda leaf: leaf[row], column) for name, column in self._arrays.items()}

    def take(self, numbers: np.ndarray) -> dict[str, Any]:
        rows = self._rows[numbers]
        return {name: jax.tree.map(lambda leaf: leaf[rows], column) for name, column in self._arrays.items()}

    @property
    def columns(self) -> dict[str, Any]:  # type: ignore[override]
        """Return all rows, in memory."""
        return self.take(np.arange(len(self)))

    def digest(self) -> str:
        return self._digest
