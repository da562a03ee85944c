"""From a batch of data to a loss for each example."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.typing import ArrayLike

from score_sde import config as config_
from score_sde import loss as loss_
from score_sde import times as times_
from score_sde import weights as weights_
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.denoiser import Denoiser
from score_sde.guidance import drop_labels
from score_sde.model import Blueprint

_LAST = 1.0 - 2.0**-24  # the last number below 1 in float32
Batch = dict[str, Any]  # 'image' (batch, *shape), 'label' (batch,), 'index' (batch,): place in the whole batch


@dataclasses.dataclass(frozen=True)
class Objective:
    """The denoising loss of a batch, every draw keyed by (seed, step, place in the whole batch).

    Attributes:
        blueprint: the model's parts.
        target, weight, reduction: as in `denoising_loss`.
        times: a rule of `times`.
        stratified: over how many examples times are stratified, the whole batch, or None.
        label_dropout: the probability with which a training example's label is replaced by none.
    """

    blueprint: Blueprint
    target: str
    weight: weights_.Weight
    times: times_.Times
    label_dropout: float
    reduction: str = "mean"
    stratified: int | None = None

    @classmethod
    def from_config(cls, blueprint: Blueprint, config: ml_collections.ConfigDict) -> Objective:
        spec = config.loss
        if not 0 <= spec.label_dropout <= 1:
            raise InputError(f"loss.label_dropout is {spec.label_dropout}; expected a probability.")
        if spec.target not in loss_.TARGETS:
            raise InputError(f"loss.target is {spec.target!r}; expected one of {', '.join(loss_.TARGETS)}.")
        reduction = spec.get("reduction", "mean")  # workdirs from before it was an entry have none
        if reduction not in loss_.REDUCTIONS:
            raise InputError(f"loss.reduction is {reduction!r}; expected one of {', '.join(loss_.REDUCTIONS)}.")
        weight, times = config_.rule(weights_, spec.weight), config_.rule(times_, spec.times)
        stratified = config.data.batch_size if spec.get("stratified", False) else None
        objective = cls(blueprint, spec.target, weight, times, spec.label_dropout, reduction, stratified)
        objective.check()
        return objective

    def check(self) -> None:
        """Raise InputError, before anything is written, where times, weight or target do not suit the SDE."""
        sde = self.blueprint.sde
        if sde.levels is not None and self.times is not times_.knots:
            raise InputError(
                f"loss.times draws times between the levels of {type(sde).__name__}; expected loss.times='knots' for "
                "a chain."
            )

        @jax.jit
        def weights(u: Array) -> tuple[Array, Array]:
            t, factor = self.times(sde, u)
            return t, factor * weights_.on(self.target, self.weight, sde, t)

        t, weight = (np.asarray(values) for values in weights(jnp.asarray([0.0, 0.5, _LAST])))
        if not np.isfinite(weight).all():
            raise InputError(
                f"loss.weight and loss.times give the times {t} the weights {weight}: not finite on "
                f"{type(sde).__name__}, which has no signal or no noise left there; use weight='unit' and "
                "times='uniform', or an SDE that stops before."
            )
        if self.target == "velocity":
            sde.velocity_rates(sde.t_max)

    def __call__(
        self, denoiser: Denoiser, batch: Batch, key: Array, *, train: bool, t: ArrayLike | None = None
    ) -> Array:
        """Losses of shape (batch,); key of shape () is this step's; t None draws the times."""
        keys, factor = keys_.examples(key, batch["index"]), None
        if t is None:
            t, factor = self.draw_times(keys_.fold(keys, 0), batch["index"])
        transform, cond = self.blueprint.dataset.transform, None
        x0 = transform.forward(transform.dequantize(batch["image"], keys_.fold(keys, 1)))
        if self.blueprint.num_classes is not None:
            label = batch["label"].astype("int32")
            if train:
                label = drop_labels(keys_.fold(keys, 2), label, self.label_dropout, self.blueprint.num_classes)
            cond = {"label": label}
        settings: dict[str, Any] = {"target": self.target, "weight": self.weight, "reduction": self.reduction}
        losses = loss_.denoising_loss(denoiser, x0, keys_.fold(keys, 3), t=t, cond=cond, train=train, **settings)
        return losses if factor is None else factor * losses

    def draw_times(self, keys: Array, index: Array) -> tuple[Array, Array]:
        """Times and the factors of their losses, each (batch,); index is the place in the whole batch."""
        u = keys_.draw(jax.random.uniform, keys, ())
        if self.stratified is not None:
            u = jnp.minimum((index % self.stratified + u) / self.stratified, _LAST)
        return self.times(self.blueprint.sde, u)


def step_key(seed: int, step: ArrayLike) -> Array:
    """The key of one training step, shape ()."""
    return jax.random.fold_in(keys_.root(seed), step)
