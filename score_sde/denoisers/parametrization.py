"""This module defines what a network's output F means: how x_0 and noise follow from x_t and F.

In x_t = alpha x_0 + sigma noise, both x_0 and noise are linear in x_t and F, with coefficients in closed form.
x_0 is not computed by subtraction of the noise from x_t, nor the noise by subtraction of x_0: in float32 the conversion
noise -> x_0 -> noise loses 2 % at t = 1e-5 on the sub-VP SDE.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, as_float, expand, is_concrete, to_time
from score_sde.core.checks import check_types, is_number
from score_sde.core.errors import InputError
from score_sde.denoisers.prediction import Prediction
from score_sde.denoisers.time_labels import (
    TIME_LABELS,
    TimeLabel,
    index,
    log_sigma,
    quarter_log_sigma,
    scaled_log_snr,
    scaled_time,
    sigma,
)
from score_sde.denoisers.variance_heads import VARIANCE_HEADS, Scale, VarianceHead
from score_sde.sde import SDE


def _is_range(data_range: Any) -> bool:
    pair = isinstance(data_range, tuple) and len(data_range) == 2 and all(map(is_number, data_range))
    return pair and data_range[0] < data_range[1]


class Parametrization(eqx.Module):
    """A parametrisation defines how a network receives (x_t, t), and how x_0 and noise follow from its output.

    The network receives input_scale x_t + input_shift, and its output times output_scale is F. To add a
    parametrisation, write a subclass and define `coefficients`; the subclass may also override `input_scale`,
    `input_shift` and `output_scale`. All four functions use the SDE, so a noise level is defined in one place.

    Attributes:
        time_label: the network's time label: 'scaled_time', 'sigma', 'log_sigma', 'quarter_log_sigma',
            'scaled_log_snr', 'index' (of chains), or a function (sde, t) -> label, elementwise in t.
        data_std: None for no scaling of x_t by its standard deviation; a number scales the network's input to
            x_t / sqrt(alpha^2 data_std^2 + sigma^2), of unit variance at all times if the data
            have the standard deviation data_std (Karras et al. 2022, arXiv:2206.00364, Eq. 7).
        scale_by_sigma: whether F is the network's output divided by sigma(t), as in the VE networks of Song et al.
            2021.
        data_range: lowest and highest value of the data on the model's scale, to centre the network's input; None if
            the data are centred already. For data on [0, 1] the network receives 2 x_t - alpha. A config takes this
            range from the codec of the data set.
        variance: None for a network that predicts the mean only. Otherwise the network has twice the output channels,
            and the second half predicts the variance of reverse steps: 'fraction', 'noise_moment', 'noise_residual' or
            'log_x0' (`variance_heads`), or a function (sde, t, output, mean, scale) ->
            `ReverseVariance`, as those.
    """

    time_label: str | TimeLabel = eqx.field(default="scaled_time", static=True)
    data_std: float | None = eqx.field(default=None, converter=as_float)
    scale_by_sigma: bool = eqx.field(default=False, static=True, kw_only=True)
    data_range: tuple[float, float] | None = eqx.field(default=None, static=True, kw_only=True)
    variance: str | VarianceHead | None = eqx.field(default=None, static=True, kw_only=True)

    def __check_init__(self) -> None:
        check_types(self)
        is_label = isinstance(self.time_label, str) and self.time_label in TIME_LABELS
        if not callable(self.time_label) and not is_label:
            raise InputError(
                f"time_label is {self.time_label!r}; expected {' or '.join(TIME_LABELS)}, or a function (sde, t)."
            )
        if self.data_std is not None and is_concrete(self.data_std) and not self.data_std > 0:
            raise InputError(f"data_std is {self.data_std}; expected a positive number, or None for no scaling.")
        if self.data_range is not None and not _is_range(self.data_range):
            raise InputError(f"data_range is {self.data_range}; expected (lowest, highest), or None.")
        named = isinstance(self.variance, str) and self.variance in VARIANCE_HEADS
        if self.variance is not None and not named and not callable(self.variance):
            raise InputError(
                f"parametrization.variance is {self.variance!r}; expected one of {', '.join(VARIANCE_HEADS)}, a "
                "function, or None."
            )

    @property
    def outputs(self) -> int:
        """Return the numbers that the network returns for each number of x: 2 with a variance, otherwise 1."""
        return 1 if self.variance is None else 2

    @property
    def largest_variance(self) -> float:
        """Return the bound of Var[x_0 | x_t] for data in data_range, (b - a)^2 / 4 (Popoviciu), or infinity."""
        return math.inf if self.data_range is None else (self.data_range[1] - self.data_range[0]) ** 2 / 4

    def check(self, sde: SDE) -> None:
        """Raise InputError if this parametrisation cannot be used with this SDE."""
        if not is_concrete(sde):
            return
        with jax.ensure_compile_time_eval():
            label = np.asarray(self.label(sde, to_time(sde.t_max)))
        if not np.isfinite(label).all():
            raise InputError(
                f"{type(self).__name__} with time_label={self.time_label!r} gives the label {label} at t_max of "
                f"{type(sde).__name__}, where alpha = 0: use time_label='scaled_time'."
            )

    def label(self, sde: SDE, t: Array) -> Array:
        """Return the time label of the network, in the shape of t."""
        function = self.time_label if callable(self.time_label) else TIME_LABELS[self.time_label]
        return function(sde, t)

    def input_scale(self, sde: SDE, t: Array) -> Array:
        """Return the factor on x_t at the network's input, in the shape of t."""
        if self.data_std is not None:
            return 1 / jnp.sqrt((sde.alpha(t) * self.data_std) ** 2 + sde.variance(t))
        width = 2.0 if self.data_range is None else self.data_range[1] - self.data_range[0]
        return jnp.full_like(t, 2 / width)

    def input_shift(self, sde: SDE, t: Array) -> Array:
        """Return the shift of the scaled x_t, -input_scale alpha times the middle of data_range, in the shape of t."""
        middle = 0.0 if self.data_range is None else sum(self.data_range) / 2
        return -self.input_scale(sde, t) * sde.alpha(t) * middle

    def output_scale(self, sde: SDE, t: Array) -> Array:
        """Return the factor that turns the network's output into F, in the shape of t."""
        return 1 / sde.sigma(t) if self.scale_by_sigma else jnp.ones_like(t)

    def network_input(self, sde: SDE, x: Array, t: Array) -> Array:
        """Return the network's input for x_t, in the shape of x, where t has shape (batch,)."""
        scaled = expand(self.input_scale(sde, t), x) * x
        centred = self.data_range is None or sum(self.data_range) == 0
        return scaled if centred else scaled + expand(self.input_shift(sde, t), x)

    @abc.abstractmethod
    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Return ((a, b), (c, d)), each in the shape of t, where x_0 = a x_t + b F and noise = c x_t + d F."""

    def predict(self, sde: SDE, x: Array, t: Array, output: Array) -> Prediction:
        """Predict x_0 and noise, and the variance if there is one, from x_t and the network's output.

        The output has the shape of x; with a variance it has twice the channels, first those of F.
        """
        if self.variance is None:
            return self._means(sde, x, t, output)
        first, second = jnp.split(output, 2, axis=-1)
        mean = self._means(sde, x, t, first)
        head = self.variance if callable(self.variance) else VARIANCE_HEADS[self.variance]
        return Prediction(mean.x0, mean.noise, head(sde, t, second, mean, Scale(self.data_std, self.largest_variance)))

    def _means(self, sde: SDE, x: Array, t: Array, output: Array) -> Prediction:
        (a, b), (c, d) = self.coefficients(sde, t)
        # The coefficients are multiplied first, because F alone may be as large as 1 / sigma.
        scale = self.output_scale(sde, t)
        return Prediction(
            x0=expand(a, x) * x + expand(b * scale, x) * output, noise=expand(c, x) * x + expand(d * scale, x) * output
        )


class _NoiseLike(Parametrization):
    """`_NoiseLike` checks the SDE for outputs that determine x_0 only through a division by alpha."""

    def check(self, sde: SDE) -> None:
        super().check(sde)
        if not is_concrete(sde):
            return
        with jax.ensure_compile_time_eval():
            alpha = float(sde.alpha(sde.t_max))
        if alpha < 1e-3:
            raise InputError(
                f"{type(self).__name__} needs alpha(t_max) >= 1e-3, and {type(sde).__name__} has {alpha:.2g}: "
                "x_0 = (x_t - sigma F) / alpha would be mostly rounding error; use X0, Velocity or VPrediction, "
                "or an SDE that keeps more signal."
            )


class Noise(_NoiseLike):
    """`Noise` sets F = noise (Ho et al. 2020), so x_0 = (x_t - sigma F) / alpha."""

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        alpha = sde.alpha(t)
        return (1 / alpha, -sde.sigma(t) / alpha), (0.0, 1.0)


class Score(_NoiseLike):
    """`Score` sets F = marginal score (Song et al. 2021), so noise = -sigma F and x_0 = (x_t + sigma^2 F) / alpha.

    F is as large as 1 / sigma. Near the data a network learns F slowly, unless the network's output is divided by sigma
    (`scale_by_sigma`).
    """

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        alpha = sde.alpha(t)
        return (1 / alpha, sde.variance(t) / alpha), (0.0, -sde.sigma(t))


class X0(Parametrization):
    """`X0` sets F = x_0, so noise = (x_t - alpha F) / sigma."""

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        sigma = sde.sigma(t)
        return (0.0, 1.0), (1 / sigma, -sde.alpha(t) / sigma)


class Velocity(Parametrization):
    """`Velocity` sets F = alpha' x_0 + sigma' noise, the velocity of the probability flow.

    With d = alpha sigma' - sigma alpha': x_0 = (sigma' x_t - sigma F) / d, noise = (alpha F - alpha' x_t) / d.
    On `RectifiedFlow` F = noise - x_0. A chain has no derivatives in time: use `VPrediction` on a chain.
    """

    def check(self, sde: SDE) -> None:
        super().check(sde)
        if sde.levels is not None:
            raise InputError(
                f"Velocity needs alpha' and sigma', but {type(sde).__name__} has none: use VPrediction, or a denoiser "
                "on chain.smooth()."
            )
        if not is_concrete(sde):
            return
        with jax.ensure_compile_time_eval():
            rates = [float(rate) for rate in sde.velocity_rates(sde.t_max)]
        if not all(map(math.isfinite, rates)):
            raise InputError(
                f"Velocity needs finite alpha' and sigma', and {type(sde).__name__} has {rates[0]:g} and {rates[1]:g} "
                "at t_max: use VPrediction, or a smaller t_max."
            )

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        alpha_rate, sigma_rate = sde.velocity_rates(t)
        d = alpha * sigma_rate - sigma * alpha_rate
        return (sigma_rate / d, -sigma / d), (-alpha_rate / d, alpha / d)


class VPrediction(Parametrization):
    """`VPrediction` sets F = alpha noise - sigma x_0, for any alpha and sigma.

    x_0 = (alpha x_t - sigma F) / (alpha^2 + sigma^2), noise = (sigma x_t + alpha F) / (alpha^2 + sigma^2)
    (Salimans & Ho 2022, arXiv:2202.00512, App. D).
    """

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        size = alpha**2 + sde.variance(t)
        return (alpha / size, -sigma / size), (sigma / size, alpha / size)


class PreviousMean(Parametrization):
    """`PreviousMean` sets F = E[x_s | x_t], where s is the level before t of a chain, the mean of a reverse step.

    With x_t | x_s ~ N(r x_s, v I), F = x_t / r - v / (r sigma_t) noise (Ho et al. 2020, arXiv:2006.11239, Eq. 11), so

        x_0 = (F - (r sigma_s^2 / sigma_t^2) x_t) sigma_t^2 / (alpha_s v),  noise = (sigma_t / v) (x_t - r F).
    """

    time_label: str | TimeLabel = eqx.field(default="index", static=True)

    def check(self, sde: SDE) -> None:
        if sde.levels is None:
            raise InputError(
                f"PreviousMean needs the level before t, and {type(sde).__name__} has no levels; expected a chain, "
                "such as DDPM, or Noise, X0 or VPrediction."
            )
        super().check(sde)

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        assert sde.levels is not None
        s = t - 1 / sde.levels
        r, v = sde.transition(s, t)
        variance_s, variance_t = sde.variance(s), sde.variance(t)
        scale, sigma = sde.alpha(s) * v, jnp.sqrt(variance_t)
        return (-r * variance_s / scale, variance_t / scale), (sigma / v, -r * sigma / v)


class Preconditioned(Parametrization):
    """`Preconditioned` uses the preconditioning of Karras et al. 2022 (arXiv:2206.00364, Table 1), for any alpha.

    With s the data's standard deviation (`data_std`) and v = alpha^2 s^2 + sigma^2 the variance of x_t,

        x_0 = (alpha s^2 / v) x_t + (sigma s / sqrt(v)) F,  noise = (sigma / v) x_t - (alpha s / sqrt(v)) F,

    so that F has unit variance at all times. For alpha = 1 the coefficients of x_0 are the paper's c_skip and c_out.
    """

    time_label: str | TimeLabel = eqx.field(default="quarter_log_sigma", static=True)
    data_std: float = eqx.field(default=0.5, converter=as_float)

    def __check_init__(self) -> None:
        check_types(self)
        if self.data_std is None:
            raise InputError("Preconditioned got data_std=None; expected the data's standard deviation, such as 0.5.")

    def coefficients(self, sde: SDE, t: Array) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        alpha, sigma, std = sde.alpha(t), sde.sigma(t), self.data_std
        v = (alpha * std) ** 2 + sde.variance(t)
        root = jnp.sqrt(v)
        return (alpha * std**2 / v, sigma * std / root), (sigma / v, -alpha * std / root)


__all__ = [
    "X0",
    "Noise",
    "Parametrization",
    "Preconditioned",
    "PreviousMean",
    "Score",
    "VPrediction",
    "Velocity",
    "index",
    "log_sigma",
    "quarter_log_sigma",
    "scaled_log_snr",
    "scaled_time",
    "sigma",
]
