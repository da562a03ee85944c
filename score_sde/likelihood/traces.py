"""This module computes traces of Jacobians, with the values of the function in the same evaluation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array

# A function of x, (*shape), with several values in the shape of x: (number, *shape).
Values = Callable[[Array], Array]


def values_and_traces(values: Values, x: Array, tangents: Array | None, chunk: int) -> tuple[Array, Array]:
    """Return values(x), (number, *shape), and the trace of the Jacobian of each value, (number, probes).

    Args:
        values: the function.
        x: the point, (*shape).
        tangents: probes e, (probes, *shape), for the estimates e^T J e (Hutchinson 1990); None for the exact trace,
            which is one probe here.
        chunk: number of tangents that the exact trace computes at once.
    """
    return _exact(values, x, chunk) if tangents is None else _hutchinson(values, x, tangents)


def _hutchinson(values: Values, x: Array, tangents: Array) -> tuple[Array, Array]:
    value, pushed = jax.vmap(lambda e: jax.jvp(values, (x,), (e,)), out_axes=(None, 0))(tangents)
    return value, jnp.sum(tangents[:, None] * pushed, axis=tuple(range(2, pushed.ndim))).T


def _exact(values: Values, x: Array, chunk: int) -> tuple[Array, Array]:
    value, push = jax.linearize(values, x)

    def diagonal(i: Array) -> Array:
        return push(jnp.zeros(x.size, x.dtype).at[i].set(1).reshape(x.shape)).reshape(len(value), -1)[:, i]

    entries = jax.lax.map(diagonal, jnp.arange(x.size), batch_size=min(chunk, x.size))
    return value, jnp.sum(entries, axis=0)[:, None]
