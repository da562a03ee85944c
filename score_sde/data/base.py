"""What a data set is to the rest of the library, and the order in which training reads it."""

from __future__ import annotations

import abc
import os
import pathlib
from collections.abc import Iterator, Mapping
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


def _named(source: Source) -> Records:
    return source if isinstance(source, Records) else Records(source, type(source).__name__)


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


def training_batches(
    source: Source, batch_size: int, *, seed: int, start: int = 0, flip: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Batches number start, start + 1, ... of an endless stream, each epoch in a new order.

    Batch k is a function of (seed, k) alone. The next ones are read in the background.

    Args:
        source: the examples.
        batch_size: examples per batch.
        seed: of the order and the flips.
        start: the number of the first batch.
        flip: whether each image is mirrored left to right with probability 1/2.
    """
    import grain  # imported late: it takes time that sampling need not spend

    if not len(source):
        raise InputError("The data source is empty; expected at least one example.")

    class Flip(grain.transforms.RandomMap):
        def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
            mirrored = element["image"][:, ::-1] if rng.random() < 0.5 else element["image"]
            return {**element, "image": mirrored}

    stream = grain.MapDataset.source(_named(source)).seed(seed).shuffle().repeat(None)
    if flip:
        stream = stream.random_map(Flip())
    stream = stream.batch(batch_size, drop_remainder=True).slice(slice(start, None))
    yield from stream.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))


def all_examples(source: Source) -> dict[str, np.ndarray]:
    """Every example, stacked in order: {'image': (n, *shape), 'label': (n,)}."""
    source = _named(source)
    examples = [source[i] for i in range(len(source))]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
