"""This module describes how one picture is edited: what is known, which windows are drawn, and how they come back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from score_sde.data import Codec
from score_sde.editing.pictures import Picture
from score_sde.editing.region import Region, resized
from score_sde.inverse import Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Paste:
    """`Paste` puts the values of a canvas back into a picture.

    Attributes:
        base: the picture to paste into, (height, width, channels), in the units of the picture.
        weight: weight of the answer in each pixel of `base`, float (height, width); pixels of weight 0 stay as they
            are, to the last bit.
        region: the place of the canvas in `base`; it may reach beyond the borders.
        under: the pixels that an answer of weight between 0 and 1 is mixed with, like `base`.
        keeps_grey: whether the mean of the channels of `base` is kept, and only the colour is pasted.
    """

    base: np.ndarray
    weight: np.ndarray
    region: Region
    under: np.ndarray
    keeps_grey: bool = False

    def __call__(self, values: np.ndarray, picture: Picture, codec: Codec) -> np.ndarray:
        """Return the picture with the values of a canvas, (height, width, channels) on the scale of the data."""
        large = picture.own(resized(values, self.region[2:]), codec, self.base.shape[2])
        answer = np.zeros(self.base.shape)
        rows, columns = (
            slice(max(0, start), min(side, start + length))
            for start, length, side in zip(self.region[:2], self.region[2:], self.base.shape[:2], strict=True)
        )
        answer[rows, columns] = large[
            rows.start - self.region.top : rows.stop - self.region.top,
            columns.start - self.region.left : columns.stop - self.region.left,
        ]
        if self.keeps_grey:
            answer = _coloured(self.base.mean(axis=2, keepdims=True), answer, picture.maximum)
        weight = self.weight[..., None]
        mixed = picture.rounded(self.under + weight * (answer - self.under))
        return np.where(weight > 0, mixed, self.base.astype(mixed.dtype))


def _coloured(grey: np.ndarray, answer: np.ndarray, maximum: int | None) -> np.ndarray:
    """Return the colours of the answer around the given grey, pale enough to lie in the range of pixels."""
    colour = answer - answer.mean(axis=2, keepdims=True)
    if maximum is None:
        return grey + colour
    # The largest factor, at most 1, with 0 <= grey + factor colour <= maximum in each channel.
    room = np.where(colour > 0, maximum - grey, grey)
    factor = np.min(np.where(colour == 0, 1, room / np.where(colour == 0, 1, np.abs(colour))), axis=2, keepdims=True)
    return grey + np.minimum(1, factor) * colour


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A `Plan` holds all that the edit of one picture needs.

    Attributes:
        canvas: values on the scale of the data, (height, width, channels), each side at least that of the model. They
            are the content where a walk of strength below 1 starts.
        known: which pixels of the canvas are given, bool (height, width); the measurement of `Mask`.
        windows: (top, left) of the windows of the model's size, in order.
        paste: puts an answer back into the picture.
        seen: the picture that the comparison shows as what the model was given, like the answers.
        operator: the operator of the measurement; None for no measurement.
        y: the measurement of the only window, on the model's scale; None for the known pixels of the canvas.
        noise_std: standard deviation of the noise of y.
        about: what is told about this picture, by name.
    """

    canvas: np.ndarray
    known: np.ndarray
    windows: tuple[tuple[int, int], ...]
    paste: Paste
    seen: np.ndarray
    operator: Operator | None = None
    y: np.ndarray | None = None
    noise_std: float = 0.0
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


__all__ = ["Paste", "Plan"]
