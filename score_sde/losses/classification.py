"""This module defines the objective that trains a classifier of noised examples, at all noise levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from score_sde import config as config_
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.conditions import Cond, Condition, Label
from score_sde.core.errors import InputError
from score_sde.data import Batch
from score_sde.denoisers import NetworkClassifier
from score_sde.losses import time_sampling
from score_sde.losses.objective import Across, Losses, Objective, Parts, Trained

LABEL = "label"
QUARTERS = 4


class Classification(Objective):
    """`Classification` trains log p(label | x_t) by the cross-entropy at times drawn for each example.

    The sources are Song et al. 2021 (App. I.1) and Dhariwal & Nichol 2021 (arXiv:2105.05233, Sec. 4). The network
    returns logits, (batch, classes), such as `networks.UNetClassifier` and `networks.WideResNet`. Its input and its
    time label are those of config.parametrization.

    The metrics are `accuracy`, and `accuracy_quarter1` to `accuracy_quarter4`, the accuracy in each quarter of the
    drawn times, from the least noise to the most. With stratified times and a batch size divisible by 4, each quarter
    has a quarter of the batch; otherwise a metric of a quarter is unbiased, and may exceed 1.

    Args:
        parts: objects that the config makes.
        times: a rule of `time_sampling`, or a `time_sampling.TimeSampling` by its dotted path; a name or a spec. The
            factor of importance sampling is not used.
        stratified: whether the times of a whole batch are spread evenly.
    """

    GROUP = "network"

    def __init__(self, parts: Parts, times: str | Mapping[str, Any] = "uniform", stratified: bool = True) -> None:
        super().__init__(parts)
        self.times: time_sampling.Times = config_.rule(time_sampling, times, time_sampling.TimeSampling)
        self.stratified = stratified

    @property
    def reads(self) -> Mapping[str, Condition]:
        label = self.parts.conditions.get(LABEL)
        if not isinstance(label, Label):
            raise InputError(
                f"Classification learns classes, and the data have {', '.join(self.parts.conditions) or 'none'}; "
                "expected a data set with the condition 'label'."
            )
        return {LABEL: dataclasses.replace(label, required=True)}

    def check(self) -> None:
        network, sde = self.parts.network, self.parts.sde
        if network.conditions:
            raise InputError(
                f"{type(network).__name__} reads {', '.join(network.conditions)}, and Classification predicts the "
                "class from x_t alone; expected a network without conditions: use data.given=()."
            )
        if sde.levels is not None and self.times is not time_sampling.knots:
            raise InputError(
                f"objective.times draws times between the levels of {type(sde).__name__}; expected "
                "objective.times='knots' for a chain."
            )
        like = jax.ShapeDtypeStruct((1, *self.parts.codec.model_shape), jnp.float32)
        params = jax.eval_shape(network.init, keys_.stream(0, "init"))
        out = jax.eval_shape(network.apply, params, like, jax.ShapeDtypeStruct((1,), jnp.float32))
        if out.shape != (1, self.classes):
            raise InputError(
                f"{type(network).__name__} returns shape {out.shape} for one example; expected (1, {self.classes}), "
                "one logit for each class: use UNetClassifier or WideResNet."
            )

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        label = self.reads[LABEL]
        assert isinstance(label, Label)
        return label.classes

    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        return {self.GROUP: self.parts.network.init(key)}, ()

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
        keys = keys_.examples(key, batch["index"])
        spread = self.parts.batch_size if self.stratified else None
        u = time_sampling.draws(keys_.fold(keys, "times"), batch["index"], spread)
        t, _ = self.times(self.parts.sde, u)
        loss, right = self._measured(t, params, batch, keys, frozen, train)
        quarter = jnp.floor(QUARTERS * u)
        metrics = {"accuracy": jnp.mean(right)}
        for number in range(QUARTERS):
            metrics[f"accuracy_quarter{number + 1}"] = QUARTERS * jnp.mean(right * (quarter == number))
        return {self.GROUP: loss}, state, metrics

    def at_time(
        self, t: Array, params: dict[str, Any], batch: Batch, key: Array, *, frozen: Mapping[str, Any]
    ) -> Array:
        """Return the cross-entropy of each example at one time, without dropout, (batch,)."""
        return self._measured(t, params, batch, keys_.examples(key, batch["index"]), frozen, False)[0]

    def right_at_time(
        self, t: Array, params: dict[str, Any], batch: Batch, key: Array, *, frozen: Mapping[str, Any]
    ) -> Array:
        """Return 1 for each example whose class has the largest logit at one time, otherwise 0, (batch,)."""
        return self._measured(t, params, batch, keys_.examples(key, batch["index"]), frozen, False)[1]

    def _measured(
        self,
        t: Array,
        params: dict[str, Any],
        batch: Batch,
        keys: Array,
        frozen: Mapping[str, Any],
        train: bool,
    ) -> tuple[Array, Array]:
        """Return (cross-entropy, whether the largest logit is that of the class) of each example."""
        x0, _ = frozen["codec"].encode(batch["values"], keys_.fold(keys, "encode"))
        noise = keys_.normal(keys_.fold(keys, "noise"), x0.shape[1:], x0.dtype)
        dropout = keys_.fold(keys, "dropout") if train else None
        logits = self.classifier(params).logits(self.parts.sde.perturb(x0, noise, t), t, keys=dropout)
        label = _labels(batch["cond"])
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
        return -log_p, (jnp.argmax(logits, axis=1) == label).astype(logits.dtype)

    def classifier(self, params: dict[str, Any]) -> NetworkClassifier:
        """Return the classifier with these parameters by group."""
        parts = self.parts
        return NetworkClassifier(parts.sde, parts.parametrization, parts.network, params[self.GROUP], self.classes)

    def model(self, trained: Trained) -> NetworkClassifier:
        return self.classifier(trained.params)


def _labels(cond: Cond) -> Array:
    assert cond is not None  # `reads` requires the label
    label: Array = cond[LABEL]
    return label


__all__ = ["Classification"]
