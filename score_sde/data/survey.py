"""What a collection of examples has, from the beginnings of its pictures: sizes, modes, and what cannot be read."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from score_sde.core.errors import InputError
from score_sde.core.progress import Progress
from score_sde.readers.pictures import Collection, Header, Unreadable, header
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
    with Progress("headers", len(collection), 0, len(collection)) as progress:
        for numbers, results in in_parallel(lambda number: read_or_told(collection, number, _header), len(collection)):
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


def _header(found: bytes | np.ndarray) -> Header:
    if isinstance(found, bytes):
        return header(found)
    height, width = found.shape[:2]
    channels = found.shape[2] if found.ndim == 3 else 1
    return Header(height, width, {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels"), channels == 4)


def read_or_told(collection: Collection, number: int, read: Callable[[Any], T]) -> T | str:
    """What `read` makes of an example, or a sentence that says why it cannot be read."""
    try:
        return read(collection.get(number))
    except Unreadable as error:
        return f"{collection.names[number]} {error}"
    except InputError as error:
        return str(error).rstrip(".")


def told(broken: Sequence[str], count: int, most: int = 5) -> str:
    """The first sentences on pictures that cannot be read, of `count` in all."""
    few = "; ".join(plain(one, 200) for one in broken[:most])
    return few + (f"; and {count - most:,} more" if count > most else "")


def _each(work: Callable[[int], Any], numbers: Sequence[int]) -> list[Any]:
    return [work(number) for number in numbers]


def in_parallel(
    work: Callable[[int], Any], n: int, todo: Sequence[int] | None = None
) -> Iterator[tuple[list[int], list[Any]]]:
    """Apply `work` to the numbers 0 .. n - 1, or those of `todo`, on all usable cores; chunks come in order.

    Pillow lets go of Python's lock while it decodes and resamples, so that threads are enough.
    """
    numbers = list(range(n)) if todo is None else list(todo)
    chunks = [numbers[low : low + _CHUNK] for low in range(0, len(numbers), _CHUNK)]
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque[tuple[list[int], Any]] = collections.deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(_each, work, chunk)))
                if len(waiting) > 2 * workers:  # what is done and not yet taken stays little
                    numbers, result = waiting.popleft()
                    yield numbers, result.result()
            while waiting:
                numbers, result = waiting.popleft()
                yield numbers, result.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
