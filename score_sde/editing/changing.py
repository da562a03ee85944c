"""This module defines the edits that start from the content of a picture: image to image, and another class."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.editing.base import Edit, of_centre
from score_sde.editing.pictures import Picture
from score_sde.editing.plan import Plan


@dataclasses.dataclass(frozen=True, eq=False)
class ImageToImage(Edit):
    """`ImageToImage` adds noise to a picture and removes it again (SDEdit, Meng et al. 2022, arXiv:2108.01073).

    The largest centred part with the proportions of the model is changed, at the model's size, and pasted back. The
    answers are no samples of a posterior: strength trades faithfulness for realism.
    """

    strength: float = dataclasses.field(default=0.5, kw_only=True)

    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        region, canvas, paste = of_centre(picture, codec)
        known = np.zeros(canvas.shape[:2], bool)
        return Plan(canvas, known, ((0, 0),), paste, paste.base, about={"region": region._asdict()})


@dataclasses.dataclass(frozen=True, eq=False)
class ChangeClass(ImageToImage):
    """`ChangeClass` is `ImageToImage` with another class: noise hides the old class, and the model draws the new one.

    The model reads the class `label`, or a guide does (`ClassifierFree`, `ClassifierGuided`).

    Attributes:
        label: the class to draw.
    """

    label: int
    strength: float = dataclasses.field(default=0.7, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.label, bool) or self.label < 0:
            raise InputError(f"label of ChangeClass is {self.label!r}; expected the number of a class, from 0.")

    @property
    def asked(self) -> dict[str, Any]:
        return {"label": self.label}


__all__ = ["ChangeClass", "ImageToImage"]
