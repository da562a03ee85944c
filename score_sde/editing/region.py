"""This module cuts regions out of pictures, and brings them to the size of a model and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from PIL import Image


class Region(NamedTuple):
    """A `Region` is a rectangle of pixels of a picture; it may reach beyond the borders of the picture."""

    top: int
    left: int
    height: int
    width: int


def whole(size: tuple[int, int], shape: tuple[int, ...]) -> Region:
    """Return the smallest region with the proportions of `shape` that contains a picture of this size.

    The picture is in the centre, and begins at the beginning of a pixel of `shape`, so that a narrow picture fills as
    many of these pixels as it can.
    """
    scale = max(size[0] / shape[0], size[1] / shape[1])
    lengths = [max(own, round(side * scale)) for own, side in zip(size, shape[:2], strict=True)]
    before = [round((length - own) // (2 * scale) * scale) for length, own in zip(lengths, size, strict=True)]
    return Region(-before[0], -before[1], lengths[0], lengths[1])


def centre(size: tuple[int, int], shape: tuple[int, ...]) -> Region:
    """Return the largest region with the proportions of `shape` inside a picture of this size, centred."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, min(own, round(side * scale))) for own, side in zip(size, shape[:2], strict=True))
    return Region((size[0] - height) // 2, (size[1] - width) // 2, height, width)


def around(hole: np.ndarray, padding: int, shape: tuple[int, ...]) -> Region:
    """Return the region around a hole, bool (height, width), with padding and with the proportions of `shape`.

    The region lies inside the picture if the picture has room for it.
    """
    spans = []
    for axis, side in enumerate(hole.shape):
        places = np.flatnonzero(hole.any(axis=1 - axis))
        spans.append((max(0, places[0] - padding), min(side, places[-1] + 1 + padding)))
    scale = max((high - low) / side for (low, high), side in zip(spans, shape[:2], strict=True))
    starts, sizes = [], []
    for (low, high), side, whole_side in zip(spans, shape[:2], hole.shape, strict=True):
        size = max(high - low, round(side * scale))
        start = (low + high - size) // 2
        room = whole_side - size
        starts.append(int(np.clip(start, 0, room)) if room >= 0 else room // 2)
        sizes.append(int(size))
    return Region(starts[0], starts[1], sizes[0], sizes[1])


def cut(array: np.ndarray, region: Region) -> np.ndarray:
    """Return the pixels of a region, (height, width, ...); beyond the borders the last pixels are repeated."""
    rows = np.clip(np.arange(region.top, region.top + region.height), 0, array.shape[0] - 1)
    columns = np.clip(np.arange(region.left, region.left + region.width), 0, array.shape[1] - 1)
    return array[rows][:, columns]


def inside(size: tuple[int, int], region: Region) -> np.ndarray:
    """Return which pixels of a region lie inside a picture of this size, bool (height, width)."""
    rows, columns = (
        (np.arange(start, start + length) >= 0) & (np.arange(start, start + length) < side)
        for start, length, side in zip(region[:2], region[2:], size, strict=True)
    )
    return rows[:, None] & columns[None, :]


def resized(values: np.ndarray, size: Sequence[int], smooth: bool = True) -> np.ndarray:
    """Return float values (height, width, channels) at another size: Pillow's bicubic filter, or block means.

    Values of this size already are returned unchanged.
    """
    height, width = size
    if values.shape[:2] == (height, width):
        return values
    return _planes(values, (height, width), Image.Resampling.BICUBIC if smooth else Image.Resampling.BOX)


def _planes(values: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """Return float values at another size, (height, width), one channel after another with a filter of Pillow."""
    planes = [
        Image.fromarray(np.ascontiguousarray(values[..., i], np.float32)).resize(size[::-1], method)
        for i in range(values.shape[2])
    ]
    return np.stack([np.asarray(plane, float) for plane in planes], axis=-1)


def known_at(known: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return which pixels at another size lie over known pixels only, bool (height, width)."""
    rows, columns = (_covered(own, side) for own, side in zip(known.shape, size, strict=True))
    sums = np.pad(np.cumsum(np.cumsum(~known, axis=0), axis=1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = rows, columns
    holes = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return np.asarray(holes == 0)


def _covered(own: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixel below each of `side` new pixels, and the one behind the last, of `own` pixels."""
    edges = np.arange(side + 1)
    return edges[:-1] * own // side, -(-edges[1:] * own // side)


def filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return values (height, width, channels) with means of known pixels nearby in the place of the others.

    The image is halved, by means over the known pixels of 2 x 2, until all pixels are known. An unknown pixel gets the
    value of the finest level that knows it, interpolated linearly. Without known pixels the values stay as they are.
    """
    result = values.astype(float)
    if not known.any() or known.all():
        return result
    near = _neighbourhood(~known)
    part, seen = result[near], known[near][..., None]
    part[:] = np.where(seen, part, _pull_push(part * seen, seen.astype(float)))
    return result


def _neighbourhood(hole: np.ndarray) -> tuple[slice, slice]:
    """Return the box around a hole, with a margin of its own size; the rest of a picture has no influence."""
    slices = []
    for axis, side in enumerate(hole.shape):
        places = np.flatnonzero(hole.any(axis=1 - axis))
        margin = places[-1] + 1 - places[0]
        slices.append(slice(max(0, places[0] - margin), min(side, places[-1] + 1 + margin)))
    return slices[0], slices[1]


def _pull_push(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return total / weight, with interpolated values of the halved image where the weight is 0."""
    there = weight > 0
    mean = np.where(there, total / np.where(there, weight, 1), 0)
    if there.all():
        return mean
    coarse = _pull_push(_halved(total), _halved(weight))
    doubled = _planes(coarse, (2 * coarse.shape[0], 2 * coarse.shape[1]), Image.Resampling.BILINEAR)
    return np.where(there, mean, doubled[: total.shape[0], : total.shape[1]])


def _halved(sums: np.ndarray) -> np.ndarray:
    """Return the sums over blocks of 2 x 2 pixels; beyond the border they are 0."""
    height, width, channels = sums.shape
    padded = np.pad(sums, ((0, height % 2), (0, width % 2), (0, 0)))
    return padded.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels).sum(axis=(1, 3))


def ramp(hole: np.ndarray, width: int) -> np.ndarray:
    """Return weights that grow from 0 outside a hole to 1 inside it, linearly over `width` pixels; float, like hole.

    A pixel of the hole has min(1, d / (width + 1)), where d is its distance to the nearest pixel outside.
    """
    if not width or hole.all():
        return hole.astype(float)
    return np.minimum(1, scipy.ndimage.distance_transform_edt(hole) / (width + 1))


def windows(size: tuple[int, int], shape: tuple[int, ...], core: Region, overlap: float) -> tuple[tuple[int, int], ...]:
    """Return the places (top, left) of windows that cover a canvas from its known core outwards, in order.

    Each window overlaps the windows before it, or the core, by at least the share `overlap` of its side, as far as the
    canvas allows.

    Args:
        size: (height, width) of the canvas, each at least that of a window.
        shape: (height, width, ...) of a window.
        core: the known part of the canvas.
        overlap: the share of a window's side.
    """
    spans = ((core.top, core.top + core.height), (core.left, core.left + core.width))
    rows, columns = (
        _places(length, side, span, max(1, min(side - 1, round(overlap * side))))
        for length, side, span in zip(size, shape[:2], spans, strict=True)
    )
    return tuple((top, left) for top in rows for left in columns)


def _places(length: int, side: int, span: tuple[int, int], overlap: int) -> list[int]:
    """Return the starts of windows along one axis: first those that cover the span, then outwards on both sides."""
    if side == length:
        return [0]
    low, high = span
    last, step = length - side, max(1, side - overlap)
    within = list(range(low, max(low, high - side) + 1, step)) or [low]
    if high - low > side and within[-1] != high - side:
        within.append(high - side)

    def outwards(edge: int) -> list[int]:
        """Return the starts of windows beyond an edge of the span, in the direction of growing places."""
        starts = list(range(edge - overlap, last, step))
        return [*starts, last] if edge < length else []

    mirrored = [last - start for start in outwards(length - low)]
    return list(dict.fromkeys([*(min(start, last) for start in within), *outwards(high), *mirrored]))


__all__ = ["Region", "around", "centre", "cut", "filled", "inside", "known_at", "ramp", "resized", "whole", "windows"]
