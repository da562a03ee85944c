"""This module defines `Posterior`, the denoiser of p(x_0 | y) for a measurement y = A x_0 + noise."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_array, as_float, expand, is_concrete, to_time
from score_sde.core.checks import is_number, shown
from score_sde.core.conditions import ABSENT, Cond, Condition, Conditions, only
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser, Guide, Prediction
from score_sde.inverse.measurement import MEASURED, Measurement
from score_sde.inverse.operators import Operator
from score_sde.inverse.variances import Moments, Problem, Variance, Zero


class Posterior(Guide):
    """`Posterior` guides a denoiser by a measurement y = A x_0 + N(0, noise_std^2 I), for each example its own.

    With x_0 the prediction given x_t, and with x_0 given x_t approximated by a Gaussian, p(y | x_t) is Gaussian too,
    and the guided prediction is

        x_0' = x_0 + W A^T (S + A V A^T)^-1 (y - A x_0),  noise' = noise - (alpha / sigma) (x_0' - x_0),

    so that alpha x_0' + sigma noise' = x_t. `variance` states V and W, which are both Cov[x_0 | x_t] in `Moments`. For
    Gaussian data, `Moments` is the exact denoiser of p(x_0 | y). For data with several modes no variance is exact
    (docs/inverse.md has a table), and `Particles` is the method to use. A nonlinear operator is linearised at x_0.

    The guide reads cond['y'], and what the operator reads, such as cond['mask'] of a `Mask`. y and noise_std are in the
    units of the operator's output. Where alpha is 0, x_t is pure noise and the prediction stays as it is. One
    prediction costs one prediction of the denoiser, and `vjps` vector-Jacobian products, each of which keeps the
    network's activations; network.remat bounds that memory.

    Args:
        denoiser: the denoiser of the data.
        operator: A.
        noise_std: the standard deviation of the noise of y, one number of at least 0; or an array in the shape of one
            measurement; or the name of a condition with one number for each example.
        variance: the approximation of Cov[x_0 | x_t]; None for `Zero`, the score of DPS.
        limits: the range of the data on the model's scale, with which the scale of y is checked; None for no check.
    """

    operator: Operator
    noise_std: Any
    variance: Variance
    limits: tuple[float, float] | None = eqx.field(static=True)

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        noise_std: ArrayLike | str,
        variance: Variance | None = Moments(),  # noqa: B008 (immutable)
        *,
        limits: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(denoiser)
        if not isinstance(operator, Operator):
            raise InputError(f"operator of Posterior is {shown(operator)}; expected an Operator, such as Mask().")
        if not (variance is None or isinstance(variance, Variance)):
            raise InputError(f"variance of Posterior is {shown(variance)}; expected Moments(), or another Variance.")
        self.operator, self.variance = operator, Zero() if variance is None else variance
        pair = limits is None or (isinstance(limits, tuple | list) and len(limits) == 2 and all(map(is_number, limits)))
        if not pair or (limits is not None and not limits[0] < limits[1]):
            raise InputError(f"limits of Posterior are {shown(limits)}; expected (low, high), or None.")
        self.noise_std = self._checked_noise(noise_std)
        self.limits = None if limits is None else (float(limits[0]), float(limits[1]))
        taken = [name for name in self._own if name in denoiser.reads and name not in operator.reads(self.shape)]
        if taken:
            raise InputError(
                f"The denoiser of Posterior reads {taken[0]!r} itself; expected one guide with a measurement."
            )

    def _checked_noise(self, given: Any) -> Any:
        read = (ABSENT, MEASURED, *self.operator.reads(self.shape), *self.denoiser.reads)
        if isinstance(given, str) and given.isidentifier() and given not in read:
            return given
        if is_concrete(given) and as_array(given, "noise_std of Posterior").dtype.kind not in "iuf":
            raise InputError(f"noise_std of Posterior is {shown(given)}; expected a number of at least 0.")
        least = 0 if isinstance(self.variance, Zero) else -1
        if not is_concrete(given):
            return given
        value = np.asarray(given)
        if not np.isfinite(value).all():
            raise InputError(f"noise_std of Posterior is {shown(given)}; expected a finite number of at least 0.")
        if not np.all((value > least) & (value >= 0)):
            raise InputError(
                f"noise_std of Posterior is {shown(given)} with {type(self.variance).__name__}; expected numbers "
                f"{'above 0, by whose square y - A x_0 is divided' if least == 0 else 'of at least 0'}."
            )
        if value.ndim and self.shape is not None:
            expected = self.operator.measured_shape(self.shape)
            if value.shape != expected:
                raise InputError(
                    f"noise_std of Posterior has the shape {value.shape}; expected one number, or {expected}, the "
                    "shape of one measurement."
                )
        return as_float(given)

    @property
    def _own(self) -> dict[str, Condition]:
        """Return the conditions that the guide itself reads."""
        own: dict[str, Condition] = dict(self.operator.reads(self.shape))
        own[MEASURED] = measurement(self.operator, self.shape)
        if isinstance(self.noise_std, str):
            own[self.noise_std] = Condition(dtype="float64", required=True)
        return own

    @property
    def reads(self) -> Conditions:
        return Conditions(self._own | dict(self.denoiser.reads))

    def check_cond(self, cond: Cond) -> None:
        super().check_cond(cond)
        named = (cond or {}).get(self.noise_std) if isinstance(self.noise_std, str) else None
        if named is not None and is_concrete(named):
            least = np.asarray(named).min()
            if least < 0 or (least == 0 and isinstance(self.variance, Zero)):
                raise InputError(
                    f"cond[{self.noise_std!r}] has {least}; expected standard deviations of at least 0, or above 0 for "
                    "variance=None."
                )
        if self.limits is not None:
            check_range(self.operator, self.limits, self.noise_std, cond)

    def vjps(self, t: ArrayLike) -> Array:
        return self.denoiser.vjps(t) + self.variance.vjps

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        t = to_time(t)
        inner = only(cond, self.denoiser.reads)

        def halves(x: Array) -> tuple[Array, tuple[Array, Any]]:
            predicted = self.denoiser.predict(x, t, inner, keys=keys)
            return predicted.x0, (predicted.noise, predicted.variance)

        pull: Any = None
        if self.variance.vjps:
            x0, pull, (noise, variance) = jax.vjp(halves, x, has_aux=True)
        else:
            x0, (noise, variance) = halves(x)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        signal = alpha > 0
        safe = jnp.where(signal, alpha, 1)

        def covariance(v: Array) -> Array:
            return expand(sigma**2 / safe, v) * pull(v)[0]

        problem = self._problem(x0, cond, covariance, alpha, sigma**2)
        shift = jnp.where(expand(signal, x0), self.variance.shift(problem), 0)
        return Prediction(x0 + shift, noise - expand(alpha / sigma, x0) * shift, variance)

    def _problem(self, x0: Array, cond: Cond, covariance: Any, alpha: Array, variance: Array) -> Problem:
        y = measured_values(cond, x0.dtype)
        mean, forward = jax.linearize(lambda x: self.operator(x, cond), x0)
        check_measurement(self.operator, y, mean)
        transpose = jax.linear_transpose(forward, x0)
        noise_std = (cond or {})[self.noise_std] if isinstance(self.noise_std, str) else self.noise_std
        noise_std = jnp.asarray(noise_std, x0.dtype)
        return Problem(
            residual=self.operator.residual(x0, y, cond),
            measured=self.operator.measured(y, cond),
            forward=forward,
            back=lambda u: transpose(u)[0],
            covariance=covariance,
            noise_variance=(expand(noise_std, y) if isinstance(self.noise_std, str) else noise_std) ** 2,
            alpha=alpha,
            variance=variance,
        )


def measurement(operator: Operator, shape: tuple[int, ...] | None) -> Measurement:
    """Return the declaration of y for examples of a shape; None for an unknown shape."""
    return Measurement(any_shape=True) if shape is None else Measurement(shape=operator.measured_shape(shape))


def check_range(operator: Operator, limits: tuple[float, float], noise_std: Any, cond: Cond) -> None:
    """Raise InputError if most of y lies outside the range that the operator's output has for data within `limits`."""
    possible = operator.range_of(*limits)
    if possible is None or cond is None or not is_concrete(cond):
        return
    y = np.asarray(cond[MEASURED], float)
    seen = y[np.asarray(operator.measured(jnp.asarray(y), cond)) > 0]
    noise = np.max(np.asarray(cond[noise_std] if isinstance(noise_std, str) else noise_std))
    low, high = possible
    slack = 0.5 * (high - low) + 3 * noise
    # Quantiles are compared, because the noise of single numbers has no bound.
    if np.quantile(seen, 0.1) < low - slack or np.quantile(seen, 0.9) > high + slack:
        raise InputError(
            f"cond[{MEASURED!r}] has values from {seen.min():.3g} to {seen.max():.3g}; expected the units of the "
            f"operator's output, {low:.3g} to {high:.3g} for data on the model's scale: measure codec.encode(values, "
            "None)[0], or use Through(operator, codec)."
        )


def measured_values(cond: Cond, dtype: Any) -> Array:
    """Return cond['y'] in a dtype; raise InputError if there is none."""
    if cond is None or MEASURED not in cond:
        raise InputError(f"cond has no {MEASURED!r}, the measurement; expected one measurement for each example.")
    return jnp.asarray(cond[MEASURED], dtype)


def check_measurement(operator: Operator, y: Array, mean: Array) -> None:
    """Raise InputError unless y has the shape of the operator's output."""
    if y.shape != mean.shape:
        raise InputError(
            f"cond[{MEASURED!r}] has the shape {y.shape}; expected {mean.shape}, that of the measurements of "
            f"{type(operator).__name__}."
        )


__all__ = ["Posterior"]
