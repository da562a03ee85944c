"""This module builds all parts of a config once, for every job, benchmark and notebook."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from score_sde import config as config_
from score_sde import data, losses, networks, sde
from score_sde.core import keys as keys_
from score_sde.core.arrays import same_structure
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Condition, Conditions
from score_sde.core.errors import InputError
from score_sde.core.keys import check_seed
from score_sde.core.precision import fitting_dtype
from score_sde.denoisers import NetworkDenoiser, Parametrization, parametrization
from score_sde.experiment import averages as averages_
from score_sde.experiment.averages import Average
from score_sde.experiment.optimizer import Schedule, build_optimizers
from score_sde.experiment.settle import settle
from score_sde.experiment.state import TrainState

_EMBED = (
    "MLP",
    "DDPMpp",
    "UNetClassifier",
)  # for these networks the embedding of the time label depends on the parametrisation


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An `Experiment` holds the parts that a config names.

    Attributes:
        config: the complete config.
        dataset: the data set.
        objective: the objective that training minimises; its `parts` hold the SDE, parametrisation, network and codec.
        conditioning: the processing of the conditions of a batch.
        averages: averages of the parameters by name, in alphabetical order; evaluation and sampling use the first one.
        chosen: the values of the config entries that were chosen from the data, by the dotted names of the entries.
    """

    config: ml_collections.ConfigDict
    dataset: data.Dataset
    objective: losses.Objective
    conditioning: data.Conditioning
    averages: dict[str, Average]
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_config(cls, given: Mapping[str, Any], dtype: str | None = None) -> Experiment:
        """Build the parts of a config.

        Args:
            given: a config; it states the entries that differ from the defaults, as a config file does.
            dtype: the dtype of the network's computation instead of config.network.dtype, if this entry exists.

        Raises:
            InputError: for names or arguments that do not fit.
        """
        config: Any = config_.complete(given)
        check_seed(config.seed)
        require_whole("data.batch_size", config.data.batch_size, 1)
        if not isinstance(config.data.flip, bool):
            raise InputError(f"data.flip is {config.data.flip!r}; expected True or False.")
        dataset = config_.build(data, config_.arguments(config, "data"), base=data.Dataset)
        chosen = settle(config, dataset)
        computed = tuple(
            config_.build(data, spec, base=data.ComputedCondition)
            for spec in config_.read_specs("data.conditions", config.data.conditions)
        )
        parts = _parts(config, dataset, computed, dtype)
        objective = config_.build(losses, config.objective, parts, base=losses.Objective)
        if config.data.flip and len(parts.codec.data_shape) != 3:
            raise InputError(
                f"data.flip is {config.data.flip!r}, but examples of {config.data.name} have shape "
                f"{parts.codec.data_shape}; only images (height, width, channels) can be mirrored: use data.flip=False."
            )
        parts.parametrization.check(parts.sde)
        _check_conditions(objective, parts)
        objective.check()
        drop = tuple(config_.to_dict(config.data.drop).items())
        conditioning = data.Conditioning(Conditions(objective.reads), computed, drop)
        averages = {
            name: config_.build(averages_, spec, base=Average)
            for name, spec in sorted(config_.to_dict(config.averages).items())
        }
        return cls(config, dataset, objective, conditioning, averages, chosen)

    @property
    def parts(self) -> losses.Parts:
        """Return the SDE, parametrisation, network, codec, conditions and batch size."""
        return self.objective.parts

    @property
    def sde(self) -> sde.SDE:
        return self.parts.sde

    @property
    def parametrization(self) -> Parametrization:
        return self.parts.parametrization

    @property
    def network(self) -> networks.Network:
        return self.parts.network

    @property
    def codec(self) -> data.Codec:
        return self.parts.codec

    @property
    def seed(self) -> int:
        return int(self.config.seed)

    @property
    def reads(self) -> Conditions:
        """Return the conditions that are read from the examples of the data set."""
        wanted = set(self.conditioning.reads) | {name for one in self.conditioning.computed for name in one.needs}
        computed = {name for one in self.conditioning.computed for name in one.conditions}
        known = dict(self.dataset.conditions) | dict(self.conditioning.reads)
        wanted = (wanted & set(self.parts.conditions)) - computed  # an optional condition may have no source
        return Conditions({name: condition for name, condition in known.items() if name in wanted})

    def denoiser(self, params: Any) -> NetworkDenoiser:
        """Return the denoiser whose network has these parameters."""
        return self.parts.denoiser(params)

    def examples(self, split: str, source: data.Source | None = None) -> data.Examples:
        """Return the examples of a split with the conditions in `reads`; each example is checked when it is read.

        Args:
            split: 'train' or 'test'.
            source: the examples of the split; None to get the source from the data set.
        """
        source = self.dataset.source(split) if source is None else source
        return data.Examples(source, self.reads, self.codec, f"the split {split!r} of {self.config.data.name}")

    def frozen(self, load: Callable[[str | pathlib.Path], Any] | None = None) -> dict[str, Any]:
        """Return the values that a step uses and does not train, by name; `load` is a function that opens a workdir."""
        return {"codec": self.codec} | self.objective.frozen(load or _cannot_load)

    def init_state(self) -> TrainState:
        """Return the state before the first step."""
        params, objective = self.objective.init(keys_.stream(self.seed, "init"))
        return self.state_with(params, objective)

    def state_with(self, params: dict[str, Any], objective: Any, step: int = 0) -> TrainState:
        """Return a state with the given parameters by group, averages that start from `params`, and new optimizers."""

        # One compiled program makes all arrays; an eager program for each shape would cost a second.
        @jax.jit
        def rest(params: Any) -> tuple[Any, Any]:
            averages = {name: jax.tree.map(jnp.copy, one.start(params)) for name, one in self.averages.items()}
            return averages, {group: self.optimizers[group].init(params[group]) for group in params}

        averages, optimizer = rest(params)
        return TrainState(jnp.asarray(step, jnp.int32), params, averages, optimizer, objective)

    def state_shapes(self) -> TrainState:
        """Return the shapes and dtypes of the state without computing it."""
        return jax.eval_shape(self.init_state)

    @property
    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """Return an optimizer for each group of parameters."""
        return self._optimizers[0]

    @property
    def schedules(self) -> dict[str, Schedule]:
        """Return the learning rate of each group as a function of the step."""
        return self._optimizers[1]

    @functools.cached_property
    def _optimizers(self) -> tuple[dict[str, optax.GradientTransformation], dict[str, Schedule]]:
        params = self.param_shapes
        decays = {group: _of_traits(self.network, tree, "decays") for group, tree in params.items()}
        if all(all(jax.tree.leaves(tree)) for tree in decays.values()):
            decays = {}
        return build_optimizers(self.config.optimizer, params, decays, self.objective.frozen_groups)

    @functools.cached_property
    def param_shapes(self) -> dict[str, Any]:
        """Return the shapes and dtypes of the parameters by group."""
        params, _ = jax.eval_shape(self.objective.init, keys_.stream(self.seed, "init"))
        return dict(params)

    @functools.cached_property
    def cuts(self) -> Any:
        """Return, by group, the axis along which parallel='fsdp' cuts each parameter; None for no declared axis."""
        return {group: _of_traits(self.network, tree, "cut") for group, tree in self.param_shapes.items()}


def _parts(
    config: ml_collections.ConfigDict,
    dataset: data.Dataset,
    computed: tuple[data.ComputedCondition, ...],
    dtype: str | None,
) -> losses.Parts:
    the_sde = config_.build(sde, config.sde, base=sde.SDE)
    codec = getattr(dataset, "codec", None)
    if not isinstance(codec, data.Codec):
        raise InputError(
            f"{type(dataset).__name__} has codec={codec!r}; expected a codec, such as ss.QuantizedCodec(shape, 255) "
            "for images of bytes."
        )
    meaning = config_.build(parametrization, config.parametrization, base=Parametrization, data_range=codec.model_range)
    every: dict[str, Condition] = dict(dataset.conditions)
    for one in computed:
        every |= one.conditions
    given = config_.to_dict(config.data.given)
    for name in (given,) if isinstance(given, str) else given:
        if name not in every:
            raise InputError(
                f"data.given names {name!r}, but {type(dataset).__name__} has {', '.join(every) or 'no conditions'}; "
                "expected names of conditions."
            )
    spec = config_.to_dict(config.network)
    if dtype is not None and "dtype" in spec:
        spec["dtype"] = dtype
    if spec.get("dtype") == "auto":
        spec["dtype"] = fitting_dtype()
    context = {
        "shape": codec.model_shape,
        "conditions": Conditions(every).only((given,) if isinstance(given, str) else given),
        "levels": the_sde.levels,
        "outputs": meaning.outputs if meaning.outputs > 1 else None,
        "classes": getattr(every.get("label"), "classes", None),
    }
    taken = {
        name: value
        for name, value in context.items()
        if value is not None and config_.takes(networks, spec, name, networks.Network)
    }
    if spec["name"] in _EMBED and "embedding" not in spec and _is_narrow(the_sde, meaning):
        taken["embedding"] = "fourier"
    if context["outputs"] is not None and "outputs" not in taken:
        raise InputError(
            f"parametrization.variance is {meaning.variance!r}, which needs a network with two outputs for each number "
            f"of x, and {spec['name']} has one; expected a network that takes `outputs`, such as DDPMpp or MLP."
        )
    network = config_.build(networks, spec, base=networks.Network, **taken)
    return losses.Parts(the_sde, meaning, network, codec, Conditions(every), config.data.batch_size)


def _is_narrow(the_sde: sde.SDE, meaning: Parametrization) -> bool:
    """Return whether the time labels lie within 20 units, and are not indices of levels.

    A positional embedding cannot distinguish such labels, because its sines turn by at most one radian per unit.
    """
    if the_sde.levels is not None or meaning.time_label == "index":
        return False
    first, last = (float(meaning.label(the_sde, jnp.asarray(float(t)))) for t in (the_sde.t_stop, the_sde.t_max))
    return bool(abs(last - first) < 20)


def _check_conditions(objective: losses.Objective, parts: losses.Parts) -> None:
    """Raise InputError if a required condition is neither in the data set nor computed."""
    for name, condition in objective.reads.items():
        if condition.required and name not in parts.conditions:
            raise InputError(
                f"{type(objective).__name__} or its network reads {name!r}, but the data set has "
                f"{', '.join(parts.conditions) or 'no conditions'}: use another data set, or compute the condition "
                "(data.conditions)."
            )


def _of_traits(network: networks.Network, params: Any, trait: str) -> Any:
    """Return one trait of each parameter of a group; groups that are not the network's have the default traits."""
    declared = network.traits(params) if _is_of(network, params) else jax.tree.map(lambda _: networks.Trait(), params)
    return jax.tree.map(lambda one: getattr(one, trait), declared)


def _is_of(network: networks.Network, params: Any) -> bool:
    shapes = jax.eval_shape(network.init, keys_.stream(0, "init"))
    return same_structure(shapes, params)


def _cannot_load(workdir: str | pathlib.Path) -> Any:
    raise InputError(
        f"{workdir} cannot be opened here: pass a function that loads workdirs to Experiment.frozen (score_sde.load)."
    )
