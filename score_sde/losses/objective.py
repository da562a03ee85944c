"""This module defines the interface of an objective, the quantity that training minimises, and its arguments."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.conditions import Condition, Conditions
from score_sde.data import Batch, Codec
from score_sde.denoisers import NetworkDenoiser, Parametrization
from score_sde.networks import Network
from score_sde.sde import SDE

T = TypeVar("T")
Losses = dict[str, Array]  # losses by group of parameters, each (batch,)


class Across(Protocol):
    """`Across` combines values over the devices that share a batch inside a step, equally under jit, fsdp and pmap."""

    def mean(self, tree: T) -> T:
        """Return the mean over the devices of means over a device's rows, which is the mean over the whole batch."""

    def sum(self, tree: T) -> T:
        """Return the sum over the devices of sums over a device's rows, which is the sum over the whole batch."""

    def gather(self, tree: T) -> T:
        """Return the whole batch (batch, ...) in its order, concatenated from the arrays (rows, ...) of all devices."""


class WholeBatch:
    """`WholeBatch` is the `Across` of a program that sees the whole batch, such as a program on one device."""

    def mean(self, tree: T) -> T:
        return tree

    def sum(self, tree: T) -> T:
        return tree

    def gather(self, tree: T) -> T:
        return tree


@dataclasses.dataclass(frozen=True)
class Parts:
    """`Parts` holds the objects that a config makes for an objective.

    Attributes:
        sde, parametrization, network: objects of the config.
        codec: codec of the data set.
        conditions: all conditions that a batch's cond can have: those of the data set, and the computed ones.
        batch_size: batch size of training, over all devices.
    """

    sde: SDE
    parametrization: Parametrization
    network: Network
    codec: Codec
    conditions: Conditions
    batch_size: int

    @property
    def nats_per_bit(self) -> float:
        """Return the nats of one bit per dimension of the data."""
        return math.prod(self.codec.data_shape) * math.log(2)

    def denoiser(self, params: Any) -> NetworkDenoiser:
        """Return the denoiser with these parameters of the network."""
        return NetworkDenoiser(self.sde, self.parametrization, self.network, params)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "state", "frozen", "averages"),
    meta_fields=("experiment", "step", "digest"),
)
@dataclasses.dataclass(frozen=True)
class Trained:
    """`Trained` holds the result of training for `Objective.model`, as a pytree of its arrays.

    Attributes:
        experiment: the experiment, as `Experiment.from_config` builds it.
        params: the parameters, or an average of them, by group.
        state: the objective's state.
        frozen: argument `frozen` of the objective.
        step: number of training steps.
        digest: digest of the parameters, as in their checkpoint.
        averages: {name: parameters by group}, if requested.
    """

    experiment: Any
    params: dict[str, Any]
    state: Any
    frozen: Mapping[str, Any]
    step: int
    digest: str
    averages: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


class Objective(abc.ABC):
    """An objective is the quantity that training minimises.

    config.objective names an objective of `score_sde.losses`, or any other objective by its dotted path. To add an
    objective, write a subclass and define `init` and `__call__`. The constructor's first argument is `parts`; the
    other arguments are entries of config.objective.

    Attributes:
        parts: objects that the config makes.
        whole_batch: whether a loss depends on the whole batch, as a contrastive loss does; more than one micro-batch
            then raises InputError.
    """

    parts: Parts
    whole_batch: bool = False

    @property
    def frozen_groups(self) -> tuple[str, ...]:
        """Return the groups that are not trained and come from another workdir (train.start_from); usually none."""
        return ()

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def reads(self) -> Mapping[str, Condition]:
        """Return the conditions that batches must contain, by name; by default those that the network reads."""
        return self.parts.network.conditions

    def check(self) -> None:
        """Raise InputError, before any file is written, if the parts do not suit the objective."""

    @abc.abstractmethod
    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        """Return (parameters by group, state) before the first step.

        Each group is a pytree of arrays with its own optimizer. The state is a pytree of arrays that is not
        trained, such as statistics or a codebook; () for no state.
        """

    @abc.abstractmethod
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
        """Compute the losses of a batch.

        Args:
            params: the parameters by group.
            state: the objective's state.
            batch: {'values' on the data's own scale, 'cond' as `reads` declares it, 'index', the place of each example
                in the whole batch}; a device receives its own rows of the whole batch.
            key: random key of this step, shape (). The random draws of an example come from
                keys.examples(key, batch['index']), with a name folded in for each purpose ('condition' and 'drop' are
                reserved), so that the draws depend neither on the devices nor on the rest of the batch.
            step: number of updates before this one, int32 ().
            averages: {name: parameters by group}.
            frozen: {'codec': the codec, and the entries of the method `frozen`}.
            across: the mean, the sum and the rows of the whole batch.
            train: False for held-out losses: no dropout, and the new state is discarded.

        Returns:
            ({group: (batch,)}: the loss of a group trains that group only; the new state, equal on all devices;
            metrics, {name: shape ()}, each the mean over the device's rows).
        """

    def after_update(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters to use after an update, such as projected parameters."""
        return params

    def frozen(self, load: Callable[[str | pathlib.Path], Any]) -> dict[str, Any]:
        """Return the objects that are used and not trained, by name.

        These objects are arguments of the step, never constants of the program.

        Args:
            load: function that opens a workdir, as `score_sde.load` does, for example the workdir of a teacher.
        """
        return {}

    def total(self, losses: Losses) -> Array:
        """Return one number for each example, shape (batch,), for held-out losses: the sum over the groups."""
        return jnp.sum(jnp.stack(list(losses.values())), axis=0)

    def model(self, trained: Trained) -> Any:
        """Return the object that `score_sde.load` returns for a workdir trained with this objective.

        `score_sde.load` returns a denoiser as a `Model`, which samples and has likelihoods, and any other object as it
        is. Training first calls this method on traced arrays, to find the type of the object.
        """
        return trained
