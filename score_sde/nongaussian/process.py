"""This module defines `Process`, a way from data to noise that is not Gaussian, behind the interface of an SDE."""

from __future__ import annotations

from typing import NoReturn

from jax.typing import ArrayLike

from score_sde.core.errors import InputError
from score_sde.sde import SDE


class Process(SDE):
    """`Process` is the base of ways from data to noise other than x_t = alpha x_0 + sigma noise with Gaussian noise.

    A process has `perturb`, which makes x_t, and `alpha` and `variance`, which make the two halves of a prediction.
    Data, networks, denoising losses, time grids and sampling jobs use these methods alone. A process has no probability
    flow and no density, so likelihoods and the samplers of SDEs raise InputError. To add a process, write a subclass
    with `alpha`, `variance` and `perturb`.
    """

    t_min = 0.0

    def drift_rate(self, t: ArrayLike) -> NoReturn:
        self._refuse("no drift and no diffusion")

    def velocity_rates(self, t: ArrayLike) -> NoReturn:
        self._refuse("no probability flow")

    def transition(self, s: ArrayLike, t: ArrayLike) -> NoReturn:
        self._refuse("no Gaussian steps")

    def _refuse(self, lacks: str) -> NoReturn:
        raise InputError(
            f"{type(self).__name__} has {lacks}: use the samplers Renoise, Stepwise or Cold of score_sde.nongaussian, "
            "and compare samples by a metric, such as KernelDistance."
        )
