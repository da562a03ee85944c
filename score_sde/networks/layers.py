"""The layers that the networks share. Images are (batch, height, width, channels)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, is_concrete

Initializer = Callable[..., Array]

# What the gradient keeps of a block instead of computing it again, by the name that networks take.
POLICIES: dict[str, Any] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rematerialised(block: Callable[..., Array], remat: str) -> Callable[..., Array]:
    """A block whose gradient computes again what the policy does not keep."""
    return block if remat == "none" else jax.checkpoint(block, policy=POLICIES[remat])


def _host_init(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Initializer:
    """An initializer that draws on the host: the same numbers on every platform, and nothing to compile.

    (One jitted initializer for a network of 150 arrays takes XLA 9 s to compile, this 1 s to run.)
    """

    def on_host(key_data: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        words = np.asarray(key_data).astype(np.uint64)
        return np.asarray(draw(np.random.Generator(np.random.Philox(key=words)), shape), dtype)

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
        key_data = jax.random.key_data(key)
        if is_concrete(key_data):
            return jnp.asarray(on_host(key_data, shape, dtype))
        result = jax.ShapeDtypeStruct(shape, dtype)
        return jax.pure_callback(lambda data: on_host(data, shape, dtype), result, key_data, vmap_method="sequential")

    return init


def scaled_init(scale: float) -> Initializer:
    """Uniform with variance scale / fan_avg (Ho et al. 2020); scale 0 means 1e-10, all but silent."""

    def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        fan_average = math.prod(shape[:-2]) * (shape[-2] + shape[-1]) / 2
        bound = math.sqrt(3 * (scale or 1e-10) / fan_average)
        return generator.uniform(-bound, bound, shape)

    return _host_init(draw)


def normal_init(std: float) -> Initializer:
    """Normal with mean 0."""
    return _host_init(lambda generator, shape: std * generator.standard_normal(shape))


def constant_init(value: float) -> Initializer:
    """The same value everywhere."""
    return _host_init(lambda generator, shape: np.full(shape, value))


def conv(size: int, inputs: int, outputs: int, rngs: nnx.Rngs, scale: float = 1.0) -> nnx.Conv:
    """A size x size convolution that keeps height and width."""
    inits: dict[str, Any] = {"kernel_init": scaled_init(scale), "bias_init": constant_init(0.0)}
    return nnx.Conv(inputs, outputs, (size, size), padding="SAME", rngs=rngs, **inits)


def dense(inputs: int, outputs: int, rngs: nnx.Rngs, scale: float = 1.0) -> nnx.Linear:
    """A linear map of the last axis."""
    return nnx.Linear(inputs, outputs, kernel_init=scaled_init(scale), bias_init=constant_init(0.0), rngs=rngs)


def group_norm(channels: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """GroupNorm with min(channels // 4, 32) groups, or the next smaller number that divides the channels."""
    wanted = max(1, min(channels // 4, 32))
    groups = next(g for g in range(wanted, 0, -1) if channels % g == 0)
    inits: dict[str, Any] = {"scale_init": constant_init(1.0), "bias_init": constant_init(0.0)}
    return nnx.GroupNorm(channels, num_groups=groups, epsilon=1e-6, rngs=rngs, **inits)


def dropout(x: Array, rate: float, keys: Array | None, layer: int) -> Array:
    """Dropout keyed by example and layer: keys of shape (batch,), or None for evaluation."""
    if keys is None or rate == 0:
        return x
    kept = keys_.draw(jax.random.bernoulli, keys_.fold(keys, layer), x.shape[1:], p=1 - rate)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def downsample(x: Array) -> Array:
    """Halves height and width by the mean of 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def upsample(x: Array) -> Array:
    """Doubles height and width by repeating pixels."""
    batch, height, width, channels = x.shape
    tiled = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return tiled.reshape(batch, 2 * height, 2 * width, channels)


def positional_embedding(label: Array, channels: int) -> Array:
    """Sines, then cosines, of the label at frequencies from 1 to 1e-4: (batch,) -> (batch, channels)."""
    half = channels // 2
    frequencies = np.exp(-math.log(10000) * np.arange(half) / max(half - 1, 1))
    angles = label[:, None] * jnp.asarray(frequencies, label.dtype)
    embedded = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    return jnp.pad(embedded, ((0, 0), (0, channels % 2)))


class FourierEmbedding(nnx.Module):
    """Sines, then cosines, of the label at random frequencies N(0, scale^2): (batch,) -> (batch, 2 channels).

    The frequencies are parameters, as in published weights, and no gradient reaches them; an optimizer
    with weight decay would still shrink them.
    """

    def __init__(self, channels: int, scale: float, rngs: nnx.Rngs) -> None:
        self.frequencies = nnx.Param(normal_init(scale)(rngs.params(), (channels,)))

    def __call__(self, label: Array) -> Array:
        angles = 2 * math.pi * label[:, None] * jax.lax.stop_gradient(self.frequencies[...])
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


class TimeEmbedding(nnx.Module):
    """The time label, and the class if there are any, as one vector: (batch,) -> (batch, 4 channels)."""

    def __init__(self, channels: int, kind: str, fourier_scale: float, num_classes: int | None, rngs: nnx.Rngs) -> None:
        self.channels = channels
        self.fourier = FourierEmbedding(channels, fourier_scale, rngs) if kind == "fourier" else None
        self.hidden = dense(channels if self.fourier is None else 2 * channels, 4 * channels, rngs)
        self.out = dense(4 * channels, 4 * channels, rngs)
        # One row more than there are classes: the last one stands for none.
        rows = None if num_classes is None else num_classes + 1
        self.classes = (
            None if rows is None else nnx.Embed(rows, 4 * channels, embedding_init=normal_init(1.0), rngs=rngs)
        )

    def __call__(self, time_label: Array, class_label: Array | None) -> Array:
        if self.fourier is None:
            embedded = positional_embedding(time_label, self.channels)
        else:
            embedded = self.fourier(time_label)
        # Angles need float32; what follows has the precision of the parameters.
        embedded = self.out(jax.nn.swish(self.hidden(embedded.astype(self.hidden.kernel[...].dtype))))
        if self.classes is None:
            return embedded
        if class_label is None:
            class_label = jnp.full(time_label.shape, self.classes.num_embeddings - 1, jnp.int32)
        return embedded + self.classes(class_label).astype(embedded.dtype)


class ResidualBlock(nnx.Module):
    """The residual block of BigGAN (Brock et al. 2019) with a time embedding; may change size or channels.

    The sum of both branches is divided by sqrt 2, which keeps the variance.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        rngs: nnx.Rngs,
        *,
        layer: int,
        dropout: float = 0.0,
        resample: str | None = None,
    ) -> None:
        self.layer, self.rate, self.resample = layer, dropout, resample
        self.norm_in = group_norm(inputs, rngs)
        self.conv_in = conv(3, inputs, outputs, rngs)
        self.embed = dense(embedding, outputs, rngs)
        self.norm_out = group_norm(outputs, rngs)
        self.conv_out = conv(3, outputs, outputs, rngs, scale=0)
        changes = inputs != outputs or resample is not None
        self.shortcut = conv(1, inputs, outputs, rngs) if changes else None

    def __call__(self, x: Array, embedding: Array, keys: Array | None) -> Array:
        h = jax.nn.swish(self.norm_in(x))
        if self.resample is not None:
            change = {"down": downsample, "up": upsample}[self.resample]
            h, x = change(h), change(x)
        h = self.conv_in(h) + self.embed(jax.nn.swish(embedding))[:, None, None]
        h = dropout(jax.nn.swish(self.norm_out(h)), self.rate, keys, self.layer)
        h = self.conv_out(h)
        return ((x if self.shortcut is None else self.shortcut(x)) + h) / math.sqrt(2)


class Attention(nnx.Module):
    """Self-attention over all pixels, one head, added to its input and divided by sqrt 2."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.norm = group_norm(channels, rngs)
        self.query = dense(channels, channels, rngs)
        self.key = dense(channels, channels, rngs)
        self.value = dense(channels, channels, rngs)
        self.out = dense(channels, channels, rngs, scale=0)

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        h = self.norm(x).reshape(batch, height * width, channels)
        logits = jnp.einsum("bqc,bkc->bqk", self.query(h), self.key(h)) / math.sqrt(channels)
        attention = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        h = jnp.einsum("bqk,bkc->bqc", attention.astype(x.dtype), self.value(h))
        return (x + self.out(h).reshape(x.shape)) / math.sqrt(2)
