"""This module solves symmetric positive definite systems, one for each example of a batch, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array, expand, per_example_sum

_SKEWED = 0.2  # cosine of two residuals in a row, above which the matrix counts as not symmetric


class _State(NamedTuple):
    taken: Array
    solution: Array
    residual: Array
    direction: Array
    size: Array
    active: Array


def conjugate_gradients(
    apply: Callable[[Array], Array], b: Array, iterations: int, tolerance: float | None = None
) -> Array:
    """Return z with apply(z) = b for each example, (batch, *shape), by conjugate gradients from z = 0.

    An example stops when |b - apply(z)| <= tolerance |b|; when the curvature along its direction is not positive; or
    when two residuals in a row, which are orthogonal if the matrix is symmetric, are not: the matrix of a trained
    network need not be symmetric, and further iterations would diverge. The iterate of such an iteration is kept if its
    residual is smaller than the one before. The z of an example that has stopped does not change, so that the result
    does not depend on the batch. The loop ends when no example is active, or after `iterations`.

    Args:
        apply: a linear function of a batch, which does not mix examples.
        b: right-hand sides, (batch, *shape).
        iterations: the largest number of iterations.
        tolerance: relative tolerance of the residual; None for eps^(2/3) of the dtype of b: 2.4e-5 in float32.
    """
    bound = float(jnp.finfo(b.dtype).eps) ** (2 / 3) if tolerance is None else tolerance
    size = per_example_sum(b**2)
    # The square of a tiny number is 0; such a right-hand side has the solution 0.
    goal = jnp.asarray(bound, b.dtype) ** 2 * size

    def improve(state: _State) -> _State:
        taken, z, r, p, rr, active = state
        a_p = apply(p)
        curvature = per_example_sum(p * a_p)
        active = active & (curvature > 0)
        step = jnp.where(active, rr / jnp.where(curvature > 0, curvature, 1), 0)
        further = r - expand(step, r) * a_p
        after = per_example_sum(further**2)
        skewed = jnp.abs(per_example_sum(further * r)) > _SKEWED * jnp.sqrt(after * rr)
        # Where two residuals are not orthogonal, a larger residual is not kept.
        taken_back = skewed & (after > rr)
        step, after = jnp.where(taken_back, 0, step), jnp.where(taken_back, rr, after)
        z, r = z + expand(step, z) * p, r - expand(step, r) * a_p
        ratio = jnp.where(active, after / jnp.where(rr > 0, rr, 1), 0)
        p = jnp.where(expand(active, p), r + expand(ratio, p) * p, p)
        rr = jnp.where(active, after, rr)
        return _State(taken + 1, z, r, p, rr, active & ~skewed & (rr > goal))

    def unfinished(state: _State) -> Array:
        return jnp.any(state.active) & (state.taken < iterations)

    start = _State(jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, b, size, size > 0)
    return jax.lax.while_loop(unfinished, improve, start).solution
