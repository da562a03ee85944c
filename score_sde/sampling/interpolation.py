"""This module computes the weights of methods that integrate the polynomial through values at some nodes.

Positions are relative: 0 is the start of the step and 1 is its end. With the polynomial P through values D_j at the
positions r_j, and the moments W_k of a weight function, the integral of v^k over the step,

    integral of P = sum_j w_j D_j,   w_j = sum_k c_jk W_k,

where c_jk are the coefficients of the j-th Lagrange polynomial.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array

Moments = Callable[[int], list[Array]]

# The recursion of the moments divides by z, so quadrature replaces it below this z; its error is 1e-16.
_SMALL = 1.0
_ON_MINUS_ONE_TO_ONE = np.polynomial.legendre.leggauss(8)
POINTS, WEIGHTS = (_ON_MINUS_ONE_TO_ONE[0] + 1) / 2, _ON_MINUS_ONE_TO_ONE[1] / 2  # Gauss-Legendre on [0, 1]


def exponential_moments(z: Array, number: int) -> list[Array]:
    """Return W_k = integral over [0, 1] of z e^(z (v - 1)) v^k dv for k < number; z may be infinite, where W_k = 1.

    W_0 = 1 - e^-z and W_k = 1 - (k / z) W_(k-1), in other notation k! times z phi_(k+1)(-z) with the signs of
    phi-functions.
    """
    points, weights = (jnp.asarray(a, z.dtype) for a in (POINTS, WEIGHTS))
    near = jnp.where(z < _SMALL, z, 0)
    far = jnp.where(z < _SMALL, _SMALL, z)
    moments, by_recursion = [-jnp.expm1(-z)], -jnp.expm1(-far)
    for k in range(1, number):
        by_recursion = 1 - k / far * by_recursion
        by_quadrature = near * jnp.sum(weights * jnp.exp(near * (points - 1)) * points**k)
        moments.append(jnp.where(z < _SMALL, by_quadrature, by_recursion))
    return moments


def weights(positions: Array, usable: Array, moments: Moments) -> Array:
    """Return the weight of each value, (m,), of the polynomial through the first `usable` positions; others have 0.

    Args:
        positions: positions of the values, (m,), the most important first; those after the usable ones may be anything.
        usable: how many values the polynomial goes through, int32 (), at least 1.
        moments: the moments W_0 .. W_(k-1) for a polynomial through k values.
    """
    m = len(positions)
    # Positions that are not used become distinct numbers, so that no quotient is infinite.
    places = jnp.arange(m)
    positions = jnp.where(places < usable, positions, -1.0 - 2.0 * places)
    by_number = []
    for k in range(1, m + 1):
        of_k = jnp.stack([_coefficients(positions[:k], j) for j in range(k)]) @ jnp.stack(moments(k))
        by_number.append(jnp.concatenate([of_k, jnp.zeros(m - k, of_k.dtype)]))
    return jnp.stack(by_number)[usable - 1]


def _coefficients(positions: Array, j: int) -> Array:
    """Return the coefficients of the j-th Lagrange polynomial, (k,), the constant first."""
    product = jnp.ones(1, positions.dtype)
    for i in range(len(positions)):
        if i != j:
            product = jnp.convolve(product, jnp.stack([-positions[i], jnp.ones_like(positions[i])]))
            product = product / (positions[j] - positions[i])
    return product
