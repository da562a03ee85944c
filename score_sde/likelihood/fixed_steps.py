"""This module solves the probability flow and its divergence with fixed steps and one evaluation for each time.

With D_1 = x_0 and D_2 = noise, the two halves of a prediction, the flow and its divergence are

    dx = D_1 dalpha + D_2 dsigma,   d(integral of div v) = tr(dD_1/dx) dalpha + tr(dD_2/dx) dsigma.

Both halves are bounded where alpha or sigma is 0. A step replaces each half, and its trace, by the polynomial through
its last values in the node of `_node`, and integrates the polynomial exactly against dalpha and dsigma: a predictor of
Adams-Bashforth's kind, and a corrector of Adams-Moulton's kind once the values at the end of the step are known. The
values are not computed again after the corrector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.precision import products
from score_sde.sampling.interpolation import POINTS, WEIGHTS, weights
from score_sde.sde import SDE

# Two values of each half: (t, x) -> (x_0 and noise, (2, *x.shape); their traces, (2, batch, probes)).
Halves = Callable[[Array, Array], tuple[Array, Array]]

ORDER = 3  # number of values of the predictor; the corrector has one more


class _Memory(NamedTuple):
    """`_Memory` holds the last values of both halves and of their traces, the newest first, and their nodes."""

    values: tuple[Array, Array]
    nodes: Array
    known: Array

    def with_newest(self, values: tuple[Array, Array], node: Array) -> _Memory:
        both = jax.tree.map(lambda new, old: jnp.concatenate([new[None], old]), values, self.values)
        return _Memory(both, jnp.concatenate([node[None], self.nodes]), self.known + 1)

    def newest(self, number: int) -> _Memory:
        values, nodes = jax.tree.map(lambda leaf: leaf[:number], (self.values, self.nodes))
        return _Memory(values, nodes, jnp.minimum(self.known, number))


def solve(
    halves: Halves, sde: SDE, x: Array, probes: int, grid: Array, precision: str = "highest"
) -> tuple[Array, Array]:
    """Return (x at the last time, the integral of the divergence for each probe, (batch, probes)).

    To be called inside jit. The global error falls as steps^-3 or faster on a grid whose steps change smoothly.

    Args:
        halves: function (t, x) -> (both halves of the prediction, (2, *x.shape); their traces, (2, batch, probes)).
        sde: the SDE.
        x: the state at the first time of the grid, (batch, *shape).
        probes: number of traces.
        grid: rising times, (steps + 1,); every time costs one evaluation.
        precision: precision of float32 products, as in `core.precision.products`.
    """

    def step(
        carry: tuple[tuple[Array, Array], _Memory], ends: tuple[Array, Array]
    ) -> tuple[tuple[tuple[Array, Array], _Memory], None]:
        start, memory = carry
        t, s = ends
        x_s, _ = _added(sde, start, memory, t, s)
        memory = memory.with_newest(halves(s, x_s), _node(sde, s))
        return (_added(sde, start, memory, t, s), memory.newest(ORDER)), None

    with products(precision):
        first = halves(grid[0], x)
        zeros = jax.tree.map(lambda leaf: jnp.zeros((ORDER - 1, *leaf.shape), leaf.dtype), first)
        empty = _Memory(zeros, jnp.zeros(ORDER - 1, x.dtype), jnp.zeros((), jnp.int32))
        start = x, jnp.zeros((len(x), probes), x.dtype)
        memory = empty.with_newest(first, _node(sde, grid[0]))
        (end, _), _ = jax.lax.scan(step, (start, memory), (grid[:-1], grid[1:]))
    return end


def _added(sde: SDE, start: tuple[Array, Array], memory: _Memory, t: Array, s: Array) -> tuple[Array, Array]:
    """Return the state at s: the state at t and the integrals of the polynomials through the values in memory."""
    first = _node(sde, t)
    length = _node(sde, s) - first
    positions = (memory.nodes - first) / length
    points, quadrature = (jnp.asarray(a, t.dtype) for a in (POINTS, WEIGHTS))
    # The rates grow as t^-1/2 near the data, and in u = sqrt(t) they are bounded.
    u, width = jnp.sqrt(t) + points * (jnp.sqrt(s) - jnp.sqrt(t)), jnp.sqrt(s) - jnp.sqrt(t)
    v = (_node(sde, u**2) - first) / length
    wholes = sde.alpha(s) - sde.alpha(t), sde.sigma(s) - sde.sigma(t)

    def weights_of(rate: Array, whole: Array) -> Array:
        def moments(number: int) -> list[Array]:
            return [whole, *(jnp.sum(quadrature * 2 * u * width * rate * v**k) for k in range(1, number))]

        return weights(positions, memory.known, moments)

    both = jnp.stack([weights_of(*pair) for pair in zip(sde.velocity_rates(u**2), wholes, strict=True)], axis=1)
    return jax.tree.map(lambda y, values: y + jnp.tensordot(both.astype(y.dtype), values, 2), start, memory.values)


def _node(sde: SDE, t: Array) -> Array:
    """Return the variable in which the halves are interpolated, in the shape of t.

    log(sigma / alpha) grows without bound where alpha or sigma is 0. The node equals it between the noise levels 1e-3
    and 1e2, and is bounded.
    """
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return jnp.log((sigma + 1e-3 * alpha) / (alpha + 1e-2 * sigma))
