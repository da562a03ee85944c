"""This module defines denoising score matching, which trains a denoiser to separate x_0 from noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde import config as config_
from score_sde.core import conditions, given
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, is_concrete, per_example_mean, per_example_sum, to_time
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.data import Batch
from score_sde.denoisers import Denoiser, Prediction
from score_sde.denoisers.inputs import as_denoiser, as_points, check_shape, check_times
from score_sde.losses import time_sampling, weighting
from score_sde.losses.objective import Across, Losses, Objective, Parts, Trained
from score_sde.losses.weighting import Weight, unit
from score_sde.sde import SDE

TARGETS = ("noise", "x0", "velocity")
REDUCTIONS = ("mean", "half_sum")
_LAST = 1.0 - 2.0**-24  # the largest float32 number below 1


def denoising_loss(
    denoiser: Denoiser,
    x0: Array,
    keys: Array,
    *,
    t: ArrayLike,
    target: str = "noise",
    weight: Weight = unit,
    cond: Cond = None,
    train: bool = True,
    reduction: str = "mean",
) -> Array:
    """Return weight(t) times the mean squared error of the prediction of `target`, one value per example.

    With x_t = alpha x_0 + sigma noise, the targets are noise (the objective of Song et al. 2021,
    Eq. 7, with lambda = sigma^2), x_0, and the velocity alpha' x_0 + sigma' noise. On `RectifiedFlow` the
    velocity is noise - x_0, and the velocity target gives flow matching (Lipman et al. 2023). The caller draws t.

    Args:
        denoiser: the model; gradients pass through it.
        x0: data, shape (batch, *shape).
        keys: one random key per example, shape (batch,), for the noise and the dropout of the example.
        t: times, shape () or (batch,), within [t_min, t_max] of the SDE.
        target: 'noise', 'x0' or 'velocity'.
        weight: a function (sde, t) -> shape of t, as in `weighting`; a weight that is defined for another
            quantity (weight.of) is converted.
        cond: None, or conditions by name as `denoiser.reads` declares them.
        train: whether dropout is on.
        reduction: 'mean' over an example's dimensions, or 'half_sum', half the sum over them: the
            settings reduce_mean=True and False of Song et al. 2021.

    Returns:
        The losses, shape (batch,).
    """
    denoiser, x0 = as_denoiser(denoiser), as_points(x0, "x0")
    check_shape(denoiser, x0.shape[1:], "x0")
    _check(denoiser.sde, x0, keys, t, target, reduction)
    cond = given.checked(cond, denoiser.reads, len(x0))
    t = to_time(t)
    noised = predict_noised(denoiser, x0, keys, t, cond, train)
    return squared_error(denoiser.sde, t, noised, target, weight, reduction)


class Noised(NamedTuple):
    """`Noised` holds data x0, the noise that was added, both (batch, *shape), and the prediction from x_t."""

    x0: Array
    noise: Array
    predicted: Prediction


def predict_noised(denoiser: Denoiser, x0: Array, keys: Array, t: Array, cond: Cond, train: bool) -> Noised:
    """Return the prediction from x_t = alpha x_0 + sigma noise; the arguments are those of `denoising_loss`."""
    noise = denoiser.sde.draw(keys_.fold(keys, "noise"), x0.shape[1:], x0.dtype)
    x_t = denoiser.sde.perturb(x0, noise, t)
    dropout = keys_.fold(keys, "dropout") if train else None
    return Noised(x0, noise, denoiser.predict(x_t, t, cond, keys=dropout))


def squared_error(sde: SDE, t: Array, noised: Noised, target: str, weight: Weight, reduction: str) -> Array:
    """Return the weighted squared error of a prediction, (batch,), as `denoising_loss` does."""
    x0, noise, predicted = noised
    error_x0, error_noise = predicted.x0 - x0, predicted.noise - noise
    if target == "velocity":
        alpha_rate, sigma_rate = sde.velocity_rates(t)
        error = expand(alpha_rate, x0) * error_x0 + expand(sigma_rate, x0) * error_noise
    else:
        error = error_noise if target == "noise" else error_x0
    size = per_example_mean(error**2) if reduction == "mean" else per_example_sum(error**2) / 2
    return weighting.on(target, weight, sde, t) * size


def _check(sde: SDE, x0: Array, keys: Array, t: ArrayLike, target: str, reduction: str) -> None:
    for name, value, known in (("target", target, TARGETS), ("reduction", reduction, REDUCTIONS)):
        if not isinstance(value, str) or value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}.")
    if not isinstance(keys, jax.Array) or keys.shape != x0.shape[:1]:
        raise InputError(
            f"keys are {keys!r} for {len(x0)} examples; expected one key per example, as from "
            "jax.random.split(jax.random.key(seed), batch)."
        )
    if is_concrete(sde, t):
        times = check_times(t, "t")
        if times.shape not in ((), x0.shape[:1]):
            raise InputError(f"t has shape {times.shape}; expected () or ({len(x0)},), one time per example.")
        sde.check_times(times, "t")
        if not np.all(np.asarray(sde.variance(times)) > 0):
            raise InputError(f"t contains {times.min():g}, where {type(sde).__name__} has no noise; use a larger t.")


class Denoising(Objective):
    """`Denoising` is denoising score matching or flow matching: `denoising_loss` at times drawn for each example.

    Every random draw is a function of (seed, step, place of the example in the whole batch).

    Args:
        parts: objects that the config makes.
        target: 'noise', 'x0' or 'velocity'.
        weight: a weight of `weighting`, or a `weighting.Weighting` by its dotted path; a name or a spec.
        times: a rule of `time_sampling`, or a `time_sampling.TimeSampling` by its dotted path; a name or a spec. The
            state of an adaptive rule, such as `LossAware`, is the objective's state.
        stratified: whether the times of a whole batch are spread evenly.
        reduction: 'mean' or 'half_sum', as in `denoising_loss`.
    """

    GROUP = "network"
    dequantises: ClassVar[bool] = True  # whether the codec's noise is part of the data that the loss sees

    def __init__(
        self,
        parts: Parts,
        target: str = "noise",
        weight: str | Mapping[str, Any] = "unit",
        times: str | Mapping[str, Any] = "uniform",
        stratified: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(parts)
        for name, value, known in (("target", target, TARGETS), ("reduction", reduction, REDUCTIONS)):
            if not isinstance(value, str) or value not in known:
                raise InputError(f"objective.{name} is {value!r}; expected one of {', '.join(known)}.")
        self.target, self.reduction, self.stratified = target, reduction, stratified
        self.weight: Weight = config_.rule(weighting, weight, weighting.Weighting)
        self.times: time_sampling.Times = config_.rule(time_sampling, times, time_sampling.TimeSampling)

    def check(self) -> None:
        sde = self.parts.sde

        @jax.jit
        def weights(u: Array) -> tuple[Array, Array]:
            t, factor = self.times(sde, u)
            return t, factor * weighting.on(self.target, self.weight, sde, t)

        t, weight = (np.asarray(values) for values in weights(jnp.asarray([0.0, 0.1234, 0.5, _LAST])))
        _check_on_levels(sde, t)
        if not np.isfinite(weight).all():
            raise InputError(
                f"objective.weight and objective.times give the times {t} the weights {weight}; expected finite "
                f"weights, but {type(sde).__name__} has no signal or no noise at some of these times: use "
                "weight='unit' and times='uniform', or an SDE with a smaller range of times."
            )
        if self.target == "velocity":
            sde.velocity_rates(sde.t_max)

    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        return {self.GROUP: self.parts.network.init(key)}, time_sampling.start(self.times, self.parts.sde)

    def __call__(
        self,
        params: dict[str, Any],
        state: Any,
        batch: Batch,
        key: Array,
        *,
        step: Array,
        averages: Mapping[str, dict[str, Any]],
        frozen: Mapping[str, Any],
        across: Across,
        train: bool,
    ) -> tuple[Losses, Any, dict[str, Array]]:
        t, factor = self.drawn(batch, key, state, train)
        loss = self.at_time(t, params, batch, key, frozen=frozen, train=train)
        return {self.GROUP: factor * loss}, self.observed(state, t, loss, across), {}

    def at_time(
        self,
        t: ArrayLike,
        params: dict[str, Any],
        batch: Batch,
        key: Array,
        *,
        frozen: Mapping[str, Any],
        train: bool = False,
    ) -> Array:
        """Return the loss of each example at times t, shape () or (batch,), with all other draws as in `__call__`."""
        keys = keys_.examples(key, batch["index"])
        codec, denoiser = frozen["codec"], self.denoiser(params)
        x0, _ = codec.encode(batch["values"], keys_.fold(keys, "encode") if self.dequantises else None)
        t = jnp.broadcast_to(to_time(t), x0.shape[:1])
        noised = predict_noised(denoiser, x0, keys, t, conditions.only(batch["cond"], denoiser.reads), train)
        return self.measured(denoiser.sde, t, noised, codec.bins(batch["values"]))

    def measured(self, sde: SDE, t: Array, noised: Noised, bins: tuple[Array, Array] | None) -> Array:
        """Return the loss of predictions at times t, both (batch,); `bins` are those of the data (`Codec.bins`)."""
        return squared_error(sde, t, noised, self.target, self.weight, self.reduction)

    def model(self, trained: Trained) -> Denoiser:
        return self.denoiser(trained.params)

    def denoiser(self, params: Mapping[str, Any]) -> Denoiser:
        """Return the denoiser with these parameters by group."""
        return self.parts.denoiser(params[self.GROUP])

    def drawn(self, batch: Batch, key: Array, state: Any, train: bool) -> tuple[Array, Array]:
        """Return times and factors of a batch from the key of its step; held-out losses do not use the state."""
        keys = keys_.fold(keys_.examples(key, batch["index"]), "times")
        return self.draw_times(keys, batch["index"], state if train else None)

    def draw_times(self, keys: Array, index: Array, state: Any = None) -> tuple[Array, Array]:
        """Return times and the factors of their losses, each (batch,).

        Args:
            keys: random keys of the examples for their times, (batch,).
            index: place of each example in the whole batch.
            state: state of an adaptive rule; None for the rule without its state, as in held-out losses.
        """
        u = time_sampling.draws(keys, index, self.parts.batch_size if self.stratified else None)
        if state is None:
            return self.times(self.parts.sde, u)
        return time_sampling.drawn(self.times, state, self.parts.sde, u)

    def observed(self, state: Any, t: Array, loss: Array, across: Across) -> Any:
        """Return the state of the rule of times after the losses of the rows of all devices, without their factors."""
        if not isinstance(self.times, time_sampling.Adaptive):
            return state
        times, losses = across.gather((t, jax.lax.stop_gradient(loss)))
        return self.times.observed(state, self.parts.sde, times, losses)


def _check_on_levels(sde: SDE, t: np.ndarray) -> None:
    if sde.levels is None:
        return
    levels = t * sde.levels
    if np.any(np.abs(levels - np.round(levels)) > 1e-2) or np.any(np.round(levels) < 1):
        raise InputError(
            f"objective.times draws times between the levels of {type(sde).__name__}; expected "
            "objective.times='knots' for a chain."
        )


__all__ = ["Denoising", "denoising_loss"]
