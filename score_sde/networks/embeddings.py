"""This module computes the vector by which a network receives the time label and the conditions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from score_sde.core.arrays import Array
from score_sde.core.conditions import Cond, Condition, Label, Text, is_absent
from score_sde.core.errors import InputError
from score_sde.networks import layers

_WAVES = 4  # sines and cosines of each coordinate of a pixel


@dataclasses.dataclass(frozen=True)
class Reads:
    """`Reads` holds the conditions that an embedding reads.

    Attributes:
        classes: number of classes of the condition `label`; None without that condition.
        vectors: (name, count of numbers) of every other condition.
    """

    classes: int | None = None
    vectors: tuple[tuple[str, int], ...] = ()


def reads_of(network: str, conditions: Mapping[str, Condition]) -> Reads:
    """Return what a network reads of these conditions: `label` as a class, and vectors of numbers.

    Raises:
        InputError: if a condition is neither; the message names the network.
    """
    label = conditions.get("label")
    others = {name: condition for name, condition in conditions.items() if name != "label"}
    wrong = [name for name, one in others.items() if not _is_vector(one)]
    if wrong or not (label is None or isinstance(label, Label)):
        raise InputError(
            f"{network} reads 'label', a Label, and vectors of numbers; conditions has {', '.join(wrong) or 'label'}, "
            "of another kind."
        )
    vectors = tuple((name, math.prod(one.shape)) for name, one in others.items())
    return Reads(None if label is None else label.classes, vectors)


def _is_vector(condition: Condition) -> bool:
    numbers = not isinstance(condition, Label | Text) and np.dtype(condition.dtype).kind == "f"
    return numbers and type(condition).like is Condition.like and len(condition.shape) <= 1


def positional_embedding(label: Array, channels: int) -> Array:
    """Return sines, then cosines, of the label at frequencies from 1 to 1e-4: (batch,) -> (batch, channels)."""
    half = channels // 2
    frequencies = np.exp(-math.log(10000) * np.arange(half) / max(half - 1, 1))
    angles = label[:, None] * jnp.asarray(frequencies, label.dtype)
    embedded = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    return jnp.pad(embedded, ((0, 0), (0, channels % 2)))


class FourierEmbedding(nnx.Module):
    """`FourierEmbedding` computes sines, then cosines, of the label: (batch,) -> (batch, 2 channels).

    The random frequencies are drawn from N(0, scale^2). They are parameters, as in published weights, and no gradient
    reaches them.
    """

    def __init__(self, channels: int, scale: float, rngs: nnx.Rngs) -> None:
        # In bfloat16 an angle of 100 rad has no accurate digit after the decimal point.
        self.frequencies = layers.special(
            layers.normal_init(scale)(rngs.params(), (channels,)), float32=True, decays=False
        )

    def __call__(self, label: Array) -> Array:
        # The factors keep the order of the published code: at 1,000 rad another rounding changes the fourth digit.
        angles = label[:, None] * jax.lax.stop_gradient(self.frequencies[...]) * 2 * math.pi
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


class AtPixels(nnx.Module):
    """`AtPixels` adds an embedding of the coordinates of each pixel to the input of a layer.

    The coordinates y and x run from -1 to 1 over the feature map. The embedding is a linear function of y, x and the
    sines and cosines of 2^k pi y and 2^k pi x, k = 0 .. 3.

    Args:
        layer: the layer, a function of a feature map (batch, height, width, channels).
        channels: channels of its input.
        rngs: source of the initial weights.
    """

    def __init__(self, layer: Any, channels: int, rngs: nnx.Rngs) -> None:
        self.layer, self.embed = layer, layers.dense(2 * (1 + 2 * _WAVES), channels, rngs)

    def __call__(self, x: Array) -> Array:
        grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in x.shape[1:3]), indexing="ij")
        angles = [2**k * math.pi * each for each in grid for k in range(_WAVES)]
        features = np.stack([*grid, *map(np.sin, angles), *map(np.cos, angles)], axis=-1)
        return self.layer(x + self.embed(jnp.asarray(features, x.dtype)))


class TimeEmbedding(nnx.Module):
    """`TimeEmbedding` embeds the time label and the conditions as one vector: (batch,) -> (batch, 4 channels).

    Each class has a row of a table; the last row of the table means no class. A vector of numbers passes through a
    linear map without bias. An absent vector is 0 and adds nothing, like the augmentation labels of Karras et al. 2022.

    Args:
        channels: a quarter of the length of the embedding.
        kind: 'positional' or 'fourier'.
        fourier_scale: standard deviation of the Fourier frequencies.
        reads: conditions to embed.
        rngs: random keys of the initial weights.
        act: nonlinearity.
        noise_conditional: False for a network that does not receive the noise level; the embedding is then None.
    """

    def __init__(
        self,
        channels: int,
        kind: str,
        fourier_scale: float,
        reads: Reads,
        rngs: nnx.Rngs,
        act: layers.Activation = jax.nn.swish,
        noise_conditional: bool = True,
    ) -> None:
        self.channels, self.act = channels, act
        self.fourier = FourierEmbedding(channels, fourier_scale, rngs) if kind == "fourier" else None
        inputs = channels if self.fourier is None else 2 * channels
        self.hidden = layers.dense(inputs, 4 * channels, rngs) if noise_conditional else None
        self.out = layers.dense(4 * channels, 4 * channels, rngs) if noise_conditional else None
        # The table has one row more than there are classes: the last row means no class.
        rows = None if reads.classes is None else reads.classes + 1
        self.classes = (
            None if rows is None else nnx.Embed(rows, 4 * channels, embedding_init=layers.normal_init(1.0), rngs=rngs)
        )
        self.names = tuple(name for name, _ in reads.vectors)
        for name, size in reads.vectors:
            setattr(self, f"vector_{name}", nnx.Linear(size, 4 * channels, use_bias=False, rngs=rngs))

    def __call__(self, time_label: Array, cond: Cond) -> Array | None:
        if self.hidden is None or self.out is None:
            return None
        if self.fourier is None:
            embedded = positional_embedding(time_label, self.channels)
        else:
            embedded = self.fourier(time_label)
        # Angles need float32; the layers after them have the dtype of the parameters.
        embedded = self.out(self.act(self.hidden(embedded.astype(self.hidden.kernel[...].dtype))))
        if self.classes is not None:
            embedded = embedded + self.classes(self._row(cond, len(time_label))).astype(embedded.dtype)
        for name in self.names:
            if cond is not None and name in cond:
                embedded = embedded + self._vector(name, cond, len(time_label)).astype(embedded.dtype)
        return embedded

    def _vector(self, name: str, cond: Mapping[str, Any], batch: int) -> Array:
        linear = getattr(self, f"vector_{name}")
        given = cond[name].reshape(batch, -1).astype(linear.kernel[...].dtype)
        return linear(jnp.where(is_absent(cond, name, batch)[:, None], 0, given))

    def _row(self, cond: Cond, batch: int) -> Array:
        """Return the table row of each example: its class, or the row that means no class."""
        assert self.classes is not None
        none = self.classes.num_embeddings - 1
        if cond is None or "label" not in cond:
            return jnp.full(batch, none, jnp.int32)
        return jnp.where(is_absent(cond, "label", batch), none, cond["label"])
