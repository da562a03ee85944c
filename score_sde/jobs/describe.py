"""This module describes what a config will make: parameters, operations, memory, and a table of layers."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from score_sde.core import keys as keys_
from score_sde.experiment import Experiment, TrainState, load
from score_sde.jobs.base import Job
from score_sde.losses import WholeBatch
from score_sde.networks import Network, convolution
from score_sde.parallel import processes


@dataclasses.dataclass(frozen=True)
class Layer:
    """A `Layer` has a name, an output shape for one example if known, and numbers of parameters and operations."""

    name: str
    output: tuple[int, ...] | None
    parameters: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Description:
    """`Description` holds the sizes and costs of what a config makes.

    Attributes:
        layers: the parts of the network, in order.
        parameters: the number of parameters of the network.
        flops: operations of one network evaluation for one example. Convolutions and matrix products are counted; a
            multiplication with an addition counts as two operations.
        state_bytes: bytes of the parameters, their average, the optimizer's state, and a gradient.
        kept_bytes: bytes that the gradient of one micro-batch, all on one device, keeps from the network evaluation; a
            compiler may keep less.
        batch: the number of examples in this micro-batch.
        shape: the shape of one example.
    """

    layers: tuple[Layer, ...]
    parameters: int
    flops: int
    state_bytes: int
    kept_bytes: int
    batch: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Return the bytes of a training step."""
        return self.state_bytes + self.kept_bytes


class Describe(Job):
    """`Describe` prints what a config makes, without data and without a workdir."""

    name = "describe"
    needs_workdir = False

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        if processes.is_first():
            print("\n".join(_lines(experiment)))


def describe(experiment: Experiment | Mapping[str, Any]) -> Description:
    """Count the parameters, operations and bytes of what a config makes, without data and without weights.

    Raises:
        InputError: if the config cannot be built.
    """
    experiment = experiment if isinstance(experiment, Experiment) else Experiment.from_config(experiment)
    state = experiment.state_shapes()
    params = jax.eval_shape(experiment.network.init, keys_.stream(0, "init"))
    layers = _layers(experiment.network, params)
    batch = experiment.config.data.batch_size // max(experiment.config.train.microbatches, 1)
    return Description(
        layers,
        sum(layer.parameters for layer in layers),
        sum(layer.flops for layer in layers),
        _bytes((state.params, state.averages, state.optimizer, state.objective, state.params)),
        _kept(experiment, state, batch),
        batch,
        experiment.codec.data_shape,
    )


def _lines(experiment: Experiment) -> list[str]:
    found, config = describe(experiment), experiment.config
    shape = " x ".join(map(str, found.shape))
    return [
        f"{config.network.name} on {config.data.name} ({shape}), {config.sde.name}, {config.parametrization.name}",
        *(f"note: {remark}" for remark in experiment.network.remarks()),
        f"parameters: {found.parameters:,}",
        f"FLOPs of one evaluation per image: {found.flops:,} (convolutions and matrix products)",
        f"memory of a training step: about {found.bytes / 1e9:.1f} GB at batch {found.batch} (parameters, average, "
        f"optimizer and gradient {found.state_bytes / 1e9:.1f}; kept for the gradient {found.kept_bytes / 1e9:.1f})",
        *_table(found),
    ]


def _table(found: Description) -> list[str]:
    rows = [("layer", "output", "parameters", "MFLOPs")]
    for layer in found.layers:
        output = "" if layer.output is None else " x ".join(map(str, layer.output))
        rows.append((layer.name, output, f"{layer.parameters:,}", f"{layer.flops / 1e6:,.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        f"  {name:<{widths[0]}}  {output:<{widths[1]}}  {count:>{widths[2]}}  {flops:>{widths[3]}}"
        for name, output, count, flops in rows
    ]


def _layers(network: Network, params: Any) -> tuple[Layer, ...]:
    """Return the parts of a network, named by the groups of its parameters and by its scopes."""
    x = jax.ShapeDtypeStruct((1, *network.shape), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.float32)
    cond = {name: one.like(1) for name, one in network.conditions.items() if one.required} or None
    flops: Counter[str] = Counter()
    outputs: dict[str, tuple[int, ...]] = {}
    _count(jax.make_jaxpr(network.apply)(params, x, label, cond).jaxpr, "", flops, outputs)
    sizes = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part)) for name, part in params.items()}
    # The order is the order of evaluation; parameters without a scope come first.
    names = dict.fromkeys([*(name for name in sizes if name not in outputs), *(n for n in outputs if n)])
    rest = [Layer("(the rest)", None, 0, flops[""])] if flops[""] else []
    return (*rest, *(Layer(name, outputs.get(name), sizes.get(name, 0), flops[name]) for name in names))


def _count(jaxpr: jex.Jaxpr, scope: str, flops: Counter[str], outputs: dict[str, tuple[int, ...]]) -> None:
    for equation in jaxpr.eqns:
        here = scope or str(equation.source_info.name_stack).split("/")[0]
        if here and equation.outvars:
            outputs[here] = tuple(getattr(equation.outvars[0].aval, "shape", ())[1:])
        inner = [each for value in equation.params.values() for each in _inner(value)]
        if equation.primitive.name == "cond":  # of the branches for platforms, the last is for accelerators
            inner = inner[-1:]
        for each in inner:
            _count(each, here, flops, outputs)
        flops[here] += _operations(equation)


def _inner(value: Any) -> list[jex.Jaxpr]:
    if isinstance(value, jex.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, jex.Jaxpr):
        return [value]
    return [each for item in value for each in _inner(item)] if isinstance(value, tuple | list) else []


def _operations(equation: Any) -> int:
    """Return the multiplications and additions of a convolution or a matrix product, otherwise 0."""
    kind = equation.primitive.name
    if kind not in ("conv_general_dilated", convolution.NAME, "dot_general"):
        return 0
    left, right = (variable.aval.shape for variable in equation.invars[:2])
    out = math.prod(equation.outvars[0].aval.shape)
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * out * math.prod(left[i] for i in contracted)
    channels_out = right[-1] if kind == convolution.NAME else right[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * out * math.prod(right) // channels_out


def _kept(experiment: Experiment, state: TrainState, batch: int) -> int:
    """Return the bytes that the gradient keeps from the network evaluation, without the parameters themselves."""
    examples = {
        "values": jax.ShapeDtypeStruct((batch, *experiment.codec.data_shape), jnp.float32),
        "cond": {name: condition.like(batch) for name, condition in experiment.conditioning.reads.items()} or None,
        "index": jax.ShapeDtypeStruct((batch,), jnp.uint32),
    }
    objective, frozen = experiment.objective, experiment.frozen(load)

    def backward(params: Any, state: TrainState, examples: Any) -> Any:
        def loss(params: Any) -> Any:
            losses, _, _ = objective(
                params,
                state.objective,
                examples,
                keys_.stream(0, "train"),
                step=state.step,
                averages=state.averages,
                frozen=frozen,
                across=WholeBatch(),
                train=True,
            )
            return {group: values.mean() for group, values in losses.items()}

        return jax.vjp(loss, params)[1]

    return max(0, _bytes(jax.eval_shape(backward, state.params, state, examples)) - _bytes(state.params))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
