"""This module holds the answers of an edit: several pictures, their mean, their spread, and a comparison."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from score_sde import plots
from score_sde.editing.pictures import Picture
from score_sde.editing.region import resized

_LONGEST = 512  # of a side of a picture in the comparison
_BYTE = 255
_WIDE = 4  # width / height above which pictures are shown below each other


@dataclasses.dataclass(frozen=True, eq=False)
class Edited:
    """`Edited` holds the answers of an edit of one picture.

    Attributes:
        picture: the picture that was edited.
        answers: the answers in the units of the picture, (n, height, width, channels).
        weight: weight of the answer in each pixel, float (height, width); pixels of weight 0 are those of the picture.
        seen: what the model was given, as a picture like the answers.
        about: what was done, by name: region, steps, level of noise, evaluations.
    """

    picture: Picture
    answers: np.ndarray
    weight: np.ndarray
    seen: np.ndarray
    about: dict[str, Any]

    def __repr__(self) -> str:
        n, height, width, channels = self.answers.shape
        return (
            f"Edited({n} answers of {width} x {height} pixels, {channels} channel(s), spread {self.mean_spread:.4g}, "
            f"{self.about.get('steps')} steps)"
        )

    @property
    def mean(self) -> np.ndarray:
        """Return the mean of the answers, float (height, width, channels)."""
        return self.answers.mean(axis=0)

    @property
    def spread(self) -> np.ndarray:
        """Return the standard deviation over the answers, the mean over channels, (height, width); 0 for one answer."""
        if len(self.answers) < 2:
            return np.zeros(self.answers.shape[1:3])
        return np.asarray(self.answers.std(axis=0, ddof=1).mean(axis=2))

    @property
    def mean_spread(self) -> float:
        """Return the mean of the spread over the pixels that were edited."""
        edited = self.weight > 0
        return float(self.spread[edited].mean()) if edited.any() else 0.0

    def with_alpha(self, number: int) -> np.ndarray:
        """Return an answer, (height, width, channels), with its opacity as one more channel if the picture has alpha.

        Painted pixels of a transparent part become opaque, in proportion to their weight.
        """
        answer = self.answers[number]
        alpha = self.picture.alpha
        if alpha is None:
            return answer
        added = self.about.get("added")
        if added is not None:  # what was added around the picture is opaque
            wide = np.full(answer.shape[:2], _BYTE, np.uint8)
            wide[added[0] : added[0] + alpha.shape[0], added[1] : added[1] + alpha.shape[1]] = alpha
            alpha = wide
        elif alpha.shape != answer.shape[:2]:
            large = resized(alpha[..., None].astype(float), answer.shape[:2])[..., 0]
            alpha = np.clip(np.round(large), 0, _BYTE).astype(np.uint8)
        if self.about.get("opaque"):
            alpha = np.maximum(alpha, np.round(_BYTE * self.weight).astype(np.uint8))
        colour = answer.repeat(3, axis=2) if answer.shape[2] == 1 else answer
        return np.concatenate([colour, alpha[..., None]], axis=2)

    def comparison(self) -> np.ndarray:
        """Return one row, uint8 (height, width, 3): picture, what the model was given, answers, mean, spread.

        The spread is brightest where it is largest. Large pictures are made smaller. Pictures that are more than four
        times as wide as high make a column.
        """
        top = float(self.answers.max()) if self.picture.maximum is None else float(self.picture.maximum)
        low = min(0.0, float(self.answers.min())) if self.picture.maximum is None else 0.0
        spread = self.spread / (self.spread.max() or 1.0) * (top - low) + low
        channels = self.answers.shape[3]
        pixels = self.picture.pixels
        if self.picture.alpha is not None:  # transparent pixels are shown in grey
            opaque = self.picture.alpha[..., None] / _BYTE
            pixels = opaque * pixels + (1 - opaque) * (low + top) / 2
        original = _placed(pixels, self.seen, self.about.get("added"))
        frames = [original, self.seen, *self.answers, self.mean, np.repeat(spread[..., None], channels, axis=2)]
        scale = min(1.0, _LONGEST / max(self.answers.shape[1:3]))
        size = tuple(max(1, round(side * scale)) for side in self.answers.shape[1:3])
        shown = np.stack([resized((frame.astype(float) - low) / ((top - low) or 1), size) for frame in frames])
        whole = np.round(np.clip(shown, 0, 1) * _BYTE).astype(np.uint8)
        # A row of wide pictures would be too wide to see.
        return plots.image_grid(whole, _BYTE, columns=1 if size[1] > _WIDE * size[0] else len(whole))


def _placed(pixels: np.ndarray, like: np.ndarray, added: Any) -> np.ndarray:
    """Return the picture in the size and the channels of the answers; what was added is black."""
    if pixels.shape[2] != like.shape[2]:
        pixels = pixels.repeat(like.shape[2], axis=2)
    if pixels.shape == like.shape:
        return pixels
    if added is None:
        return resized(pixels.astype(float), like.shape[:2], smooth=False)
    top, left = added
    wide = np.zeros(like.shape, pixels.dtype)
    wide[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return wide


__all__ = ["Edited"]
