"""Samplers that draw fresh noise at every step: discretisations of the reverse-time SDE."""

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
from score_sde.sampling.base import Sampler, State, evaluations
from score_sde.sampling.checks import check_drift
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """The Euler-Maruyama discretisation of a reverse-time SDE (Song et al. 2021, Eq. 6), weak order 1.

    With lambda = noise g, a family of SDEs with the same marginals (Huang et al. 2021, arXiv:2106.02808; Karras et
    al. 2022, arXiv:2206.00364, Eq. 6):

        x_s = x_t - (f x_t - (g^2 + lambda^2) / 2 score) (t - s) + lambda sqrt(t - s) z.

    Attributes:
        noise: lambda / g. 1 is the reverse-time SDE, 0 Euler's method on the probability flow; more is
            allowed.
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
    """The reverse diffusion sampler (Song et al. 2021, App. E), weak order 1.

    The reverse-time SDE discretised as the forward one is by its kernel x_t | x_s ~ N(r x_s, v I):

        x_s = (2 - r) x_t + v score + sqrt(v) z.

    On a chain r = sqrt(1 - beta_i), v = beta_i for VP, and r = 1, v = sigma_i^2 - sigma_(i-1)^2 for SMLD. A step to
    data, a chain's level 0, draws no noise.
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
    """Ancestral sampling: draws x_s from q(x_s | x_t, x_0) with x_0 the predicted mean, weak order 1.

    With the forward kernel x_t | x_s ~ N(r x_s, v I),

        x_s = alpha_s x_0 + (r sigma_s^2 / sigma_t) noise + std z,

    std^2 = v sigma_s^2 / sigma_t^2 ('posterior', the reverse variance were x_0 known) or v
    ('forward', which on VP is the reverse variance for data of unit variance). Ho et al. 2020 (arXiv:2006.11239),
    Eq. (6-7), for VP; Song et al. 2021, App. F, for VE; here for any SDE. A step to data, a chain's level 0, draws
    no noise.

    Attributes:
        variance: 'posterior' or 'forward'.
    """

    variance: str = "posterior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in ("posterior", "forward"):
            raise InputError(f"Ancestral got variance={self.variance!r}; expected 'posterior' or 'forward'.")

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        r, v = sde.transition(s, t)
        variance_s, variance_t = sde.variance(s), sde.variance(t)
        std = _posterior_std(sde, s, t) if self.variance == "posterior" else _unless_data(sde, s, jnp.sqrt(v))
        predicted = denoiser.predict(x, t, cond)
        z = keys_.normal(keys, x.shape[1:], x.dtype)
        mean = expand(sde.alpha(s), x) * predicted.x0
        mean = mean + expand(r * variance_s / jnp.sqrt(variance_t), x) * predicted.noise
        return mean + expand(std, x) * z, state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class DDIM(Sampler):
    """Denoising diffusion implicit models (Song et al. 2020, arXiv:2010.02502, Eq. 12), for any SDE, order 1.

        x_s = alpha_s x_0 + sqrt(sigma_s^2 - tau^2) noise + tau z,  tau = eta sqrt(v) sigma_s / sigma_t.

    eta = 0 is Euler's method on the probability flow in (x / alpha, sigma / alpha), without fresh noise;
    eta = 1 is Ancestral('posterior'). Defined at alpha = 0, and for steps to any smaller time.

    Attributes:
        eta: from 0 to 1, the part of the posterior's standard deviation that is drawn anew.
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
    """Euler's method with ancestral noise, as k-diffusion made it known: the same step as DDIM(eta).

    In y = x / alpha and sigma / alpha it goes down to sqrt(sigma_s^2 - tau^2) and up again by tau z, which
    is DDIM's formula written otherwise.
    """

    eta: float = 1.0


def _unless_data(sde: SDE, s: Array, std: Array) -> Array:
    """The noise of a step, none where it leads to data (Ho et al. 2020, Algorithm 2)."""
    return jnp.where(sde.variance(s) > 0, std, 0)


def _posterior_std(sde: SDE, s: Array, t: Array) -> Array:
    """sqrt(v) sigma_s / sigma_t, the standard deviation of x_s given x_t and x_0."""
    _, v = sde.transition(s, t)
    return jnp.sqrt(v * sde.variance(s) / sde.variance(t))
