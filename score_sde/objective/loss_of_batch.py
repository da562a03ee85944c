"""From a batch of data to a loss for each example."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import ml_collections
from jax.typing import ArrayLike

from score_sde import config as config_
from score_sde import loss as loss_
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.denoiser import Denoiser
from score_sde.guidance import drop_labels
from score_sde.model import Blueprint

Batch = dict[str, Any]  # 'image' (batch, *shape), 'label' (batch,), 'index' (batch,): place in the whole batch


@dataclasses.dataclass(frozen=True)
class Objective:
    """The denoising loss of a batch, every draw keyed by (seed, step, place in the whole batch).

    Attributes:
        blueprint: the model's parts.
        target, weight, times: as in `denoising_loss`; times draws one time per key.
        label_dropout: the probability with which a training example's label is replaced by none.
    """

    blueprint: Blueprint
    target: str
    weight: loss_.Weight
    times: loss_.Times
    label_dropout: float

    @classmethod
    def from_config(cls, blueprint: Blueprint, config: ml_collections.ConfigDict) -> Objective:
        spec = config.loss
        if not 0 <= spec.label_dropout <= 1:
            raise InputError(f"loss.label_dropout is {spec.label_dropout}; expected a probability.")
        if spec.target not in loss_.TARGETS:
            raise InputError(f"loss.target is {spec.target!r}; expected one of {', '.join(loss_.TARGETS)}.")
        weight = config_.lookup(loss_, spec.weight, offered=loss_.WEIGHTS)
        times = config_.lookup(loss_, spec.times, offered=loss_.TIMES)
        return cls(blueprint, spec.target, weight, times, spec.label_dropout)

    def __call__(
        self, denoiser: Denoiser, batch: Batch, key: Array, *, train: bool, t: ArrayLike | None = None
    ) -> Array:
        """Losses of shape (batch,); key of shape () is this step's; t None draws the times."""
        keys = keys_.examples(key, batch["index"])
        t = self.times(self.blueprint.sde, keys_.fold(keys, 0)) if t is None else t
        transform, cond = self.blueprint.dataset.transform, None
        x0 = transform.forward(transform.dequantize(batch["image"], keys_.fold(keys, 1)))
        if self.blueprint.num_classes is not None:
            label = batch["label"].astype("int32")
            if train:
                label = drop_labels(keys_.fold(keys, 2), label, self.label_dropout, self.blueprint.num_classes)
            cond = {"label": label}
        return loss_.denoising_loss(
            denoiser, x0, keys_.fold(keys, 3), t=t, target=self.target, weight=self.weight, cond=cond, train=train
        )


def step_key(seed: int, step: ArrayLike) -> Array:
    """The key of one training step, shape ()."""
    return jax.random.fold_in(keys_.root(seed), step)
