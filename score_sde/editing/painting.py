"""This module defines the edits that paint missing pixels: inside a picture, and around it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from score_sde.core.checks import is_number, is_whole, shown
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.editing import masks
from score_sde.editing.base import Measured, as_wide
from score_sde.editing.pictures import Picture
from score_sde.editing.plan import Paste, Plan
from score_sde.editing.region import Region, around, cut, filled, inside, known_at, ramp, resized, whole, windows
from score_sde.inverse import Mask

AREAS = ("whole", "masked")
CONTENTS = ("original", "fill", "noise", "zeros")
MOST_PIXELS = 80_000_000  # of a picture that an edit makes or sees
_SHADE = 0.5  # of the largest value, where the comparison shows a hole


@dataclasses.dataclass(frozen=True, eq=False)
class Inpaint(Measured):
    """`Inpaint` paints a part of a picture anew; all other pixels come back as they were, to the last bit.

    A picture of another size than the model's is brought to the model's size, painted there, brought back, and pasted
    through the mask.

    Attributes:
        mask: where to paint: (left, top, right, bottom) in pixels of the picture, without the last column and row; the
            path of a picture that is white there, or of a folder with such a picture of the same name for each
            picture; 'alpha' for the transparent pixels; or an array, (height, width), True there, or (n, height,
            width), whose masks the pictures use in turn. The mask of an inverse problem, cond['mask'], is the opposite.
        area: what the model sees: 'whole', the whole picture, or 'masked', the masked part with padding, which keeps
            more details of a large picture. Both have the proportions of the model; what the model sees beyond the
            borders of the picture is drawn, and thrown away.
        padding: pixels of the picture around the masked part.
        masked_content: where a walk of strength below 1 starts in the masked part: 'original', 'fill' (means of the
            known pixels nearby), 'noise' (standard normal numbers on the model's scale) or 'zeros' (0 on that scale).
        blur: width in pixels of the ramp, inside the masked part, over which the answer replaces the picture; with
            'original' the picture is mixed in, otherwise what 'fill' has there.
    """

    mask: Any
    area: str = "whole"
    padding: int = 32
    masked_content: str = "fill"
    blur: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("area", AREAS), ("masked_content", CONTENTS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} of Inpaint is {shown(getattr(self, name))}; expected {', '.join(known)}.")
        for name in ("padding", "blur"):
            if not is_whole(getattr(self, name), 0):
                raise InputError(
                    f"{name} of Inpaint is {shown(getattr(self, name))}; expected a number of pixels, at least 0."
                )
        object.__setattr__(self, "mask", masks.as_mask(self.mask))

    @property
    def content(self) -> str:  # type: ignore[override]
        return self.masked_content

    def check(self, codec: Codec) -> None:
        masks.check(self.mask)

    def digest_for(self, name: str) -> str:
        return masks.digest_for(self.mask, name)

    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        hole = masks.hole(self.mask, picture, number)
        shape, values = codec.data_shape, picture.values(codec)
        known = ~hole
        region = whole(picture.size, shape) if self.area == "whole" else around(hole, self.padding, shape)
        if region.height * region.width > MOST_PIXELS:
            raise InputError(
                f"The model would see {region.width} x {region.height} pixels of {picture.name}; expected at most "
                f"{MOST_PIXELS:,}: use area='masked', or a smaller padding."
            )
        smooth = filled(values, known)
        there = inside(picture.size, region)
        known_there = known_at(cut(known, region) & there, shape[:2])
        if not known_there.any():
            raise InputError(
                f"The mask of {picture.name} leaves no known pixel at the model's size, {shape[1]} x {shape[0]}; "
                f"expected a smaller mask, or {'area=' + repr('masked') if self.area == 'whole' else 'more padding'}: "
                "a picture without known pixels is sampled."
            )
        # Known pixels come from the filled picture, so that nothing of the masked part leaks through the filter.
        canvas = resized(cut(smooth, region), shape[:2])
        if self.masked_content == "original":
            canvas = np.where(known_there[..., None], canvas, resized(cut(values, region), shape[:2]))
        base = as_wide(picture.pixels, shape[2])
        under = base if self.masked_content == "original" or not self.blur else filled(base, known)
        paste = Paste(base, ramp(hole, self.blur), region, under)
        seen = np.where(hole[..., None], picture.rounded(_shade(picture, base)), base)
        about = {"region": _told(region), "masked": round(float(hole.mean()), 4), "opaque": True}
        noise = self.noise(picture, codec)
        return Plan(canvas, known_there, ((0, 0),), paste, seen, Mask(), None, noise, about)


@dataclasses.dataclass(frozen=True, eq=False)
class Outpaint(Measured):
    """`Outpaint` continues a picture beyond its borders, in windows that overlap; its pixels come back as they were.

    Each window has the size of the model. It takes what it overlaps as known, from the picture or from earlier windows,
    and the model draws the rest. If x beyond a window depends on the overlap only, as for a Markov process, windows
    have the joint law of one large window. A wide extension makes a panorama. A picture of another size is brought to
    the scale at which its smaller side is that of the model.

    Attributes:
        left, top, right, bottom: how many pixels of the picture are added on each side.
        overlap: share of a window's side that is known, between 0 and 1.
    """

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    overlap: float = 0.5

    content = "fill"

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = (self.left, self.top, self.right, self.bottom)
        if not all(is_whole(side, 0) for side in sides) or not any(sides):
            raise InputError(
                f"Outpaint got left, top, right, bottom = {sides}; expected numbers of pixels of at least 0, and one "
                "above 0."
            )
        if not is_number(self.overlap) or not 0 < self.overlap < 1:
            raise InputError(f"overlap of Outpaint is {shown(self.overlap)}; expected a share between 0 and 1.")

    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        shape, (height, width) = codec.data_shape, picture.size
        self._check_size(picture)
        scale = max(shape[0] / height, shape[1] / width)
        core = tuple(max(side, round(own * scale)) for side, own in zip(shape[:2], (height, width), strict=True))
        by_axis = [(own / small) for own, small in zip((height, width), core, strict=True)]
        (top, bottom), (left, right) = (
            [math.ceil(added / pixels) for added in pair]
            for pair, pixels in zip(((self.top, self.bottom), (self.left, self.right)), by_axis, strict=True)
        )
        size = (core[0] + top + bottom, core[1] + left + right)
        known = np.zeros(size, bool)
        known[top : top + core[0], left : left + core[1]] = True
        canvas = np.zeros((*size, shape[2]))
        canvas[top : top + core[0], left : left + core[1]] = resized(picture.values(codec), core)
        pixels = as_wide(picture.pixels, shape[2])
        base = np.zeros(
            (height + self.top + self.bottom, width + self.left + self.right, pixels.shape[2]), pixels.dtype
        )
        weight = np.ones(base.shape[:2])
        at = (slice(self.top, self.top + height), slice(self.left, self.left + width))
        base[at], weight[at] = pixels, 0
        # The region covers the whole picture: rounded pixels before it, and rounded up behind it.
        before = [round(added * pixels_of) for added, pixels_of in zip((top, left), by_axis, strict=True)]
        behind = [math.ceil(added * pixels_of) for added, pixels_of in zip((bottom, right), by_axis, strict=True)]
        region = Region(
            self.top - before[0], self.left - before[1], before[0] + height + behind[0], before[1] + width + behind[1]
        )
        seen = picture.rounded(_shade(picture, base))
        seen[at] = pixels
        places = windows(size, shape, Region(top, left, *core), self.overlap)
        needed = _needed(places, known, shape)
        about = {
            "size": [base.shape[1], base.shape[0]],
            "added": [self.top, self.left],
            "windows": len(needed),
            "scale": round(scale, 6),
        }
        filled_canvas = filled(canvas, known)
        noise = self.noise(picture, codec)
        paste = Paste(base, weight, region, base)
        return Plan(filled_canvas, known, needed, paste, seen, Mask(), None, noise, about)

    def _check_size(self, picture: Picture) -> None:
        height, width = picture.size[0] + self.top + self.bottom, picture.size[1] + self.left + self.right
        if height * width > MOST_PIXELS:
            raise InputError(
                f"{picture.name} would have {width} x {height} pixels; expected at most {MOST_PIXELS:,}: add less."
            )


def _needed(
    places: tuple[tuple[int, int], ...], known: np.ndarray, shape: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Return the windows that still have unknown pixels when their turn comes."""
    left, needed = known.copy(), []
    for top, start in places:
        window = left[top : top + shape[0], start : start + shape[1]]
        if not window.all():
            needed.append((top, start))
        window[:] = True
    return tuple(needed)


def _shade(picture: Picture, base: np.ndarray) -> np.ndarray:
    top = float(base.max()) if picture.maximum is None else picture.maximum
    return np.full(base.shape, _SHADE * top)


def _told(region: Region) -> dict[str, int]:
    return region._asdict()


__all__ = ["Inpaint", "Outpaint"]
