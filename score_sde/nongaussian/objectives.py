"""This module defines the objectives of processes that are not Gaussian."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from score_sde.core.arrays import Array, expand, per_example_mean
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.data import Batch
from score_sde.denoisers import Denoiser
from score_sde.losses import Denoising
from score_sde.losses.denoising import Noised
from score_sde.losses.objective import Losses, Parts, Trained
from score_sde.nongaussian.binary import PixelNoise, require_pixel_noise
from score_sde.nongaussian.degradations import Degradation
from score_sde.sde import SDE

NORMS = {"l1": jnp.abs, "l2": jnp.square}


class Restoration(Denoising):
    """`Restoration` trains a network to restore x_0 from x_t, with the L1 or the squared error of each pixel.

    The L1 error at uniform t is the loss of Bansal et al. 2022 (arXiv:2208.09392, Eq. 1). For a `Degradation` the state
    of the objective holds the last degraded pictures at t_max, from which the model starts its samples.

    Args:
        parts: objects that the config makes.
        norm: 'l1' or 'l2', the mean over an example's pixels.
        starts: number of degraded pictures that are kept.
        **options: times and stratified, as for `Denoising`.
    """

    dequantises: ClassVar[bool] = False

    def __init__(self, parts: Parts, norm: str = "l1", starts: int = 1024, **options: Any) -> None:
        super().__init__(parts, target="x0", **options)
        if not isinstance(norm, str) or norm not in NORMS:
            raise InputError(f"objective.norm is {norm!r}; expected one of {', '.join(NORMS)}.")
        require_whole("objective.starts", starts, 1)
        self.norm, self.starts = norm, starts if isinstance(parts.sde, Degradation) else 0

    def measured(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        return per_example_mean(NORMS[self.norm](noised.predicted.x0 - noised.x0))

    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        params, times = super().init(key)
        starts = jnp.zeros((self.starts, *self.parts.codec.model_shape)) if self.starts else ()
        return params, {"times": times, "starts": starts}

    def __call__(
        self, params: dict[str, Any], state: Any, batch: Batch, key: Array, *, step: Array, **options: Any
    ) -> tuple[Losses, Any, dict[str, Array]]:
        losses, times, metrics = super().__call__(params, state["times"], batch, key, step=step, **options)
        starts = state["starts"]
        if self.starts:
            x0, _ = options["frozen"]["codec"].encode(batch["values"], None)
            degraded = options["across"].gather(self.parts.sde.perturb(x0, x0, self.parts.sde.t_max))
            # The first step fills all places; later steps replace the oldest pictures.
            again = jnp.take(degraded, jnp.arange(self.starts) % len(degraded), axis=0)
            starts = jnp.concatenate([degraded, jnp.where(step == 0, again, starts)])[: self.starts]
        return losses, {"times": times, "starts": starts}, metrics

    def model(self, trained: Trained) -> Denoiser:
        denoiser = self.parts.denoiser(trained.params[self.GROUP])
        if not isinstance(denoiser.sde, Degradation):
            return denoiser
        return dataclasses.replace(denoiser, sde=dataclasses.replace(denoiser.sde, starts=trained.state["starts"]))


class OneStep(Denoising):
    """`OneStep` is algorithm 1 of Bloem: from x_t, a network predicts x_s with one pixel less set, |F - x_s|^2.

    The parametrisation is `PreviousState`. Times are drawn at random; the lecture goes through them in order.

    Args:
        parts: objects that the config makes.
        **options: stratified, as for `Denoising`.
    """

    dequantises: ClassVar[bool] = False

    def __init__(self, parts: Parts, **options: Any) -> None:
        super().__init__(parts, target="x0", times="knots", **options)

    def check(self) -> None:
        require_pixel_noise(self, self.parts.sde, counted=True)
        super().check()

    def measured(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        assert isinstance(sde, PixelNoise) and sde.levels is not None
        x0, noise, predicted = noised
        s = jnp.maximum(t - 1 / sde.levels, 0)
        a, b = sde.previous(s, t)
        mean = expand(a, x0) * predicted.x0 + expand(b, x0) * sde.perturb(x0, noise, t)
        return per_example_mean((mean - sde.perturb(x0, noise, s)) ** 2)
