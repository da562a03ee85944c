"""What a collection of examples has, from the beginnings of its pictures: sizes, modes, and what cannot be read."""

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

_LARGEST = 64  # pixels a side that are chosen where pictures differ
_SAME = 128  # up to this side pictures of one size keep it
_CHUNK = 64
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the pictures of a collection are.

    Attributes:
        sizes: how many pictures have each (height, width).
        modes: how many have each of Pillow's modes.
        alpha: how many may be transparent.
        grey: how many are grey.
        broken: a sentence for each whose beginning cannot be read.
    """

    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    alpha: int
    grey: int
    broken: tuple[str, ...]

    def size(self) -> tuple[int, int]:
        """A height and a width that fit: those of all pictures where they agree and are small; else a square."""
        if len(self.sizes) == 1 and max(next(iter(self.sizes))) <= _SAME:
            return next(iter(self.sizes))
        short = np.repeat([min(size) for size in self.sizes], list(self.sizes.values()))
        side = 16
        while side < _LARGEST and 2 * side <= np.median(short):
            side *= 2
        return side, side

    def channels(self) -> int:
        """1 where all pictures are grey, else 3."""
        return 1 if self.grey == sum(self.sizes.values()) else 3

    def lines(self) -> list[str]:
        """The survey in words."""
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
    """Look at the beginning of each picture.

    Raises:
        InputError: where none can be read.
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
            f"Of {len(collection):,} pictures in {collection.where} none can be read: {told(broken, len(broken))}."
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
    """What `read` makes of each example, or a sentence that says why it cannot be read.

    `read` takes what the collection has of each example, or an error in its place, which it hands on.
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
    """The first sentences on pictures that cannot be read, of `count` in all."""
    few = "; ".join(plain(one, 200) for one in broken[:most])
    return few + (f"; and {count - most:,} more" if count > most else "")


def in_parallel(work: Callable[[list[int]], list[Any]], todo: Sequence[int]) -> Iterator[tuple[list[int], list[Any]]]:
    """Apply `work` to chunks of the numbers `todo` in threads; the chunks and their results come in order."""
    chunks = [list(todo[low : low + _CHUNK]) for low in range(0, len(todo), _CHUNK)]
    # One more than there are cores: while processes decode, a thread reads what they are to decode next.
    threads = usable_cores() + 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[tuple[list[int], Any]] = collections.deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(work, chunk)))
                if len(waiting) > 2 * threads:  # what is done and not yet taken stays little
                    numbers, result = waiting.popleft()
                    yield numbers, result.result()
            while waiting:
                numbers, result = waiting.popleft()
                yield numbers, result.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
