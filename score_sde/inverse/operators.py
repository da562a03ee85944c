"""This module defines operators, which map data to what is measured: y = A x_0 + noise.

An operator acts on a batch of examples on the model's scale. Most operators are linear; `Through` is affine.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_array
from score_sde.core.checks import is_number, is_whole, shown
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.inverse.measurement import MASK, Seen

BORDERS = {"reflect": "reflect", "circular": "wrap", "zero": "constant", "edge": "edge"}


class Operator(eqx.Module):
    """`Operator` maps a batch of examples, (batch, *shape), to measurements without noise, (batch, *measured shape).

    To add an operator, subclass `Operator` and define `__call__` with jax.numpy. Define `input_shape` if measurements
    have another shape than examples, and `is_affine` if the operator is not affine. Everything else follows:
    the adjoint of the linear part is computed by transposition. `score_sde.verify` checks an operator.
    """

    @abc.abstractmethod
    def __call__(self, x: Array, cond: Cond = None) -> Array:
        """Return A x of each example; `cond` has the conditions that `reads` declares."""

    @property
    def is_affine(self) -> bool:
        """Return whether A(x) = A x + b, with a linear A."""
        return True

    def reads(self, shape: tuple[int, ...] | None) -> Conditions:
        """Return the conditions that the operator reads for examples of this shape; None for an unknown shape."""
        return Conditions()

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an example whose measurement has this shape."""
        return shape

    def scale(self, shape: tuple[int, ...]) -> float | None:
        """Return c if A A^T = c I on the measured numbers, for examples of this shape; otherwise None."""
        return None

    def range_of(self, low: float, high: float) -> tuple[float, float] | None:
        """Return the range of A x for x between `low` and `high`, or None if it is not known."""
        return None

    def residual(self, x: Array, y: Array, cond: Cond = None) -> Array:
        """Return y - A x, and 0 for numbers of y that are not measured."""
        return y - self(x, cond)

    def measured(self, y: Array, cond: Cond = None) -> Array:
        """Return 1 for each number of y that is measured, and 0 for others, in the shape of y."""
        return jnp.ones_like(y)

    def measured_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the measurement of an example of this shape, or raise InputError if there is none."""
        like = {name: condition.like(1) for name, condition in self.reads(shape).items()}
        try:
            out = jax.eval_shape(self, jax.ShapeDtypeStruct((1, *shape), float), like or None)
        except InputError:
            raise
        except Exception as error:  # a function of the user may raise any error
            raise InputError(f"{type(self).__name__} cannot measure examples of shape {shape}: {error}.") from error
        return tuple(out.shape[1:])

    def adjoint(self, y: Array, cond: Cond = None) -> Array:
        """Return A^T y of the linear part, (batch, *shape): <A x, y> = <x, A^T y> for all x.

        Raises:
            InputError: if the operator is not affine.
        """
        if not self.is_affine:
            raise InputError(f"{type(self).__name__} is not affine, so that it has no adjoint.")
        x = jnp.zeros((len(y), *self.input_shape(y.shape[1:])), jnp.result_type(y, jnp.float32))
        _, linear = jax.linearize(lambda x: self(x, cond), x)
        (result,) = jax.linear_transpose(linear, x)(y)
        return result

    # A sampler holds an operator, and the key of a compiled program holds the sampler.

    def __hash__(self) -> int:
        leaves, structure = jax.tree.flatten(self)
        return hash((type(self), structure, tuple(_plain(leaf) for leaf in leaves)))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and bool(eqx.tree_equal(self, other))


def _plain(leaf: Any) -> Any:
    return (np.shape(leaf), np.asarray(leaf).tobytes()) if hasattr(leaf, "dtype") else leaf


class Mask(Operator):
    """`Mask` keeps the numbers of x that are known, and sets the others to 0.

    y has the shape of x, and the hidden numbers of y are ignored. A A^T is the identity on the known numbers.

    Args:
        mask: True for known numbers, in the shape of an example, for all examples; None reads cond['mask'], one mask
            for each example.
    """

    mask: np.ndarray | None

    def __init__(self, mask: ArrayLike | None = None) -> None:
        if mask is not None:
            mask = Seen().fitted("mask", as_array(mask, "mask of Mask"))
            if not np.any(mask):
                raise InputError("mask of Mask is empty; expected True for at least one known number.")
            self.mask = np.asarray(mask)
        else:
            self.mask = None

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        return jnp.where(self._seen(x, cond), x, 0)

    def _seen(self, x: Array, cond: Cond) -> Array:
        if self.mask is not None:
            fits = self.mask.shape == x.shape[1:] or (x.ndim == 4 and self.mask.shape == (*x.shape[1:-1], 1))
            if not fits:
                raise InputError(f"mask of Mask has the shape {self.mask.shape}; expected {x.shape[1:]}.")
            return jnp.broadcast_to(jnp.asarray(self.mask), x.shape)
        if cond is None or MASK not in cond:
            raise InputError(f"cond has no {MASK!r}; expected True for known numbers, of shape {x.shape}.")
        mask = jnp.asarray(cond[MASK])
        if mask.shape != x.shape and not (x.ndim == 4 and mask.shape == (*x.shape[:-1], 1)):
            raise InputError(f"cond[{MASK!r}] has the shape {mask.shape}; expected {x.shape}.")
        return jnp.broadcast_to(mask, x.shape).astype(bool)

    def reads(self, shape: tuple[int, ...] | None) -> Conditions:
        if self.mask is not None:
            return Conditions()
        return Conditions({MASK: Seen(any_shape=True) if shape is None else Seen(shape=shape)})

    def scale(self, shape: tuple[int, ...]) -> float:
        return 1.0

    def range_of(self, low: float, high: float) -> tuple[float, float]:
        return low, high

    def residual(self, x: Array, y: Array, cond: Cond = None) -> Array:
        return jnp.where(self._seen(x, cond), y - x, 0)

    def measured(self, y: Array, cond: Cond = None) -> Array:
        return self._seen(y, cond).astype(y.dtype)

    def adjoint(self, y: Array, cond: Cond = None) -> Array:
        return self(y, cond)


class Gray(Operator):
    """`Gray` measures (R + G + B) / sqrt(3), the first axis of the colour basis of Song et al. 2021 (App. I.3).

    The three channels have equal weights, and A A^T = I. y has shape (height, width, 1).
    """

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        if x.shape[-1] != 3:
            raise InputError(f"Gray got examples of shape {x.shape[1:]}; expected three channels on the last axis.")
        return jnp.sum(x, axis=-1, keepdims=True) / math.sqrt(3)

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], 3)

    def scale(self, shape: tuple[int, ...]) -> float:
        return 1.0

    def range_of(self, low: float, high: float) -> tuple[float, float]:
        return math.sqrt(3) * low, math.sqrt(3) * high


class Downsample(Operator):
    """`Downsample` makes images of shape (height, width, channels) smaller by a whole factor.

    'average' is the mean of each block of factor x factor pixels: A A^T = I / factor^2. 'bicubic' is the cubic filter
    of Keys with a = -1/2, stretched by the factor, as in Pillow; the weights near a border are normalised.

    Attributes:
        factor: how many pixels of a side become one.
        kind: 'average' or 'bicubic'.
    """

    factor: int = eqx.field(static=True)
    kind: str = eqx.field(default="average", static=True)

    def __check_init__(self) -> None:
        if not is_whole(self.factor, 1) or isinstance(self.factor, bool):
            raise InputError(f"factor of Downsample is {shown(self.factor)}; expected a whole number, at least 1.")
        if not isinstance(self.kind, str) or self.kind not in ("average", "bicubic"):
            raise InputError(f"kind of Downsample is {shown(self.kind)}; expected 'average' or 'bicubic'.")

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        f = self.factor
        if x.ndim != 4 or x.shape[1] % f or x.shape[2] % f:
            raise InputError(
                f"Downsample({f}) got examples of shape {x.shape[1:]}; expected (height, width, channels), divisible "
                f"by {f}."
            )
        n, height, width, channels = x.shape
        if self.kind == "average":
            return x.reshape(n, height // f, f, width // f, f, channels).mean(axis=(2, 4))
        return jax.image.resize(x, (n, height // f, width // f, channels), "cubic", antialias=True)

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[0] * self.factor, shape[1] * self.factor, shape[2]

    def scale(self, shape: tuple[int, ...]) -> float | None:
        return 1 / self.factor**2 if self.kind == "average" else None

    def range_of(self, low: float, high: float) -> tuple[float, float]:
        return low, high


class Blur(Operator):
    """`Blur` filters images (height, width, channels) with a Gaussian along both sides.

    The filter is scipy.ndimage.gaussian_filter with mode 'mirror', 'wrap', 'constant' or 'nearest' for 'reflect',
    'circular', 'zero' or 'edge'. It has the radius round(4 std), and its weights add up to 1. Beyond the border, an
    image continues by reflection about the last pixel ('reflect'), periodically ('circular'), with zeros ('zero'), or
    with the last pixel ('edge').

    Attributes:
        std: standard deviation of the Gaussian, in pixels.
        border: 'reflect', 'circular', 'zero' or 'edge'.
    """

    std: float = eqx.field(static=True)
    border: str = eqx.field(default="reflect", static=True)

    def __check_init__(self) -> None:
        if not is_number(self.std) or not 0 < self.std < math.inf:
            raise InputError(f"std of Blur is {shown(self.std)}; expected a positive number of pixels.")
        if not isinstance(self.border, str) or self.border not in BORDERS:
            raise InputError(f"border of Blur is {shown(self.border)}; expected one of {', '.join(BORDERS)}.")

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        if x.ndim != 4:
            raise InputError(f"Blur got examples of shape {x.shape[1:]}; expected (height, width, channels).")
        x = jnp.asarray(x)
        radius = int(4 * self.std + 0.5)
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / self.std) ** 2)
        weights /= weights.sum()
        for axis in (1, 2):
            size, pad = x.shape[axis], [(0, 0)] * 4
            pad[axis] = (radius, radius)
            wide: Array = jnp.pad(x, pad, mode=BORDERS[self.border])
            parts = (weight * jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i, weight in enumerate(weights))
            x = sum(parts, start=jnp.zeros((), x.dtype))
        return x

    def range_of(self, low: float, high: float) -> tuple[float, float]:
        return (min(low, 0), max(high, 0)) if self.border == "zero" else (low, high)


__all__ = ["Blur", "Downsample", "Gray", "Mask", "Operator"]
