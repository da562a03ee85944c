"""This module maps data to latents and back along the probability flow, and interpolates between two examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde import ode
from score_sde.core import given
from score_sde.core.arrays import Array, expand, is_concrete, per_example_sum
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.core.jit import module_jit
from score_sde.core.precision import check_precision
from score_sde.denoisers import Denoiser
from score_sde.denoisers.inputs import as_denoiser, as_points, check_shape


class Flowed(NamedTuple):
    """`Flowed` holds the result of the probability flow from given data or latents.

    Attributes:
        x: end point of the flow, shape (batch, *shape).
        nfe: network evaluations, int32 (batch,).
    """

    x: Array
    nfe: Array


def encode(
    denoiser: Denoiser,
    x: ArrayLike,
    *,
    cond: Cond = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    precision: str = "highest",
) -> Flowed:
    """Return the latents at t_max of data at t_min (Song et al. 2021, Sec. 4.3); `decode` is the inverse.

    Args:
        denoiser: the model.
        x: data on the model's scale, shape (batch, *shape).
        cond: None, or conditions by name as `denoiser.reads` declares them.
        rtol, atol: tolerances of the solve.
        precision: precision of float32 products, as in `log_prob`.

    Raises:
        InputError: for input that cannot be used.
        DivergenceError: for examples whose flow could not be solved, with their numbers.
    """
    return _carry(denoiser, x, cond, rtol, atol, precision, forward=True)


def decode(
    denoiser: Denoiser,
    z: ArrayLike,
    *,
    cond: Cond = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    precision: str = "highest",
) -> Flowed:
    """Return the data at t_min of latents at t_max: the inverse of `encode`, with the same arguments and errors."""
    return _carry(denoiser, z, cond, rtol, atol, precision, forward=False)


def interpolate(
    denoiser: Denoiser,
    a: ArrayLike,
    b: ArrayLike,
    n: int,
    *,
    cond: Cond = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    precision: str = "highest",
) -> Array:
    """Return n points on the path from a to b, along the great circle between their latents.

    With z_a, z_b the latents and theta the angle between them,

        z_w = sin((1 - w) theta) / sin(theta) z_a + sin(w theta) / sin(theta) z_b,  w from 0 to 1,

    which keeps the length of Gaussian noise, unlike a straight line (Shoemake 1985).

    Args:
        denoiser: the model.
        a, b: data on the model's scale, shape (batch, *shape).
        n: number of points, both ends included; at least 2.
        cond: None, or conditions by name as `denoiser.reads` declares them.
        rtol, atol: tolerances of the solves.
        precision: precision of float32 products, as in `log_prob`.

    Returns:
        The points, shape (n, batch, *shape); the first is a and the last is b, up to the tolerance.
    """
    require_whole("n, the points of an interpolation,", n, 2)
    a, b = as_points(a, "a"), as_points(b, "b")
    if a.shape != b.shape:
        raise InputError(f"a has shape {a.shape} and b {b.shape}; expected the same shape.")
    options: dict[str, Any] = {"cond": cond, "rtol": rtol, "atol": atol, "precision": precision}
    z_a, z_b = (encode(denoiser, x, **options).x for x in (a, b))
    path = [great_circle(z_a, z_b, weight) for weight in np.linspace(0.0, 1.0, n)]
    return jnp.stack([decode(denoiser, z, **options).x for z in path])


def great_circle(z_a: Array, z_b: Array, weight: float) -> Array:
    """Return the point at the fraction `weight` of the great circle from z_a to z_b, shape (batch, *shape)."""
    lengths = jnp.sqrt(per_example_sum(z_a**2) * per_example_sum(z_b**2))
    cosine = per_example_sum(z_a * z_b) / jnp.where(lengths > 0, lengths, 1)
    theta = jnp.arccos(jnp.clip(cosine, -1, 1))
    # For parallel latents sin(theta) is 0, and the path is a straight line.
    curved = jnp.sin(theta) > 1e-4
    sine = jnp.where(curved, jnp.sin(theta), 1)
    to_a = jnp.where(curved, jnp.sin((1 - weight) * theta) / sine, 1 - weight)
    to_b = jnp.where(curved, jnp.sin(weight * theta) / sine, weight)
    return expand(to_a, z_a) * z_a + expand(to_b, z_b) * z_b


def _carry(
    denoiser: Denoiser, x: ArrayLike, cond: Cond, rtol: float, atol: float, precision: str, *, forward: bool
) -> Flowed:
    ode.check_tolerances(rtol, atol)
    check_precision("precision", precision)
    denoiser, x = as_denoiser(denoiser), as_points(x)
    check_shape(denoiser, x.shape[1:])
    cond = given.checked(cond, denoiser.reads, len(x))
    tolerances = jnp.asarray([rtol, atol], x.dtype)
    solution = _flow(denoiser, x, cond, tolerances, precision=precision, forward=forward)
    if is_concrete(solution.status):
        ode.check_solved(solution.status)
    return Flowed(solution.y, solution.nfe)


def _flow_batch(
    denoiser: Denoiser, x: Array, cond: Cond, tolerances: Array, *, precision: str, forward: bool
) -> ode.Solution:
    times: tuple[Any, Any] = (denoiser.sde.t_min, denoiser.sde.t_max)
    start, end = times if forward else times[::-1]
    options: dict[str, Any] = {"rtol": tolerances[0], "atol": tolerances[1], "precision": precision}
    return ode.flow(denoiser, x, start, end, cond, **options)


_flow = module_jit(_flow_batch, static_argnames=("precision", "forward"), rows=(0, 1))
