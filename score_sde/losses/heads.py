"""This module defines objectives that train a variance beside the mean, or the variance alone on frozen weights."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, per_example_mean
from score_sde.core.errors import InputError
from score_sde.data import Batch
from score_sde.denoisers import Denoiser, Prediction
from score_sde.denoisers.reverse_variance import NoiseMoment, NoiseResidual, OfX0, at_shape
from score_sde.losses.denoising import Denoising, Noised
from score_sde.losses.objective import Parts
from score_sde.networks import joined, parted
from score_sde.sde import SDE

HEAD = "variance"


class Headed(Denoising):
    """`Headed` is the base of objectives with the loss of a variance beside the loss of the mean.

    With `head_only` the parameters are two groups: `network`, which is frozen and comes from another workdir
    (train.start_from), and `variance`, the parameters that the network declares to belong to the variance alone. Only
    the variance is trained, and the mean keeps its bits.

    Args:
        parts: objects that the config makes.
        head_only: whether the variance alone is trained.
        target, weight, times, stratified, reduction: arguments of `Denoising`, for the loss of the mean.
    """

    def __init__(
        self,
        parts: Parts,
        head_only: bool = False,
        target: str = "noise",
        weight: str | Mapping[str, Any] = "unit",
        times: str | Mapping[str, Any] = "uniform",
        stratified: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(parts, target, weight, times, stratified, reduction)
        self.head_only = head_only

    @property
    def frozen_groups(self) -> tuple[str, ...]:
        return (self.GROUP,) if self.head_only else ()

    def check(self) -> None:
        super().check()
        name = type(self).__name__
        if not isinstance(self.head_only, bool):
            raise InputError(f"objective.head_only is {self.head_only!r}; expected True or False.")
        meaning = self.parts.parametrization
        if meaning.variance is None:
            raise InputError(
                f"{name} trains a variance, and parametrization.variance is None; expected a variance, such as "
                "parametrization.variance='fraction'."
            )
        if self.head_only and not _has_head(self.parts):
            raise InputError(
                f"objective.head_only is True, but {type(self.parts.network).__name__} declares no parameters of the "
                "variance alone (Trait.head); expected a network such as DDPMpp or MLP."
            )

    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        params, state = super().init(key)
        if self.head_only:
            network, head = parted(params[self.GROUP], self.parts.network)
            params = {self.GROUP: network, HEAD: head}
        return params, state

    def denoiser(self, params: Mapping[str, Any]) -> Denoiser:
        if not self.head_only:
            return super().denoiser(params)
        return self.parts.denoiser(joined(jax.lax.stop_gradient(params[self.GROUP]), params[HEAD]))

    def losses(self, loss: Array) -> dict[str, Array]:
        """Return the loss by group; the loss of a frozen group is 0."""
        return {self.GROUP: jnp.zeros_like(loss), HEAD: loss} if self.head_only else {self.GROUP: loss}

    def __call__(self, params: dict[str, Any], state: Any, batch: Batch, key: Array, **options: Any) -> Any:
        losses, state, metrics = super().__call__(params, state, batch, key, **options)
        return self.losses(losses[self.GROUP]), state, metrics

    def measured(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        mean = 0 if self.head_only else super().measured(sde, t, noised, bins)
        return mean + self.of_variance(sde, t, noised, bins)

    @abc.abstractmethod
    def of_variance(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        """Return the loss of the variance, (batch,), which does not train the mean."""


class SecondMoment(Headed):
    """`SecondMoment` adds the squared error of h, from which the optimal variance follows, to the loss of the mean.

    With parametrization.variance='noise_moment' the loss is the mean of (h - noise^2)^2, whose minimiser is
    E[noise^2 | x_t] (SN-DDPM, Bao et al. 2022, arXiv:2206.07309, Eq. 9). With 'noise_residual' it is the mean of (h -
    (noise - predicted noise)^2)^2 (NPR-DPM, Eq. 13), which is right also for an imperfect mean. Neither trains the
    mean.

    Args:
        parts: objects that the config makes.
        head_only: whether the variance alone is trained, on frozen weights.
        target, weight, times, stratified, reduction: arguments of `Denoising`, for the loss of the mean.
    """

    def check(self) -> None:
        super().check()
        if self.parts.parametrization.variance not in ("noise_moment", "noise_residual"):
            raise InputError(
                f"SecondMoment with parametrization.variance={self.parts.parametrization.variance!r}; expected "
                "'noise_moment' or 'noise_residual'."
            )

    def of_variance(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        variance = noised.predicted.variance
        if isinstance(variance, NoiseMoment):
            target = noised.noise**2
        else:
            target = (noised.noise - jax.lax.stop_gradient(noised.predicted.noise)) ** 2
        assert isinstance(variance, NoiseMoment | NoiseResidual)
        return per_example_mean((variance.h - target) ** 2)


class PixelVariance(Headed):
    """`PixelVariance` is the Gaussian log-likelihood of x_0 given x_t with a variance C per pixel:

        mean over the dimensions of ((x_0 - predicted x_0)^2 / C + log C) / 2.

    The minimiser is C = E[(x_0 - predicted x_0)^2 | x_t], from which the optimal variance of a step follows. The loss
    trains mean and variance together, so it has no target, weight or reduction. The variance of a whole level, as
    in Karras et al. 2024 (arXiv:2312.02696, Eq. 14), is `LevelUncertainty`.

    Args:
        parts: objects that the config makes.
        head_only: whether the variance alone is trained, on frozen weights.
        times, stratified: as in `Denoising`.
    """

    def __init__(
        self,
        parts: Parts,
        head_only: bool = False,
        times: str | Mapping[str, Any] = "uniform",
        stratified: bool = False,
    ) -> None:
        super().__init__(parts, head_only, target="x0", times=times, stratified=stratified)

    def check(self) -> None:
        super().check()
        if self.parts.parametrization.variance != "log_x0":
            raise InputError(
                f"PixelVariance with parametrization.variance={self.parts.parametrization.variance!r}; expected "
                "'log_x0', a positive variance of x_0."
            )

    def measured(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        return self.of_variance(sde, t, noised, bins)

    def of_variance(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        variance = noised.predicted.variance
        assert isinstance(variance, OfX0)
        c = at_shape(variance.x0_variance(sde, t), noised.x0)
        error = (noised.x0 - noised.predicted.x0) ** 2
        return 0.5 * per_example_mean(error / c + jnp.log(c))


def with_stopped_mean(predicted: Prediction) -> Prediction:
    """Return a prediction whose means pass no gradient, so that a loss trains its variance only."""
    x0, noise = jax.lax.stop_gradient((predicted.x0, predicted.noise))
    return Prediction(x0, noise, predicted.variance)


def _has_head(parts: Parts) -> bool:
    params = jax.eval_shape(parts.network.init, keys_.stream(0, "init"))
    return bool(jax.tree.leaves(parted(params, parts.network)[1]))


__all__ = ["Headed", "PixelVariance", "SecondMoment"]
