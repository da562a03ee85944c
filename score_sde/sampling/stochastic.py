"""This module defines samplers that draw fresh noise at every step and discretise the reverse-time SDE."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.denoisers.reverse_variance import at_shape, check_kind, reverse_variance
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_drift
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """`EulerMaruyama` discretises a reverse-time SDE by Euler-Maruyama (Song et al. 2021, Eq. 6), weak order 1.

    With lambda = noise g, the sampler solves a family of SDEs with the same marginals (Huang et al. 2021,
    arXiv:2106.02808; Karras et al. 2022, arXiv:2206.00364, Eq. 6):

        x_s = x_t - (f x_t - (g^2 + lambda^2) / 2 score) (t - s) + lambda sqrt(t - s) z.

    Attributes:
        noise: lambda / g. 1 is the reverse-time SDE, and 0 is Euler's method on the probability-flow ODE; values
            above 1 are allowed.
    """

    noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.noise < math.inf:
            raise InputError(f"EulerMaruyama got noise={self.noise!r}; expected a number of at least 0.")

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_drift(self, sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde, dt = denoiser.sde, t - s
        g2 = sde.diffusion_squared(t)
        pull = expand((1 + self.noise**2) / 2 * g2, x) * denoiser.score(x, t, cond)
        mean = x - expand(dt, x) * (sde.drift(x, t) - pull)
        if self.noise == 0:
            return mean, state, evaluations(denoiser, x, t)
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        return mean + expand(self.noise * jnp.sqrt(g2 * dt), x) * z, state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class ReverseDiffusion(Sampler):
    """`ReverseDiffusion` is the reverse diffusion sampler (Song et al. 2021, App. E), weak order 1.

    The kernel x_t | x_s ~ N(r x_s, v I) discretises the forward SDE. The reverse-time SDE is discretised likewise:

        x_s = (2 - r) x_t + v score + sqrt(v) z.

    On a chain, r = sqrt(1 - beta_i) and v = beta_i for VP, and r = 1 and v = sigma_i^2 - sigma_(i-1)^2 for SMLD. A step
    to data (level 0 of a chain) draws no noise.
    """

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        r, v = denoiser.sde.transition(s, t)
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        mean = expand(2 - r, x) * x + expand(v, x) * denoiser.score(x, t, cond)
        return mean + expand(_unless_data(denoiser.sde, s, jnp.sqrt(v)), x) * z, state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class Ancestral(Sampler):
    """`Ancestral` draws x_s from q(x_s | x_t, x_0), where x_0 is the predicted mean, weak order 1.

    With the forward kernel x_t | x_s ~ N(r x_s, v I),

        x_s = alpha_s x_0 + (r sigma_s^2 / sigma_t) noise + std z,

    where std^2 is v sigma_s^2 / sigma_t^2 ('posterior', the reverse variance if x_0 is known), v ('forward', which on
    VP is the reverse variance for data of unit variance), the variance that the denoiser predicts ('learned'), or the
    variance that follows from Var[x_0 | x_t] ('optimal'), from a network, from a `GaussianMixture` or from the guide
    `Analytic`. The last two belong to the pair (s, t), so they hold for any sub-sequence of levels. With the optimal
    variance x_s has the exact variance for Gaussian data, for any grid. The sources are Ho et al. 2020
    (arXiv:2006.11239), Eq. (6-7), for VP, Song et al. 2021, App. F, for VE, Nichol & Dhariwal 2021 (arXiv:2102.09672)
    for learned variances, and Bao et al. 2022 (arXiv:2201.06503) for optimal ones; this class supports any SDE. A step
    to data (level 0 of a chain) draws no noise.

    Attributes:
        variance: 'posterior', 'forward', 'learned' or 'optimal'.
    """

    variance: str = "posterior"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("Ancestral", self.variance)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        r, _ = sde.transition(s, t)
        variance_s, variance_t = sde.variance(s), sde.variance(t)
        predicted = denoiser.predict(x, t, cond)
        std = _unless_data(sde, s, jnp.sqrt(reverse_variance(sde, s, t, predicted, self.variance)))
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        mean = expand(sde.alpha(s), x) * predicted.x0
        mean = mean + expand(r * variance_s / jnp.sqrt(variance_t), x) * predicted.noise
        return mean + at_shape(std, x) * z, state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class DDIM(Sampler):
    """`DDIM` is the sampler of Song et al. 2020 (arXiv:2010.02502, Eq. 12), for any SDE, order 1.

        x_s = alpha_s x_0 + sqrt(sigma_s^2 - tau^2) noise + tau z,  tau = eta sqrt(v) sigma_s / sigma_t.

    DDIM stands for denoising diffusion implicit models. eta = 0 is Euler's method on the probability-flow ODE in
    (x / alpha, sigma / alpha), without fresh noise. eta = 1 is Ancestral('posterior'). The sampler is defined at
    alpha = 0, and for a step to any smaller time.

    Attributes:
        eta: the fraction of the posterior's standard deviation that is drawn as fresh noise, from 0 to 1.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise InputError(f"{type(self).__name__} got eta={self.eta!r}; expected a number from 0 to 1.")

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        predicted = denoiser.predict(x, t, cond)
        signal, noise = expand(sde.alpha(s), x) * predicted.x0, predicted.noise
        if self.eta == 0:
            return signal + expand(sde.sigma(s), x) * noise, state, evaluations(denoiser, x, t)
        tau = self.eta * _posterior_std(sde, s, t)
        kept = jnp.sqrt(jnp.maximum(sde.variance(s) - tau**2, 0))
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        return signal + expand(kept, x) * noise + expand(tau, x) * z, state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class EulerAncestral(DDIM):
    """`EulerAncestral` is Euler's method with ancestral noise, as in k-diffusion; its step is the step of DDIM(eta).

    In y = x / alpha and sigma / alpha, a step goes down to sqrt(sigma_s^2 - tau^2) and up again by tau z. This is
    another form of the formula of DDIM.
    """

    eta: float = 1.0


def _unless_data(sde: SDE, s: Array, std: Array) -> Array:
    """Return std, or 0 if the step leads to data (Ho et al. 2020, Algorithm 2)."""
    return jnp.where(at_shape(sde.variance(s) > 0, std), std, 0)


def _posterior_std(sde: SDE, s: Array, t: Array) -> Array:
    """Return sqrt(v) sigma_s / sigma_t, the standard deviation of x_s given x_t and x_0."""
    _, v = sde.transition(s, t)
    return jnp.sqrt(v * sde.variance(s) / sde.variance(t))
