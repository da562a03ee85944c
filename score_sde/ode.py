"""This module solves the probability flow with adaptive steps, where each example has its own step size.

The likelihood, encoding and decoding, and the sampler `ProbabilityFlow` use this module. The method is
diffrax's Dopri5 (Dormand & Prince 1980, order 5 with an embedded error of order 4), in the variable
u = sqrt(t): near the data sigma grows as sqrt(t) on VP, so that x_t is smooth in u and not in t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, is_concrete
from score_sde.core.conditions import Cond
from score_sde.core.errors import DivergenceError, InputError
from score_sde.core.precision import products
from score_sde.denoisers import Denoiser

# The dy/dt of one example: (t of shape (), y, args) -> the structure of y.
Field = Callable[[Array, Any, Any], Any]

MAX_STEPS = 10_000
_FIRST_STEP, _LEAST_STEP = 0.01, 1e-9  # as fractions of the interval from t0 to t1
_REASONS = {1: f"more than {MAX_STEPS} steps were needed", 2: "the step size became too small"}
# With these values the controller rejects a third as many steps as the plain controller; see docs/performance.md.
_PROPORTIONAL, _INTEGRAL, _SAFETY = 0.4, 0.3, 0.8
_STAGES = 6  # function evaluations of an attempted step: its seventh stage is the first stage of the next step


class Solution(NamedTuple):
    """`Solution` holds the result of `solve`.

    Attributes:
        y: the state at t1, every leaf with leading axis batch; NaN for examples whose solve failed.
        nfe: number of evaluations of the field for each example, int32 (batch,); from `flow`, of network evaluations.
        accepted: number of accepted steps, int32 (batch,).
        rejected: number of steps that were rejected and repeated with a smaller size, int32 (batch,).
        status: 0 if solved, otherwise the reason of the failure (1: too many steps, 2: no step is small
            enough, for example because the field returns NaN), int32 (batch,).
    """

    y: Any
    nfe: Array
    accepted: Array
    rejected: Array
    status: Array


def solve(
    field: Field,
    y0: Any,
    t0: ArrayLike,
    t1: ArrayLike,
    args: Any = None,
    *,
    rtol: ArrayLike,
    atol: ArrayLike,
    precision: str = "highest",
) -> Solution:
    """Integrate dy/dt = field(t, y, args) from t0 to t1 for every example of a batch; to be called inside jit.

    A step is accepted if the root mean square of the error of each leaf of y, in units of
    atol + rtol |y|, is below 1: a leaf of few numbers counts as much as a leaf of many numbers. The step size depends
    on the error only through the power of two below the error (`coarse`), so that rounding does not change the steps.

    Args:
        field: dy/dt of one example.
        y0: a pytree of arrays with leading axis batch, the state at t0.
        t0, t1: times of shape (), at least 0; t1 may be smaller than t0.
        args: other arguments of the field, a pytree with leading axis batch.
        rtol, atol: relative and absolute tolerance.
        precision: precision of float32 products, as in `core.precision.products`; 'highest' is full float32 on every
            platform. A network of dtype 'bfloat16' computes in bfloat16 at every precision.
    """
    u0, u1 = jnp.sqrt(jnp.asarray(t0)), jnp.sqrt(jnp.asarray(t1))
    controller = _controller(jnp.asarray(rtol), jnp.asarray(atol))

    def field_along(way: Any, y: Any, args: Any) -> Any:
        """Return dy/d(way), with t = u^2 and u = u0 + way (u1 - u0)."""
        u = u0 + jnp.asarray(way, u0.dtype) * (u1 - u0)
        return jax.tree.map(lambda rate: 2 * u * (u1 - u0) * rate, field(u**2, y, args))

    def one(y0: Any, args: Any) -> tuple[Any, ...]:
        slope = field_along(0.0, y0, args)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field_along),
            diffrax.Dopri5(),
            # These are plain numbers, because diffrax checks the signs of arrays with calls to the host.
            t0=0.0,
            t1=1.0,
            dt0=_FIRST_STEP,
            y0=y0,
            args=args,
            stepsize_controller=controller,
            # The first slope is given, so that diffrax does not evaluate it again if the first step of an
            # example is rejected, and so that the number of evaluations is known.
            solver_state=(jnp.asarray(False), slope),
            max_steps=MAX_STEPS,
            throw=False,
        )
        y = jax.tree.map(lambda leaf: leaf[0], solution.ys)
        finite = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(y)]))
        too_long = solution.result == diffrax.RESULTS.max_steps_reached
        solved = (solution.result == diffrax.RESULTS.successful) & finite
        status = jnp.where(solved, 0, jnp.where(too_long, 1, 2)).astype(jnp.int32)
        y = jax.tree.map(lambda leaf: jnp.where(solved, leaf, jnp.nan), y)
        return y, solution.stats["num_accepted_steps"], solution.stats["num_rejected_steps"], status

    with products(precision):
        y, accepted, rejected, status = jax.vmap(one)(y0, args)
    accepted, rejected = accepted.astype(jnp.int32), rejected.astype(jnp.int32)
    return Solution(y, 1 + _STAGES * (accepted + rejected), accepted, rejected, status)


def _controller(rtol: Array, atol: Array) -> diffrax.PIDController:
    return diffrax.PIDController(
        rtol,
        atol,
        pcoeff=_PROPORTIONAL,
        icoeff=_INTEGRAL,
        safety=_SAFETY,
        norm=_coarse_rms,
        dtmin=_LEAST_STEP,
        force_dtmin=False,
    )


def coarse(error: Array, per_octave: int = 1) -> Array:
    """Return the middle of the bin of an error; `per_octave` bins cover a factor of two, and 1 is an edge of a bin.

    If step control uses only the bin, the rounding of the network's output does not change the steps, unless the error
    lies on an edge. The solution then depends on the example, and not on the batch or the device.
    """
    return jnp.exp2((jnp.floor(jnp.log2(error) * per_octave) + 0.5) / per_octave)


def _coarse_rms(y: Any) -> Array:
    """Return the largest root mean square of all leaves, as the middle of its bin."""
    return coarse(jnp.max(jnp.stack([jnp.sqrt(jnp.mean(leaf**2)) for leaf in jax.tree.leaves(y)])))


def velocity(denoiser: Denoiser, t: Array, x: Array, cond: Cond) -> Array:
    """Return the velocity of the probability flow: t of shape (), x of shape (*shape), cond of one example."""
    return denoiser.velocity(x[None], t[None], jax.tree.map(lambda leaf: leaf[None], cond))[0]


def flow(
    denoiser: Denoiser,
    x: Array,
    t0: ArrayLike,
    t1: ArrayLike,
    cond: Cond = None,
    *,
    rtol: ArrayLike,
    atol: ArrayLike,
    precision: str = "highest",
) -> Solution:
    """Move x, shape (batch, *shape), along the probability flow from time t0 to t1; to be called inside jit.

    The other arguments are the arguments of `solve`.
    """
    t0, t1 = jnp.asarray(t0, x.dtype), jnp.asarray(t1, x.dtype)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "precision": precision}
    solution = solve(lambda t, x, cond: velocity(denoiser, t, x, cond), x, t0, t1, cond, **options)
    return solution._replace(nfe=solution.nfe * network_evaluations(denoiser, t0, t1))


def network_evaluations(denoiser: Denoiser, t0: Array, t1: Array) -> Array:
    """Return the network evaluations of one evaluation of the field: the larger number at t0 and t1; int32 ().

    A guide that is active at some noise levels only has the same cost at all noise levels here, because the examples
    of a batch are at different times, and one program computes all examples.
    """
    return jnp.maximum(denoiser.evaluations(t0), denoiser.evaluations(t1))


def check_tolerances(rtol: float, atol: float) -> None:
    """Raise InputError for tolerances that no step can meet."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if is_concrete(value) and not (number and 0 <= value < 1):
            raise InputError(f"{name} is {value!r}; expected a tolerance from 0 to 1, such as 1e-5.")
    if is_concrete(rtol, atol) and rtol == 0 and atol == 0:
        raise InputError("rtol and atol are both 0; expected at least one to be positive, such as 1e-5.")


def check_solved(status: ArrayLike, what: str = "examples") -> None:
    """Raise DivergenceError, with the numbers of the examples, if a solve failed."""
    status = np.asarray(status)
    failed = np.flatnonzero(status)
    if failed.size:
        named = ", ".join(map(str, failed[:8])) + (", ..." if failed.size > 8 else "")
        reasons = "; ".join(text for code, text in _REASONS.items() if code in status)
        raise DivergenceError(
            f"The probability flow of {failed.size} of {status.size} {what} was not solved (numbers {named}): "
            f"{reasons}. Use larger rtol and atol, or check whether the model returns values that are not finite.",
            tuple(failed.tolist()),
        )
