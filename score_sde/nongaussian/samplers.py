"""This module defines the samplers of processes that are not Gaussian."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.checks import is_whole, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.nongaussian.binary import PixelNoise, colours, require_pixel_noise
from score_sde.nongaussian.process import Process
from score_sde.sampling import Sampler
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE

First = tuple[Array, Array]  # the noise that the first step predicted, and whether there was one


def every(process: Process, k: int) -> np.ndarray:
    """Return the times from all levels to 0 in steps of k levels, the K of `Renoise`; the last step may be shorter."""
    levels = process.levels or 0
    if not is_whole(k, 1) or k > levels:
        raise InputError(f"k is {shown(k)}; expected a whole number from 1 to T, the {levels} levels of {process}.")
    return np.append(np.arange(levels, 0, -k), 0) / levels


@dataclasses.dataclass(frozen=True)
class Renoise(Sampler):
    """`Renoise` predicts x_0 and adds new noise of level s to it: x_s = perturb(x_0, noise, s).

    This is algorithm 2 of Bloem, whose K is the length of a step in levels (`every`); a larger K is faster. A step
    forgets x_t, so x_s has the right marginal if x_0 is a draw from p(x_0 | x_t), and not its mean.

    Attributes:
        draws: whether x_0 is drawn, each pixel black or white with the predicted mean; otherwise x_0 is the mean, with
            grey pixels, as in the lecture. A draw is exact if the pixels of x_0 given x_t are independent.
    """

    draws: bool = False
    takes_temperature = False

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        if self.draws:
            require_pixel_noise(self, sde)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: tuple[()], cond: Cond = None
    ) -> tuple[Array, tuple[()], Array]:
        x0 = denoiser.denoise(x, t, cond)
        if self.draws:
            x0 = colours(keys_.fold(keys, "colours"), x0)
        noise = denoiser.sde.draw(keys_.fold(keys, "renoise"), x.shape[1:], x.dtype)
        return denoiser.sde.perturb(x0, noise, s), state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class Stepwise(Sampler):
    """`Stepwise` goes to the mean E[x_s | x_t], or draws x_s with this mean, each pixel black or white.

    The mean is algorithm 1 of Bloem: x_s = F of a network that was trained by `OneStep`, with grey pixels. Drawn
    pixels, `draws=True`, have exact marginals in the limit of small steps, for binary data and independent pixels.

    Attributes:
        draws: whether the pixels are drawn.
    """

    draws: bool = False
    takes_temperature = False

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        require_pixel_noise(self, sde)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: tuple[()], cond: Cond = None
    ) -> tuple[Array, tuple[()], Array]:
        assert isinstance(denoiser.sde, PixelNoise)
        a, b = denoiser.sde.previous(s, t)
        mean = expand(a, x) * denoiser.denoise(x, t, cond) + expand(b, x) * x
        x_s = colours(keys_.fold(keys, "colours"), mean) if self.draws else mean
        return x_s, state, evaluations(denoiser, x, t)


@dataclasses.dataclass(frozen=True)
class Cold(Sampler):
    """`Cold` restores x_0 and degrades it again, less (Bansal et al. 2022, arXiv:2208.09392).

    With the degradation D(x_0, e, t) = perturb(x_0, e, t) of the process, where e is its random part if it has one,
    the improved sampling of Algorithm 2 is x_s = x_t - D(x_0, e, t) + D(x_0, e, s). It is exact for
    D(x_0, t) = x_0 + t v with any x_0. On an SDE it is DDIM, because D(x_0, e, t) = x_t. The naive sampling of
    Algorithm 1 is x_s = D(x_0, e, s).

    Attributes:
        improved: whether sampling is improved.
        keeps: whether e is that of the first step of the walk throughout; otherwise e is predicted in each step.
    """

    improved: bool = True
    keeps: bool = False
    takes_temperature = False

    def init(self, x: Array) -> First:
        return jnp.zeros_like(x), jnp.zeros((), bool)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: First, cond: Cond = None
    ) -> tuple[Array, First, Array]:
        sde, predicted = denoiser.sde, denoiser.predict(x, t, cond)
        first, has_begun = state
        noise = jnp.where(has_begun, first, predicted.noise) if self.keeps else predicted.noise
        x_s = sde.perturb(predicted.x0, noise, s)
        if self.improved:
            x_s = x - sde.perturb(predicted.x0, noise, t) + x_s
        return x_s, (noise, jnp.ones((), bool)), evaluations(denoiser, x, t)
