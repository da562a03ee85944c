"""This module counts the network evaluations, or the vector-Jacobian products, of a step while the step is traced."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.denoisers import Denoiser

_counts_vjps: contextvars.ContextVar[bool] = contextvars.ContextVar("counts_vjps", default=False)


def evaluations(denoiser: Denoiser, x: Array, *times: Array) -> Array:
    """Return the nfe, int32 (batch,), of a step that evaluates the denoiser at times of shape () or (batch,).

    Within `counting_vjps`, return the number of vector-Jacobian products in place of the nfe.
    """
    total = jnp.zeros(x.shape[:1], jnp.int32)
    for t in times:
        total = total + (denoiser.vjps(t) if _counts_vjps.get() else denoiser.evaluations(t))
    return total


def own_vjps(x: Array, count: int) -> Array:
    """Return what a step adds to its nfe for vector-Jacobian products of its own: 0, within `counting_vjps` `count`."""
    return jnp.full(x.shape[:1], count if _counts_vjps.get() else 0, jnp.int32)


@contextlib.contextmanager
def counting_vjps() -> Iterator[None]:
    """Let the steps that are traced in this context return the number of vector-Jacobian products as their nfe."""
    token = _counts_vjps.set(True)
    try:
        yield
    finally:
        _counts_vjps.reset(token)
