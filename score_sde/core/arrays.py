"""This module handles arrays whose leading axis is the batch, and values that may be traced."""

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
    """Return a whole number as a float, and any other value unchanged: compiled programs fix integers as constants."""
    return float(value) if isinstance(value, int) else value


def is_concrete(*values: Any) -> bool:
    """Return whether every value is known on the host, so that a check can read it (False during tracing)."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def as_array(values: Any, name: str) -> np.ndarray:
    """Return the values that a user gives as a NumPy array of any dtype.

    Raises:
        InputError: for nested lists of different lengths, and for random keys.
    """
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is not an array: its entries have different lengths.") from error
    except TypeError as error:
        raise InputError(f"{name} is a {type(values).__name__} that is not an array of numbers.") from error


def split_arrays(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return (the arrays of a pytree as a list, a function that rebuilds the pytree from a list of arrays)."""
    leaves, structure = jax.tree.flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

    def join(arrays: list[Any]) -> Any:
        whole = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            whole[place] = array
        return jax.tree.unflatten(structure, whole)

    return [leaves[place] for place in places], join


def same_structure(a: Any, b: Any) -> bool:
    """Return whether two pytrees have the same structure; their leaves may differ."""
    return bool(jax.tree.structure(a) == jax.tree.structure(b))  # type: ignore[operator]


def to_time(t: ArrayLike) -> Array:
    """Return `t` as an array of at least float32: a coefficient in bfloat16 would have an error of 0.4 %."""
    t = jnp.asarray(t)
    if jnp.issubdtype(t.dtype, jnp.floating) and t.dtype.itemsize >= 4:
        return t
    return t.astype(jnp.float32)


@jax.custom_jvp
def expm1(x: Array) -> Array:
    """Return exp(x) - 1 with derivative exp(x): JAX computes expm1(x) + 1, which is only rounding error for x << 0."""
    return jnp.expm1(x)


expm1.defjvps(lambda tangent, _, x: tangent * jnp.exp(x))


def expand(coefficient: ArrayLike, x: Array) -> Array:
    """Reshape a coefficient of shape () or (batch,) to multiply x of shape (batch, *shape).

    The result has the dtype of x if x is float32 or wider.
    """
    c = jnp.asarray(coefficient)
    if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize >= 4:
        c = c.astype(x.dtype)
    return c.reshape(c.shape + (1,) * (x.ndim - 1)) if c.ndim else c


def per_example_sum(x: Array) -> Array:
    """Return the sum over every axis except the first: (batch, *shape) -> (batch,)."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def per_example_mean(x: Array) -> Array:
    """Return the mean over every axis except the first: (batch, *shape) -> (batch,)."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of values (n,) and its standard error, which is NaN for one value."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(error)


def dimensions(x: Array) -> int:
    """Return the number of dimensions of one example of x, where x has shape (batch, *shape)."""
    return int(np.prod(x.shape[1:]))
