"""This module defines a network for vectors and for small arrays, which are flattened."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from score_sde.core.arrays import Array
from score_sde.core.checks import as_shape
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.networks import embeddings, layers
from score_sde.networks.base import ModuleNetwork, check_outputs


@dataclasses.dataclass(frozen=True)
class MLP(ModuleNetwork):
    """`MLP` applies residual blocks of two layers to the flattened example; each block receives time and conditions.

    Attributes:
        shape: shape of an example.
        conditions: dict(label=Label(classes)), and vectors of numbers, each optional.
        width: width of the hidden layers, a multiple of 4.
        blocks: number of residual blocks.
        octaves: number of angular frequencies 2^0 .. 2^(octaves - 1); the network also reads sines and cosines of x at
            these frequencies (Mildenhall et al. 2020, arXiv:2003.08934, Sec. 5.1). Densities with sharp edges need
            them. 0 for x alone.
        dropout: dropout rate in the blocks.
        embedding: 'positional' or 'fourier' embedding of the time label; a config without this entry selects 'fourier'
            if the labels lie within 20 units, such as logarithms of sigma.
        fourier_scale: standard deviation of the Fourier frequencies.
        outputs: 2 for a second output in the shape of the example, the variance, in the last channels; otherwise 1.
        dtype, remat: as in ModuleNetwork.
    """

    shape: tuple[int, ...]
    conditions: Conditions = Conditions()  # noqa: RUF009 (Conditions is immutable)
    width: int = 128
    blocks: int = 3
    octaves: int = 0
    dropout: float = 0.0
    embedding: str = "positional"
    fourier_scale: float = 1.0
    outputs: int = dataclasses.field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shape", as_shape("shape of MLP", self.shape))
        object.__setattr__(self, "conditions", Conditions(self.conditions))
        embeddings.reads_of("MLP", self.conditions)
        if self.width < 4 or self.width % 4 or self.blocks < 1 or self.octaves < 0:
            raise InputError(
                f"MLP got width={self.width}, blocks={self.blocks}, octaves={self.octaves}; expected a width divisible "
                "by 4, at least 1 block and at least 0 octaves."
            )
        if self.embedding not in ("positional", "fourier"):
            raise InputError(f"embedding is {self.embedding!r}; expected 'positional' or 'fourier'.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; expected a rate in [0, 1).")
        check_outputs(self.outputs)

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        return _Residual(self, rngs)


class _Residual(nnx.Module):
    def __init__(self, net: MLP, rngs: nnx.Rngs) -> None:
        size, self.rate = math.prod(net.shape), net.dropout
        reads = embeddings.reads_of("MLP", net.conditions)
        self.remat = net.remat
        self.embedding = embeddings.TimeEmbedding(net.width // 4, net.embedding, net.fourier_scale, reads, rngs)
        self.octaves, has_variance = net.octaves, net.outputs == 2
        self.inputs = layers.dense(size * (1 + 2 * net.octaves), net.width, rngs)
        self.first = nnx.List([layers.dense(net.width, net.width, rngs) for _ in range(net.blocks)])
        self.second = nnx.List([layers.dense(net.width, net.width, rngs) for _ in range(net.blocks)])
        self.out = layers.dense(net.width, size, rngs, scale=0)
        self.variance = layers.marked(layers.dense(net.width, size, rngs, scale=0), head=True) if has_variance else None

    def __call__(self, x: Array, time_label: Array, cond: Cond, keys: Array | None) -> Array:
        embedding = self.embedding(time_label, cond)
        h = self.inputs(self.features(x.reshape(len(x), -1)))
        for i in range(len(self.first)):
            block = layers.rematerialised(functools.partial(self.block, i), self.remat)
            h = block(h, embedding, keys)
        features = jax.nn.swish(h)
        mean = self.out(features).reshape(x.shape)
        if self.variance is None:
            return mean
        return jnp.concatenate([mean, self.variance(features).reshape(x.shape)], axis=-1)

    def block(self, i: int, h: Array, embedding: Array, keys: Array | None) -> Array:
        """Apply residual block number i."""
        inner = jax.nn.swish(self.first[i](jax.nn.swish(h + embedding)))
        return (h + self.second[i](layers.dropout(inner, self.rate, keys, i))) / math.sqrt(2)

    def features(self, x: Array) -> Array:
        """Return x with its sines and cosines: (batch, size) -> (batch, size (1 + 2 octaves))."""
        angles = [2.0**k * x for k in range(self.octaves)]
        return jnp.concatenate([x, *map(jnp.sin, angles), *map(jnp.cos, angles)], axis=1)
