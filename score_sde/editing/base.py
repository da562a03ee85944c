"""This module defines `Edit`, the base class of everything that can be done to a picture."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import math
import os
from typing import Any, ClassVar

import numpy as np

from score_sde import config as config_
from score_sde.core.checks import check_types, is_number, shown
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.editing.pictures import Picture
from score_sde.editing.plan import Paste, Plan
from score_sde.editing.region import Region, centre, cut, resized
from score_sde.editing.strength import check_strength
from score_sde.inverse import methods
from score_sde.inverse.methods import Spec

MEASURED = "Posterior(variance=Moments(iterations=1))"
_NOISE_OF_REAL_NUMBERS = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Edit(abc.ABC):
    """An edit says what is known of the picture that is wanted; a model draws the rest.

    To add an edit, write a subclass and define `plan`. Declare the settings as fields of a frozen dataclass. A config
    names the class by its dotted path.

    Attributes:
        strength: share of the steps of the time grid that are taken (`kept_steps`). Below 1 the walk starts from the
            content of the picture with noise; 0 returns the picture, and 1 forgets the content.
    """

    strength: float = dataclasses.field(default=1.0, kw_only=True)

    name: ClassVar[str]
    content: ClassVar[str] = "original"  # what a walk of strength below 1 starts from where nothing is known

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()

    def __post_init__(self) -> None:
        check_types(self)
        check_strength(self.strength, type(self).__name__)

    @property
    def asked(self) -> dict[str, Any]:
        """Return the conditions that the edit itself asks for, in the short form of `model.sample`."""
        return {}

    @property
    def by(self) -> Spec:
        """Return the method that keeps a measurement, a guide or a sampler; '' for an edit without measurement."""
        return ""

    def check(self, codec: Codec) -> None:
        """Raise InputError if the edit suits no picture with a model of these data; called before pictures are read."""

    def digest_for(self, name: str) -> str:
        """Return a digest of the files that the edit reads for the picture of this path; '' for no files."""
        return ""

    def settings(self) -> dict[str, Any]:
        """Return the settings, as JSON can hold them, on which the result depends; an array is stated by a digest."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in found.items()}

    @abc.abstractmethod
    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        """Return how a picture is edited by a model.

        Args:
            picture: the picture.
            number: the place of the picture among those that are edited together.
            codec: the codec of the data; its shape is (height, width, channels).

        Raises:
            InputError: if the picture cannot be edited so.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Measured(Edit):
    """`Measured` is the base of the edits that keep a measurement of the picture.

    Attributes:
        method: how the measurement is kept: a guide, such as 'Posterior(variance=Flat())', or a sampler, such as
            'Replacement' or 'RePaint' (docs/inverse.md).
        noise_std: standard deviation of the noise of the measurement, on the model's scale; None for that of rounding
            to whole numbers.
    """

    method: Spec = dataclasses.field(default=MEASURED, kw_only=True)
    noise_std: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        config_.lookup(methods.SPACES, methods.one_spec(f"method of {name}", self.method)["name"])
        if self.noise_std is not None and not (is_number(self.noise_std) and self.noise_std >= 0):
            raise InputError(f"noise_std of {name} is {shown(self.noise_std)}; expected a number of at least 0.")

    @property
    def by(self) -> Spec:
        return self.method

    def noise(self, picture: Picture, codec: Codec) -> float:
        """Return the standard deviation of the noise of a measurement of this picture, on the model's scale."""
        if self.noise_std is not None:
            return float(self.noise_std)
        if picture.maximum is None or codec.model_range is None:
            return _NOISE_OF_REAL_NUMBERS
        low, high = codec.model_range
        levels = min(picture.maximum, codec.maximum or picture.maximum)
        return (high - low) / levels / math.sqrt(12)  # of numbers that are uniform within one level


def of_centre(picture: Picture, codec: Codec) -> tuple[Region, np.ndarray, Paste]:
    """Return the largest region with the proportions of the model, its values at the model's size, and its paste."""
    shape = codec.data_shape
    region = centre(picture.size, shape)
    canvas = resized(cut(picture.values(codec), region), shape[:2])
    base = as_wide(picture.pixels, shape[2])
    weight = np.zeros(picture.size)
    weight[region.top : region.top + region.height, region.left : region.left + region.width] = 1
    return region, canvas, Paste(base, weight, region, base)


def as_wide(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return pixels with at least this number of channels."""
    return pixels.repeat(channels, axis=2) if pixels.shape[2] == 1 else pixels


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        content = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).hexdigest()
        return f"array {value.shape} {content}"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


__all__ = ["MEASURED", "Edit", "Measured", "as_wide", "of_centre"]
