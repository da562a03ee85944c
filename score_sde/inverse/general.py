"""This module defines operators from a matrix or a function, and operators made of operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_array
from score_sde.core.checks import as_shape, shown
from score_sde.core.conditions import Cond, Condition, Conditions
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.inverse.operators import Operator


class Linear(Operator):
    """`Linear` multiplies each flattened example by a matrix: y = A x, shape (rows,).

    Args:
        matrix: A, shape (rows, columns).
        shape: the shape of an example, with `columns` numbers; None for (columns,).
    """

    matrix: np.ndarray
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, matrix: ArrayLike, shape: Sequence[int] | None = None) -> None:
        array = as_array(matrix, "matrix of Linear")
        if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.size or not np.isfinite(array).all():
            raise InputError(f"matrix of Linear is {shown(matrix)}; expected finite numbers of shape (rows, columns).")
        self.matrix = array.astype(float)
        self.shape = (array.shape[1],) if shape is None else as_shape("shape of Linear", shape)
        if math.prod(self.shape) != array.shape[1]:
            raise InputError(f"shape of Linear is {self.shape}; expected {array.shape[1]} numbers, as A has columns.")

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        if math.prod(x.shape[1:]) != self.matrix.shape[1]:
            raise InputError(f"Linear got examples of shape {x.shape[1:]}; expected {self.matrix.shape[1]} numbers.")
        flat = x.reshape(len(x), -1)
        return jnp.matmul(flat, jnp.asarray(self.matrix.T, x.dtype), precision=jax.lax.Precision.HIGHEST)

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.shape


class Function(Operator):
    """`Function` applies a function of one example: y = function(x).

    Attributes:
        function: a function of jax.numpy, from an array of `shape` to an array.
        shape: the shape of an example.
        affine: whether the function is linear or affine; otherwise methods linearise it at the predicted x_0, or use
            its gradient, and no method is exact.
    """

    function: Callable[[Array], Array] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True, converter=lambda shape: as_shape("shape of Function", shape))
    affine: bool = eqx.field(default=True, static=True)

    def __check_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"function of Function is {shown(self.function)}; expected a function of one example.")
        if not isinstance(self.affine, bool):
            raise InputError(f"affine of Function is {shown(self.affine)}; expected True or False.")

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        return jax.vmap(self.function)(x)

    @property
    def is_affine(self) -> bool:
        return self.affine

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.shape


class Chain(Operator):
    """`Chain` applies several operators, the first one first: Chain(Blur(1.0), Mask()) masks a blurred image.

    Args:
        *parts: the operators. At most the last one may hide numbers of its output.
    """

    parts: tuple[Operator, ...]

    def __init__(self, *parts: Operator) -> None:
        if not parts or not all(isinstance(part, Operator) for part in parts):
            raise InputError(f"Chain got {shown(parts)}; expected operators, such as Blur(1.0), Downsample(2).")
        self.parts = parts

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        for part in self.parts:
            x = part(x, cond)
        return x

    @property
    def is_affine(self) -> bool:
        return all(part.is_affine for part in self.parts)

    def reads(self, shape: tuple[int, ...] | None) -> Conditions:
        declared: dict[str, Condition] = {}
        for part in self.parts:
            declared |= dict(part.reads(shape))
            shape = None if shape is None else part.measured_shape(shape)
        return Conditions(declared)

    def range_of(self, low: float, high: float) -> tuple[float, float] | None:
        possible: tuple[float, float] | None = (low, high)
        for part in self.parts:
            possible = None if possible is None else part.range_of(*possible)
        return possible

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for part in reversed(self.parts):
            shape = part.input_shape(shape)
        return shape

    def residual(self, x: Array, y: Array, cond: Cond = None) -> Array:
        for part in self.parts[:-1]:
            x = part(x, cond)
        return self.parts[-1].residual(x, y, cond)

    def measured(self, y: Array, cond: Cond = None) -> Array:
        return self.parts[-1].measured(y, cond)


class Through(Operator):
    """`Through` applies an operator to the data's own values: y = A decode(x).

    y and its noise are then in the units of the data, such as 0 to 255. The operator is affine if decode is.

    Attributes:
        operator: the operator on the data's own values.
        codec: the codec of the data.
    """

    operator: Operator
    codec: Codec

    def __check_init__(self) -> None:
        if not isinstance(self.operator, Operator) or not isinstance(self.codec, Codec):
            raise InputError(
                f"Through got {shown(self.operator)} and {shown(self.codec)}; expected an operator and a codec, such "
                "as model.codec."
            )

    def __call__(self, x: Array, cond: Cond = None) -> Array:
        return self.operator(self.codec.decode(x), cond)

    @property
    def is_affine(self) -> bool:
        return self.operator.is_affine

    def reads(self, shape: tuple[int, ...] | None) -> Conditions:
        return self.operator.reads(self.codec.data_shape)

    def range_of(self, low: float, high: float) -> tuple[float, float] | None:
        ends = (np.asarray(self.codec.decode(jnp.full((1, *self.codec.model_shape), end))) for end in (low, high))
        return self.operator.range_of(*(float(end.mean()) for end in ends))

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.codec.model_shape

    def residual(self, x: Array, y: Array, cond: Cond = None) -> Array:
        return self.operator.residual(self.codec.decode(x), y, cond)

    def measured(self, y: Array, cond: Cond = None) -> Array:
        return self.operator.measured(y, cond)


__all__ = ["Chain", "Function", "Linear", "Through"]
