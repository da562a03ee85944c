"""What a data set is to the rest of the library."""

from __future__ import annotations

import abc
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from score_sde.core.errors import InputError
from score_sde.data.transform import Transform


class Source(Protocol):
    """Examples by number: {'image': (*shape), 'label': int}."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class Records:
    """A source read from files, whose unreadable records are named.

    Args:
        source: the records.
        name: what they are called, such as 'digits, split train'.
        folder: where they are, to be prepared again when it is deleted; None where that is not known.
    """

    def __init__(self, source: Source, name: str, folder: pathlib.Path | None = None) -> None:
        self._source, self._name, self._folder = source, name, folder

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        try:
            return self._source[index]
        except Exception as error:  # whatever the reader of a damaged file raises
            remedy = f"delete {self._folder}, and it is prepared again" if self._folder else "mend or leave it out"
            raise InputError(
                f"Record {index} of {self._name} cannot be read ({type(error).__name__}: {str(error)[:120]}): {remedy}."
            ) from error


class Arrays:
    """A source that is in memory, whose examples are read many at once.

    Args:
        columns: {'image': (n, *shape), 'label': (n,)}.
    """

    def __init__(self, **columns: np.ndarray) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["image"])

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {name: values[index] for name, values in self.columns.items()}

    def take(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """The examples of these numbers, stacked."""
        return {name: values[numbers] for name, values in self.columns.items()}


def read(source: Source, numbers: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """The examples of these numbers, stacked: {'image': (n, *shape), 'label': (n,)}; no others are read."""
    if isinstance(source, Arrays):
        return source.take(np.asarray(numbers))
    records = source if isinstance(source, Records) else Records(source, type(source).__name__)
    examples = [records[int(i)] for i in numbers]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def all_examples(source: Source) -> dict[str, np.ndarray]:
    """Every example, stacked in order: {'image': (n, *shape), 'label': (n,)}."""
    return read(source, range(len(source)))


class Dataset(abc.ABC):
    """A data set of labelled examples: images, points, or arrays of any other shape.

    To add one, subclass and define `source`; a config names it by its dotted path.

    Attributes:
        shape: of an example, (height, width, channels) of an image.
        num_classes: labels are 0 .. num_classes - 1.
        transform: between the examples' values and the model's scale.
    """

    shape: tuple[int, ...]
    num_classes: int
    transform: Transform

    @abc.abstractmethod
    def source(self, split: str) -> Source:
        """The examples of a split, 'train' or 'test', in a fixed order; prepares the data if need be."""


def cache_dir() -> pathlib.Path:
    """Where prepared data and compiled programs live unless told otherwise: score_sde in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base) / "score_sde"
