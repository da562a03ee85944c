"""Arrays whose leading axis is the batch, and values that may or may not be known yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.errors import InputError

Array = jax.Array


def as_float(value: Any) -> Any:
    """A whole number as a float, anything else as it is: integers would be fixed in a compiled program."""
    return float(value) if isinstance(value, int) else value


def is_concrete(*values: Any) -> bool:
    """Whether every value is known on the host, so that it can be checked (False while tracing)."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def as_array(values: Any, name: str) -> np.ndarray:
    """What a person gives as an array of the host, of any dtype.

    Raises:
        InputError: for nested lists of different lengths, and for random keys.
    """
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is no array: its entries have different lengths.") from error
    except TypeError as error:
        raise InputError(f"{name} is a {type(values).__name__} that is no array of numbers.") from error


def split_arrays(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """(the arrays of a pytree as a list, the function that puts such a list into their places again)."""
    leaves, structure = jax.tree.flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

    def join(arrays: list[Any]) -> Any:
        whole = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            whole[place] = array
        return jax.tree.unflatten(structure, whole)

    return [leaves[place] for place in places], join


def same_structure(a: Any, b: Any) -> bool:
    """Whether two pytrees differ in their leaves only."""
    return bool(jax.tree.structure(a) == jax.tree.structure(b))  # type: ignore[operator]


def to_time(t: ArrayLike) -> Array:
    """`t` as an array of at least float32: a coefficient in bfloat16 would be wrong by 0.4 %."""
    t = jnp.asarray(t)
    if jnp.issubdtype(t.dtype, jnp.floating) and t.dtype.itemsize >= 4:
        return t
    return t.astype(jnp.float32)


@jax.custom_jvp
def expm1(x: Array) -> Array:
    """exp(x) - 1, whose derivative is exp(x): JAX takes it as expm1(x) + 1, which is all rounding where x << 0."""
    return jnp.expm1(x)


expm1.defjvps(lambda tangent, _, x: tangent * jnp.exp(x))


def expand(coefficient: ArrayLike, x: Array) -> Array:
    """A coefficient of shape () or (batch,) made to multiply x of shape (batch, *shape), in x's dtype."""
    c = jnp.asarray(coefficient)
    if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize >= 4:
        c = c.astype(x.dtype)
    return c.reshape(c.shape + (1,) * (x.ndim - 1)) if c.ndim else c


def per_example_sum(x: Array) -> Array:
    """Sum over every axis but the first: (batch, *shape) -> (batch,)."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def per_example_mean(x: Array) -> Array:
    """Mean over every axis but the first: (batch, *shape) -> (batch,)."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def dimensions(x: Array) -> int:
    """The number of dimensions of one example of x, shape (batch, *shape)."""
    return int(np.prod(x.shape[1:]))
