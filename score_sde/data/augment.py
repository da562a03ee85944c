"""This module defines the augmentation of Karras et al. 2022: training changes examples at random."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.checks import is_number, require_number, shown
from score_sde.core.conditions import Cond, Condition
from score_sde.core.errors import InputError
from score_sde.data.conditioning import ComputedCondition

NAME = "augment"
_GEOMETRY, _COLOUR = 9, 6  # how many numbers describe each group of changes
# Standard deviations: Karras et al. 2022, appendix F.2; for colours Karras et al. 2020 (ADA).
_SCALE, _TRANSLATE, _BRIGHTNESS, _CONTRAST, _SATURATION = 0.2, 0.125, 0.2, 0.5, 1.0
_FINER = 2  # samples per pixel in each direction when an image is transformed


@dataclasses.dataclass(frozen=True)
class Augment(ComputedCondition):
    """`Augment` changes images at random in training, and gives the changes to the network as a condition.

    The changes are: mirror, turn upside down, scale, rotate, stretch, shift, and change colours.

    The network reads the changes in the condition `augment`, which is 0 for an unchanged example. At sampling time
    `augment` is absent, so that samples are not augmented (arXiv:2206.00364, appendix F.2; colours as in
    arXiv:2006.06676). If the network does not read `augment`, samples look like the augmented examples.

    Geometry has 9 numbers: mirrored (0 or 1), upside down (0 or 1), log2(scale) / 0.2, cos(rotation) - 1,
    sin(rotation), the stretch times cos and sin of its direction, and two shifts in units of an eighth of the side.
    Colour has 6 more numbers: brightness, contrast, whether lightness is inverted (0 or 1), cos(hue rotation) - 1,
    sin(hue rotation), and saturation.

    Attributes:
        probability: probability of each change except the mirror; half of it for upside down and inversion.
        mirror: probability that an image is mirrored left to right; 0 for letters, digits and faces seen from one side.
        colour: whether colours are changed.
        maximum: largest value of the data, such as 255.
    """

    probability: float = 0.12
    mirror: float = 0.5
    colour: bool = False
    maximum: float = 255.0

    def __post_init__(self) -> None:
        for name in ("probability", "mirror"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= 1:
                raise InputError(f"{name} of Augment is {shown(value)}; expected a probability.")
        require_number("maximum of Augment", self.maximum)
        if not isinstance(self.colour, bool):
            raise InputError(f"colour of Augment is {shown(self.colour)}; expected True or False.")

    @property
    def conditions(self) -> Mapping[str, Condition]:
        return {NAME: Condition(shape=(_GEOMETRY + _COLOUR * self.colour,))}

    def make(self, values: Array, cond: Cond, keys: Array) -> Cond:
        """Return `cond` with the condition `augment` of unchanged examples."""
        (size,) = self.conditions[NAME].shape
        return {**(cond or {}), NAME: jnp.zeros((len(values), size))}

    def augmented(self, values: Array, cond: Cond, keys: Array) -> tuple[Array, Cond]:
        """Return the changed examples, and `cond` with the changes of each example."""
        if values.ndim != 4:
            raise InputError(f"Augment is for images, and examples have shape {values.shape[1:]}: remove Augment.")
        changed, labels = jax.vmap(self._one)(values.astype(jnp.float32), keys)
        return changed, {**(cond or {}), NAME: labels}

    def _one(self, image: Array, key: Array) -> tuple[Array, Array]:
        matrix, labels = self._geometry(_named(key, "geometry"))
        moved = transformed(image, matrix)
        image = jnp.where((labels == 0).all(), image, moved)
        if not self.colour:
            return image, labels
        colours, more = self._colours(_named(key, "colour"))
        rgb = image[..., :3] / self.maximum * 2 - 1
        if rgb.shape[-1] == 1:
            rgb = jnp.broadcast_to(rgb, (*rgb.shape[:2], 3))
        mixed = jnp.einsum("ij,hwj->hwi", colours[:3, :3], rgb) + colours[:3, 3]
        mixed = (mixed + 1) / 2 * self.maximum
        mixed = mixed.mean(-1, keepdims=True) if image.shape[-1] == 1 else mixed
        mixed = jnp.concatenate([mixed, image[..., mixed.shape[-1] :]], -1)
        return jnp.where((more == 0).all(), image, mixed), jnp.concatenate([labels, more])

    def _drawn(self, key: Array, name: str, draw: str, count: int = 1, probability: float | None = None) -> Array:
        """Draw the numbers of one change; all numbers are 0 if the change is not made."""
        here = _named(key, name)
        made = jax.random.bernoulli(_named(here, "made"), self.probability if probability is None else probability)
        how = _named(here, "how")
        if draw == "normal":
            numbers = jax.random.normal(how, (count,))
        elif draw == "angle":
            numbers = jax.random.uniform(how, (count,), minval=-math.pi, maxval=math.pi)
        else:
            numbers = jnp.ones(count)
        return jnp.where(made, numbers, 0.0)

    def _geometry(self, key: Array) -> tuple[Array, Array]:
        """Draw the geometry: (matrix from result positions to source positions, both in [-1, 1]; 9 numbers)."""
        draw = functools.partial(self._drawn, key)
        (mirror,), (turn,) = (
            draw("mirror", "flip", probability=self.mirror),
            draw("turn", "flip", probability=self.probability / 2),
        )
        (scale,), (angle,) = draw("scale", "normal"), draw("rotate", "angle")
        (stretch,), (direction,) = draw("stretch", "normal"), draw("direction", "angle", probability=1.0)
        shift = draw("shift", "normal", 2)
        labels = jnp.stack(
            [mirror, turn, scale, jnp.cos(angle) - 1, jnp.sin(angle)]
            + [stretch * jnp.cos(direction), stretch * jnp.sin(direction), *shift]
        )
        larger = 2 ** (_SCALE * stretch)
        # Each factor is the inverse of a change: the product gives the source position of a pixel of the result.
        return (
            _diagonal(1 - 2 * mirror, 1 - 2 * turn)
            @ _diagonal(2 ** (-_SCALE * scale), 2 ** (-_SCALE * scale))
            @ _rotation(-angle)
            @ _rotation(direction)
            @ _diagonal(1 / larger, larger)
            @ _rotation(-direction)
            @ _shift(-2 * _TRANSLATE * shift)
        ), labels

    def _colours(self, key: Array) -> tuple[Array, Array]:
        """Draw the colour changes: (matrix on (red, green, blue, 1) on the scale [-1, 1]; 6 numbers)."""
        draw = functools.partial(self._drawn, key)
        (brightness,), (contrast,) = draw("brightness", "normal"), draw("contrast", "normal")
        (invert,) = draw("invert", "flip", probability=self.probability / 2)
        (hue,), (saturation,) = draw("hue", "angle"), draw("saturation", "normal")
        grey = jnp.full(3, 1 / math.sqrt(3))
        onto = jnp.outer(grey, grey)
        rest = jnp.eye(3) - onto
        cross = jnp.array([[0, -grey[2], grey[1]], [grey[2], 0, -grey[0]], [-grey[1], grey[0], 0]])
        mix = jnp.eye(3) * 2 ** (_CONTRAST * contrast)
        mix = (jnp.eye(3) - 2 * invert * onto) @ mix
        mix = (onto + jnp.cos(hue) * rest + jnp.sin(hue) * cross) @ mix
        mix = (onto + 2 ** (_SATURATION * saturation) * rest) @ mix
        brighter = jnp.eye(4).at[:3, 3].set(_BRIGHTNESS * brightness)
        whole = jnp.eye(4).at[:3, :3].set(mix) @ brighter
        labels = jnp.stack([brightness, contrast, invert, jnp.cos(hue) - 1, jnp.sin(hue), saturation])
        return whole, labels


def _named(key: Array, name: str) -> Array:
    """Return the random key of one purpose, derived from the key of one example."""
    return jax.random.fold_in(key, keys_.number(name))


def _diagonal(x: Array, y: Array) -> Array:
    return jnp.diag(jnp.stack([x, y, jnp.ones(())]))


def _rotation(angle: Array) -> Array:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin, 0 * cos]), jnp.stack([sin, cos, 0 * cos]), jnp.array([0.0, 0.0, 1.0])])


def _shift(by: Array) -> Array:
    return jnp.eye(3).at[:2, 2].set(by)


def transformed(image: Array, matrix: Array) -> Array:
    """Return an image whose pixel at p = (x, y, 1) is the local mean of `image` around matrix @ p.

    Positions range from -1 to 1 across the shorter side, with y downwards. `image` is reflected at its edges. Each
    pixel is the mean of 2 x 2 bilinear samples, so that an image that is scaled down does not alias.

    Args:
        image: image of shape (height, width, channels).
        matrix: matrix of shape (3, 3).
    """
    height, width = image.shape[:2]
    half = min(height, width) / 2
    inside = (jnp.arange(_FINER) + 0.5) / _FINER - 0.5
    y = (jnp.arange(height)[:, None] + inside).ravel()
    x = (jnp.arange(width)[:, None] + inside).ravel()
    yy, xx = jnp.meshgrid((y - (height - 1) / 2) / half, (x - (width - 1) / 2) / half, indexing="ij")
    from_x, from_y, _ = jnp.einsum("ij,jhw->ihw", matrix, jnp.stack([xx, yy, jnp.ones_like(xx)]))
    places = [from_y * half + (height - 1) / 2, from_x * half + (width - 1) / 2]

    def one(channel: Array) -> Array:
        fine = jax.scipy.ndimage.map_coordinates(channel, places, order=1, mode="mirror")
        return fine.reshape(height, _FINER, width, _FINER).mean((1, 3))

    return jax.vmap(one, in_axes=2, out_axes=2)(image)
