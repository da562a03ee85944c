"""This module reads the headers of the pictures of a collection: sizes, modes, and pictures that cannot be read."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from score_sde.core.errors import InputError
from score_sde.core.machine import usable_cores
from score_sde.core.progress import Progress
from score_sde.readers.pictures import Collection, Header, Unreadable, reading
from score_sde.readers.refusal import shown as plain

_LARGEST = 64  # largest side in pixels that is chosen if picture sizes differ
_SAME = 128  # largest side in pixels up to which pictures of one size keep their size
_CHUNK = 64
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Survey:
    """`Survey` holds the properties of the pictures of a collection.

    Attributes:
        sizes: number of pictures of each (height, width).
        modes: number of pictures of each Pillow mode.
        alpha: number of pictures that may be transparent.
        grey: number of grey pictures.
        broken: one sentence for each picture whose header cannot be read.
    """

    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    alpha: int
    grey: int
    broken: tuple[str, ...]

    def size(self) -> tuple[int, int]:
        """Return the size of the pictures if all sizes agree and no side is above 128; otherwise a square.

        The side of the square is 16, 32 or 64, the largest that the shorter sides of half of the pictures reach.
        """
        if len(self.sizes) == 1 and max(next(iter(self.sizes))) <= _SAME:
            return next(iter(self.sizes))
        short = np.repeat([min(size) for size in self.sizes], list(self.sizes.values()))
        side = 16
        while side < _LARGEST and 2 * side <= np.median(short):
            side *= 2
        return side, side

    def channels(self) -> int:
        """Return 1 if all pictures are grey, otherwise 3."""
        return 1 if self.grey == sum(self.sizes.values()) else 3

    def lines(self) -> list[str]:
        """Return the survey in words."""
        counted = collections.Counter(self.sizes)
        common = ", ".join(f"{count:,} of {w} x {h}" for (h, w), count in counted.most_common(3))
        sides = [side for size in self.sizes for side in size]
        more = f" (of {len(counted):,} sizes, sides from {min(sides)} to {max(sides)})" if len(counted) > 3 else ""
        modes = ", ".join(f"{count:,} {mode}" for mode, count in collections.Counter(self.modes).most_common())
        return [
            f"width x height: {common}{more}",
            f"modes: {modes}" + f"; {self.alpha:,} with transparency" * (self.alpha > 0),
        ]


def survey(collection: Collection) -> Survey:
    """Read the header of each picture, and return the survey.

    Raises:
        InputError: if no picture can be read.
    """
    if collection.values is not None:
        return _of_pixels(collection.values)
    headers: list[Header] = []
    broken: list[str] = []
    n = len(collection)
    with Progress("headers", n, 0, n) as progress, reading(n) as read:

        def headers_of(numbers: list[int]) -> list[Header | str]:
            return read_or_told(collection, numbers, lambda examples: read(examples, None))

        for numbers, results in in_parallel(headers_of, range(n)):
            progress.add(len(numbers))
            for result in results:
                if isinstance(result, Header):
                    headers.append(result)
                else:
                    broken.append(result)
    if not headers:
        raise InputError(
            f"None of the {len(collection):,} pictures in {collection.where} can be read: {told(broken, len(broken))}."
        )
    return Survey(
        dict(collections.Counter((one.height, one.width) for one in headers)),
        dict(collections.Counter(one.mode for one in headers)),
        sum(one.alpha for one in headers),
        sum(one.is_grey for one in headers),
        tuple(broken),
    )


def _of_pixels(values: np.ndarray) -> Survey:
    n, height, width, channels = values.shape
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    return Survey({(height, width): n}, {mode: n}, n * (channels in (2, 4)), n * (channels < 3), ())


def read_or_told(
    collection: Collection, numbers: Sequence[int], read: Callable[[Iterable[Any]], Iterable[T | Exception]]
) -> list[T | str]:
    """Return the result of `read` for each example, or a sentence that states why the example cannot be read.

    `read` takes raw examples of the collection. `read` passes on an error that is in the place of an example.
    """
    results = read(_had(collection, number) for number in numbers)
    return [
        _sentence(collection.names[number], result) if isinstance(result, Exception) else result
        for number, result in zip(numbers, results, strict=True)
    ]


def _had(collection: Collection, number: int) -> Any:
    try:
        return collection.get(number)
    except (Unreadable, InputError) as error:
        return error


def _sentence(name: str, error: Exception) -> str:
    return f"{name} {error}" if isinstance(error, Unreadable) else str(error).rstrip(".")


def told(broken: Sequence[str], count: int, most: int = 5) -> str:
    """Return the first sentences about pictures that cannot be read; `count` is the number of such pictures."""
    few = "; ".join(plain(one, 200) for one in broken[:most])
    return few + (f"; and {count - most:,} more" if count > most else "")


def in_parallel(work: Callable[[list[int]], list[Any]], todo: Sequence[int]) -> Iterator[tuple[list[int], list[Any]]]:
    """Apply `work` to chunks of the numbers `todo` in threads, and yield each chunk with its results, in order."""
    chunks = [list(todo[low : low + _CHUNK]) for low in range(0, len(todo), _CHUNK)]
    # There is one more thread than cores: while processes decode, this thread reads the next examples.
    threads = usable_cores() + 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[tuple[list[int], Any]] = collections.deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(work, chunk)))
                if len(waiting) > 2 * threads:  # limits the results that are complete but not yet yielded
                    numbers, result = waiting.popleft()
                    yield numbers, result.result()
            while waiting:
                numbers, result = waiting.popleft()
                yield numbers, result.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
