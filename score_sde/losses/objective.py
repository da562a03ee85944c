"""What a run minimises: the interface of an objective, and what it is given."""

from __future__ import annotations

import abc
import dataclasses
import functools
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
Losses = dict[str, Array]  # by group of parameters, each (batch,)


class Across(Protocol):
    """What the devices that share a batch tell one another inside a step; alike under jit, fsdp and pmap."""

    def mean(self, tree: T) -> T:
        """The mean over the devices of values that are means over a device's rows: the mean over the whole batch."""

    def sum(self, tree: T) -> T:
        """The sum over the devices of values that are sums over a device's rows: the sum over the whole batch."""

    def gather(self, tree: T) -> T:
        """Arrays (rows, ...) of all devices one after another, (batch, ...): the whole batch, in its order."""


class WholeBatch:
    """The `Across` of a program that sees the whole batch by itself, as one device does."""

    def mean(self, tree: T) -> T:
        return tree

    def sum(self, tree: T) -> T:
        return tree

    def gather(self, tree: T) -> T:
        return tree


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a config makes for an objective.

    Attributes:
        sde, parametrization, network: those of the config.
        codec: the data set's.
        conditions: everything that a batch's cond can have: the data set's conditions, and the computed ones.
        batch_size: of training, over all devices.
    """

    sde: SDE
    parametrization: Parametrization
    network: Network
    codec: Codec
    conditions: Conditions
    batch_size: int

    def denoiser(self, params: Any) -> NetworkDenoiser:
        """The denoiser with these weights of the network."""
        return NetworkDenoiser(self.sde, self.parametrization, self.network, params)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "state", "frozen", "averages"),
    meta_fields=("experiment", "step", "digest"),
)
@dataclasses.dataclass(frozen=True)
class Trained:
    """What training made, as `Objective.model` is given it: a pytree of its arrays.

    Attributes:
        experiment: the experiment, as `Experiment.from_config` builds it.
        params: the parameters, or an average of them, by group.
        state: the objective's state.
        frozen: as the objective was given it.
        step: the number of training steps.
        digest: of the parameters, as their checkpoint carries it.
        averages: {name: parameters by group}, where they are asked for.
    """

    experiment: Any
    params: dict[str, Any]
    state: Any
    frozen: Mapping[str, Any]
    step: int
    digest: str
    averages: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


class Objective(abc.ABC):
    """What a run minimises. config.objective names one, of `score_sde.losses` or by its dotted path.

    To add one, subclass and define `init` and `__call__`. The constructor's first argument is `parts`, the others are
    entries of config.objective.

    Attributes:
        parts: what the config makes.
        whole_batch: whether a loss depends on the whole batch, as a contrastive one does; micro-batches are refused.
    """

    parts: Parts
    whole_batch: bool = False

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def reads(self) -> Mapping[str, Condition]:
        """The conditions that batches must bring, by name: those that the network reads unless it says otherwise."""
        return self.parts.network.conditions

    def check(self) -> None:
        """Raise InputError, before anything is written, where the parts do not suit the objective."""

    @abc.abstractmethod
    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        """(parameters by group, state) before the first step.

        Each group is a pytree of arrays with an optimizer of its own. The state is a pytree of arrays that is not
        trained, such as statistics or a codebook; () for none.
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
        """The losses of a batch.

        Args:
            params: the parameters by group.
            state: the objective's state.
            batch: {'values' on the data's own scale, 'cond' as `reads` declares it, 'index', the place of each example
                in the whole batch}; of the whole batch these are a device's rows.
            key: of this step, shape (). An example's draws come from keys.examples(key, batch['index']), with a name
                folded in for each purpose ('condition' and 'drop' are taken), so that they depend neither on the
                devices nor on the rest of the batch.
            step: updates before this one, int32 ().
            averages: {name: parameters by group}.
            frozen: {'codec': the codec, and what `frozen` adds}.
            across: the mean, the sum and the rows of the whole batch.
            train: False for held-out losses: no dropout, and the state is thrown away.

        Returns:
            ({group: (batch,)}: the loss of a group moves that group only; the new state, equal on all devices; metrics,
            {name: shape ()}, each the mean over the device's rows).
        """

    def after_update(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters after each update, such as projected ones."""
        return params

    def frozen(self, load: Callable[[str | pathlib.Path], Any]) -> dict[str, Any]:
        """What is used and not trained, by name: arguments of the step, never constants of the program.

        Args:
            load: opens a workdir, as `score_sde.load` does; for a teacher, say.
        """
        return {}

    def total(self, losses: Losses) -> Array:
        """One number for each example, for held-out losses: the sum over the groups, (batch,)."""
        return jnp.sum(jnp.stack(list(losses.values())), axis=0)

    def model(self, trained: Trained) -> Any:
        """What `score_sde.load` returns of a workdir trained with this objective.

        A denoiser comes back as a `Model`, which samples and has likelihoods; anything else as it is. Training calls
        this on traced arrays first, to learn what it will be.
        """
        return trained
