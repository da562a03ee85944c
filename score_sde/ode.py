"""The adaptive solve of the probability flow and what rides on it, each example with its own step size.

Used by the likelihood, by encoding and decoding, and by the sampler `ProbabilityFlow`. The method is
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

# One example's dy/dt: (t of shape (), y, args) -> the structure of y.
Field = Callable[[Array, Any, Any], Any]

MAX_STEPS = 10_000
_FIRST_STEP, _LEAST_STEP = 0.01, 1e-9  # as parts of the whole way
_REASONS = {1: f"more than {MAX_STEPS} steps were needed", 2: "the step size shrank to nothing"}
# With these a third of the steps that the plain controller rejects are rejected; see docs/performance.md.
_PROPORTIONAL, _INTEGRAL, _SAFETY = 0.4, 0.3, 0.8
_STAGES = 6  # evaluations of an attempted step: the seventh stage is the first of the next one


class Solution(NamedTuple):
    """What `solve` returns.

    Attributes:
        y: the state at t1, every leaf with leading axis batch; NaN where the solve failed.
        nfe: evaluations of the field spent on each example, int32 (batch,); of `flow`, of the network.
        accepted: steps taken, int32 (batch,).
        rejected: steps tried and made again with a smaller size, int32 (batch,).
        status: 0 where solved, else why not (1: too many steps, 2: no step is small enough, as
            where the field returns NaN), int32 (batch,).
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
    """Integrate dy/dt = field(t, y, args) from t0 to t1 for every example of a batch; meant for use inside jit.

    A step is accepted where every leaf of y has an error whose root mean square, in units of
    atol + rtol |y|, is below 1: a leaf of few numbers counts as much as one of many. Steps are chosen by the power of
    two that the error lies above (`coarse`), so that rounding does not change them.

    Args:
        field: dy/dt of one example.
        y0: a pytree of arrays with leading axis batch, the state at t0.
        t0, t1: times of shape (), at least 0; t1 may be smaller.
        args: what the field is given beside the state, a pytree with leading axis batch.
        rtol, atol: relative and absolute tolerance.
        precision: of float32 products, as in `core.precision.products`; 'highest' is full float32 on every platform. A
            network of dtype 'bfloat16' computes in bfloat16 all the same.
    """
    u0, u1 = jnp.sqrt(jnp.asarray(t0)), jnp.sqrt(jnp.asarray(t1))
    controller = _controller(jnp.asarray(rtol), jnp.asarray(atol))

    def field_along(way: Any, y: Any, args: Any) -> Any:
        """dy/d(way), with t = u^2 and u = u0 + way (u1 - u0)."""
        u = u0 + jnp.asarray(way, u0.dtype) * (u1 - u0)
        return jax.tree.map(lambda rate: 2 * u * (u1 - u0) * rate, field(u**2, y, args))

    def one(y0: Any, args: Any) -> tuple[Any, ...]:
        slope = field_along(0.0, y0, args)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field_along),
            diffrax.Dopri5(),
            # Plain numbers: of arrays diffrax would check the signs by calls to the host.
            t0=0.0,
            t1=1.0,
            dt0=_FIRST_STEP,
            y0=y0,
            args=args,
            stepsize_controller=controller,
            # The first slope is known, so diffrax need not evaluate it again wherever an example's first
            # step is rejected; and the number of evaluations is known too.
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
    """An error as the middle of its bin, of which there are `per_octave` from a number to its double; 1 is an edge.

    Step control that sees the bin alone takes the same steps whatever the rounding of the network's output, but for an
    error that lies on an edge: what is solved is then a function of the example, and not of the batch or the device.
    """
    return jnp.exp2((jnp.floor(jnp.log2(error) * per_octave) + 0.5) / per_octave)


def _coarse_rms(y: Any) -> Array:
    """The largest root mean square of a leaf."""
    return coarse(jnp.max(jnp.stack([jnp.sqrt(jnp.mean(leaf**2)) for leaf in jax.tree.leaves(y)])))


def velocity(denoiser: Denoiser, t: Array, x: Array, cond: Cond) -> Array:
    """The probability flow of one example: t of shape (), x of shape (*shape), cond without a batch axis."""
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
    """Carry x, shape (batch, *shape), along the probability flow from time t0 to t1; meant for use inside jit.

    The other arguments are those of `solve`.
    """
    t0, t1 = jnp.asarray(t0, x.dtype), jnp.asarray(t1, x.dtype)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "precision": precision}
    solution = solve(lambda t, x, cond: velocity(denoiser, t, x, cond), x, t0, t1, cond, **options)
    return solution._replace(nfe=solution.nfe * network_evaluations(denoiser, t0, t1))


def network_evaluations(denoiser: Denoiser, t0: Array, t1: Array) -> Array:
    """The network evaluations of one evaluation of the field between two times, the larger of those at both; int32 ().

    A guide that works at some noise levels only costs as much at all others here: the examples of a batch are at
    different times, and one program serves them all.
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
    """Raise DivergenceError, naming the examples, where a solve failed."""
    status = np.asarray(status)
    failed = np.flatnonzero(status)
    if failed.size:
        named = ", ".join(map(str, failed[:8])) + (", ..." if failed.size > 8 else "")
        reasons = "; ".join(text for code, text in _REASONS.items() if code in status)
        raise DivergenceError(
            f"The probability flow of {failed.size} of {status.size} {what} was not solved (numbers {named}): "
            f"{reasons}. Use larger rtol and atol; or the model itself returns values that are not finite.",
            tuple(failed.tolist()),
        )
