"""This module defines the edits that restore what a picture lacks: colour, sharpness, or size."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.checks import is_number, is_whole, shown
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.editing.base import Measured, as_wide, of_centre
from score_sde.editing.pictures import Picture
from score_sde.editing.plan import Paste, Plan
from score_sde.editing.region import Region, resized
from score_sde.inverse import Blur, Downsample, Gray, Operator
from score_sde.inverse.operators import BORDERS

_WHOLE = ((0, 0),)


def _encoded(values: np.ndarray, codec: Codec) -> jax.Array:
    """Return values (height, width, channels) on the model's scale, as a batch of one."""
    return codec.encode(jnp.asarray(values)[None], None)[0]


def _measured(operator: Operator, values: np.ndarray, codec: Codec) -> np.ndarray:
    """Return A x of values (height, width, channels) on the scale of the data."""
    return np.asarray(operator(_encoded(values, codec))[0])


def _nothing_known(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape[:2], bool)


@dataclasses.dataclass(frozen=True, eq=False)
class Colourise(Measured):
    """`Colourise` gives a picture colours; the mean of its channels comes back as it was, up to rounding.

    The measurement is (R + G + B) / sqrt(3), with equal weights, in the orthogonal basis of Song et al. 2021
    (App. I.3). A colour picture loses its colours first. Colours are pasted over the grey of the picture at its own
    size. Colours that leave the range of the pixels are made paler.
    """

    def check(self, codec: Codec) -> None:
        if codec.data_shape[2] != 3:
            raise InputError(
                f"Colourise needs a model of colour images, and the model has {codec.data_shape[2]} channel(s)."
            )

    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        # For real numbers the mean has no rounding; whole numbers keep the mean that the file shows.
        grey = picture.pixels.astype(float).mean(axis=2, keepdims=True)
        grey = grey if picture.pixels.shape[2] == 1 else picture.rounded(grey)
        plain = dataclasses.replace(picture, pixels=as_wide(grey, 3))
        region, canvas, paste = of_centre(plain, codec)
        operator = Gray()
        return Plan(
            canvas,
            _nothing_known(canvas.shape),
            _WHOLE,
            dataclasses.replace(paste, keeps_grey=True),
            picture.rounded(paste.base),
            operator,
            _measured(operator, canvas, codec),
            # The three channels are rounded together, and y is sqrt(3) times one of them.
            self.noise(picture, codec) * (math.sqrt(3) if self.noise_std is None else 1),
            {"region": region._asdict()},
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Deblur(Measured):
    """`Deblur` draws sharp pictures that are the given one after a Gaussian blur.

    Attributes:
        std: standard deviation of the blur, in pixels of the picture.
        border: continuation of the picture beyond its borders, as in `inverse.Blur`.
        noise_std: standard deviation of the noise of the blurred picture, on the model's scale; None for that of
            rounding. Real blurred pictures have more: a value that is too small makes ripples.
    """

    std: float
    border: str = "reflect"
    noise_std: float | None = dataclasses.field(default=0.02, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.std) or not 0 < self.std < math.inf:
            raise InputError(f"std of Deblur is {shown(self.std)}; expected a positive number of pixels.")
        if self.border not in BORDERS:
            raise InputError(f"border of Deblur is {shown(self.border)}; expected one of {', '.join(BORDERS)}.")

    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        region, canvas, paste = of_centre(picture, codec)
        std, most = self.std * canvas.shape[0] / region.height, max(canvas.shape[:2]) / 2
        if std > most:
            raise InputError(
                f"std of Deblur is {self.std}, which is {std:.3g} pixels of the model for {picture.name}; expected at "
                f"most {most:g}, half of the model's side."
            )
        operator = Blur(std, self.border)
        y = np.asarray(_encoded(canvas, codec)[0])
        known, about = _nothing_known(canvas.shape), {"region": region._asdict()}
        return Plan(canvas, known, _WHOLE, paste, paste.base, operator, y, self.noise(picture, codec), about)


@dataclasses.dataclass(frozen=True, eq=False)
class Sharpen(Measured):
    """`Sharpen` draws the fine details anew; means of blocks of pixels, at the model's size, stay as they are.

    No blur needs to be known: details below the block size are not used.

    Attributes:
        factor: side of the blocks in pixels of the model; it divides both sides.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_factor("Sharpen", self.factor)

    def check(self, codec: Codec) -> None:
        _check_divides("Sharpen", self.factor, codec)

    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        region, canvas, paste = of_centre(picture, codec)
        operator, known = Downsample(self.factor), _nothing_known(canvas.shape)
        y, about = _measured(operator, canvas, codec), {"region": region._asdict()}
        blocks = np.asarray(operator(jnp.asarray(canvas)[None])[0])
        seen = paste(blocks.repeat(self.factor, axis=0).repeat(self.factor, axis=1), picture, codec)
        return Plan(canvas, known, _WHOLE, paste, seen, operator, y, self.noise(picture, codec), about)


@dataclasses.dataclass(frozen=True, eq=False)
class SuperResolve(Measured):
    """`SuperResolve` enlarges a small picture to the size of the model.

    The pixels of the picture are means of blocks of factor x factor pixels of the answers, or bicubic means.

    Attributes:
        factor: the enlargement; the picture has the size of the model divided by it.
        kind: 'average' or 'bicubic', as in `inverse.Downsample`.
    """

    factor: int = 2
    kind: str = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_factor("SuperResolve", self.factor)
        if self.kind not in ("average", "bicubic"):
            raise InputError(f"kind of SuperResolve is {shown(self.kind)}; expected 'average' or 'bicubic'.")

    def check(self, codec: Codec) -> None:
        _check_divides("SuperResolve", self.factor, codec)

    def plan(self, picture: Picture, number: int, codec: Codec) -> Plan:
        shape, (height, width) = codec.data_shape, picture.size
        small = (shape[0] // self.factor, shape[1] // self.factor)
        if (height, width) != small:
            raise InputError(
                f"{picture.name} has {width} x {height} pixels; SuperResolve with factor {self.factor} expects "
                f"{small[1]} x {small[0]}, the model's size divided by the factor: resize or cut the picture."
            )
        values = picture.values(codec)
        y = np.asarray(_encoded(_padded(values, shape), codec)[0])[:height, :width]
        pixels = as_wide(picture.pixels, shape[2])
        seen = pixels.repeat(self.factor, axis=0).repeat(self.factor, axis=1)
        paste = Paste(seen, np.ones(shape[:2]), Region(0, 0, shape[0], shape[1]), seen)
        operator, known = Downsample(self.factor, self.kind), _nothing_known(shape)
        canvas, noise = resized(values, shape[:2]), self.noise(picture, codec)
        return Plan(canvas, known, _WHOLE, paste, seen, operator, y, noise, {"size": [shape[1], shape[0]]})


def _padded(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values in the shape that a codec expects, with the given ones at the beginning."""
    return np.pad(values, [(0, whole - own) for whole, own in zip(shape, values.shape, strict=True)], mode="edge")


def _check_factor(name: str, factor: int) -> None:
    if not is_whole(factor, 2):
        raise InputError(f"factor of {name} is {shown(factor)}; expected a whole number, at least 2.")


def _check_divides(name: str, factor: int, codec: Codec) -> None:
    """Raise InputError unless a factor divides both sides of the model."""
    height, width = codec.data_shape[:2]
    if height % factor or width % factor:
        raise InputError(
            f"factor of {name} is {factor}, and the model has {width} x {height} pixels; expected a divisor of both."
        )


__all__ = ["Colourise", "Deblur", "Sharpen", "SuperResolve"]
