"""What a config makes, before any of it is made: parameters, operations, memory, and a table of layers."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.extend import core as jex

from score_sde.model import Blueprint
from score_sde.networks import Network
from score_sde.objective import Objective, step_key
from score_sde.parallel import processes
from score_sde.training.step import build_optimizer, init_state


@dataclasses.dataclass(frozen=True)
class Layer:
    """A part of a network: its name, its output's shape for one example if known, its parameters and operations."""

    name: str
    output: tuple[int, ...] | None
    parameters: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Description:
    """Attributes:
    layers: the network's parts, in order.
    parameters: of the network, in numbers.
    flops: of one evaluation of one example: convolutions and matrix products, a multiplication with an addition
        being two operations.
    state_bytes: parameters, their average, the optimizer's state, and a gradient.
    kept_bytes: what the gradient of one micro-batch, all on one device, keeps of the evaluation; a compiler may keep
        less.
    batch: examples in that micro-batch.
    shape: of one example.
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
        """Of a training step."""
        return self.state_bytes + self.kept_bytes


def describe(config: ml_collections.ConfigDict) -> Description:
    """Count what a config makes, with neither data nor weights.

    Raises:
        InputError: for a config that makes nothing.
    """
    blueprint = Blueprint.from_config(config)
    objective = Objective.from_config(blueprint, config)
    optimizer, _ = build_optimizer(config.optimizer)
    state = jax.eval_shape(lambda: init_state(objective, optimizer, config.seed))
    layers = _layers(blueprint.network, state.params)
    batch = config.data.batch_size // max(config.train.get("microbatches", 1), 1)
    held = _bytes((state.params, state.ema, state.opt_state, state.params))
    return Description(
        layers,
        sum(layer.parameters for layer in layers),
        sum(layer.flops for layer in layers),
        held,
        _kept(objective, state.params, batch),
        batch,
        blueprint.dataset.shape,
    )


def run(config: ml_collections.ConfigDict) -> None:
    """`describe`, and print it; of several processes the first does."""
    if not processes.is_first():
        return
    found = describe(config)
    shape = " x ".join(map(str, found.shape))
    print(f"{config.network.name} on {config.data.name} ({shape}), {config.sde.name}, {config.parametrization.name}")
    print(f"parameters: {found.parameters:,}")
    print(f"FLOPs of one evaluation per image: {found.flops:,} (convolutions and matrix products)")
    print(
        f"memory of a training step: about {found.bytes / 1e9:.1f} GB at batch {found.batch} (parameters, average, "
        f"optimizer and gradient {found.state_bytes / 1e9:.1f}; kept for the gradient {found.kept_bytes / 1e9:.1f})"
    )
    print("\n".join(_table(found)))


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
    """The parts that a network names its parameters and its scopes by."""
    x = jax.ShapeDtypeStruct((1, *network.shape), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.float32)
    flops: Counter[str] = Counter()
    outputs: dict[str, tuple[int, ...]] = {}
    _count(jax.make_jaxpr(network.apply)(params, x, label).jaxpr, "", flops, outputs)
    sizes = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part)) for name, part in params.items()}
    # In the order of evaluation; what belongs to no scope comes first.
    names = dict.fromkeys([*(name for name in sizes if name not in outputs), *(n for n in outputs if n)])
    rest = [Layer("(the rest)", None, 0, flops[""])] if flops[""] else []
    return (*rest, *(Layer(name, outputs.get(name), sizes.get(name, 0), flops[name]) for name in names))


def _count(jaxpr: jex.Jaxpr, scope: str, flops: Counter[str], outputs: dict[str, tuple[int, ...]]) -> None:
    for equation in jaxpr.eqns:
        here = scope or str(equation.source_info.name_stack).split("/")[0]
        if here and equation.outvars:
            outputs[here] = tuple(getattr(equation.outvars[0].aval, "shape", ())[1:])
        inner = [each for value in equation.params.values() for each in _inner(value)]
        if equation.primitive.name == "cond":  # of branches for platforms the last is the accelerators'
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
    """Multiplications and additions of a convolution or a matrix product, else none."""
    kind = equation.primitive.name
    if kind not in ("conv_general_dilated", "dot_general"):
        return 0
    left, right = (variable.aval.shape for variable in equation.invars[:2])
    out = math.prod(equation.outvars[0].aval.shape)
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * out * math.prod(left[i] for i in contracted)
    channels_out = right[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * out * math.prod(right) // channels_out


def _kept(objective: Objective, params: Any, batch: int) -> int:
    """Bytes that the gradient keeps of the evaluation, less the parameters, which there are anyway."""
    dataset = objective.blueprint.dataset
    examples = {
        "image": jax.ShapeDtypeStruct((batch, *dataset.shape), np.uint8),
        "label": jax.ShapeDtypeStruct((batch,), np.int32),
        "index": jax.ShapeDtypeStruct((batch,), np.uint32),
    }

    def backward(params: Any, examples: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            return objective(objective.blueprint.denoiser(params), examples, step_key(0, 0), train=True).mean()

        return jax.vjp(loss, params)[1]

    return max(0, _bytes(jax.eval_shape(backward, params, examples)) - _bytes(params))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
