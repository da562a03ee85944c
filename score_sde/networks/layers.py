"""This module defines the layers that the networks share. Images have shape (batch, height, width, channels)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, is_concrete
from score_sde.networks.convolution import convolve

Initializer = Callable[..., Array]
Activation = Callable[[Array], Array]
M = TypeVar("M", bound=nnx.Module)

ACTIVATIONS: dict[str, Activation] = {
    "swish": jax.nn.swish,
    "elu": jax.nn.elu,
    "relu": jax.nn.relu,
    "lrelu": functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
}

# The variance scaling of the 1 x 1 projections in the code of DDPM (Ho et al. 2020).
PROJECTION_SCALE = 0.1


@dataclasses.dataclass(frozen=True)
class Trait:
    """A `Trait` holds what is special about a parameter.

    Attributes:
        float32: whether the parameter stays in float32 if the network computes in a lower precision.
        decays: whether the weight decay of an optimizer applies to the parameter.
        head: whether the parameter belongs to the variance alone, so that training it leaves the mean as it is.
        cut: axis along which parallel='fsdp' cuts the parameter; None for the axis that fits best.
    """

    float32: bool = False
    decays: bool = True
    head: bool = False
    cut: int | None = None


def special(value: Any, **traits: Any) -> nnx.Param:
    """Return a parameter of a module with traits; `traits` are the arguments of `Trait`."""
    return nnx.Param(value, trait=Trait(**traits))


def marked(module: M, **traits: Any) -> M:
    """Return a module all of whose parameters have traits; `traits` are the arguments of `Trait`."""
    for variable in jax.tree.leaves(nnx.state(module), is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
        variable.set_metadata(trait=Trait(**traits))
    return module


def trait_of(variable: nnx.Variable) -> Trait:
    """Return the traits with which a parameter was declared."""
    return variable.get_metadata().get("trait", Trait())


# Values of a block that the gradient keeps instead of computing them again, by the name that networks take.
POLICIES: dict[str, Any] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rematerialised(block: Callable[..., Array], remat: str) -> Callable[..., Array]:
    """Return a block whose gradient computes again the values that the policy does not keep."""
    return block if remat == "none" else jax.checkpoint(block, policy=POLICIES[remat])


def _host_init(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Initializer:
    """Return an initializer that draws on the host: equal numbers on every platform, and no compilation.

    For a network of 150 arrays XLA takes 9 s to compile a jitted initializer; this initializer runs in 1 s.
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
    """Return a uniform initializer of variance scale / fan_avg (Ho et al. 2020); scale 0 means 1e-10, almost zero."""

    def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        fan_average = math.prod(shape[:-2]) * (shape[-2] + shape[-1]) / 2
        bound = math.sqrt(3 * (scale or 1e-10) / fan_average)
        return generator.uniform(-bound, bound, shape)

    return _host_init(draw)


def normal_init(std: float, mean: float = 0.0) -> Initializer:
    """Return an initializer that draws from N(mean, std^2)."""
    return _host_init(lambda generator, shape: mean + std * generator.standard_normal(shape))


def fan_in_init(fan_in: int) -> Initializer:
    """Return a uniform initializer on [-1, 1) / sqrt(fan_in), PyTorch's default for convolutions and their biases."""
    return _host_init(lambda generator, shape: generator.uniform(-1, 1, shape) / math.sqrt(fan_in))


def beside(first: Initializer, count: int, second: Initializer, rest: int) -> Initializer:
    """Return an initializer that uses `first` for the first `count` columns and `second` for the `rest` columns."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
        rows = shape[:-1]
        return jnp.concatenate([first(key, (*rows, count), dtype), second(key, (*rows, rest), dtype)], axis=-1)

    return init


def constant_init(value: float) -> Initializer:
    """Return an initializer that fills an array with one value."""
    return _host_init(lambda generator, shape: np.full(shape, value))


def conv(size: int, inputs: int, outputs: int, rngs: nnx.Rngs, scale: float = 1.0, stride: int = 1) -> nnx.Conv:
    """Return a size x size convolution that keeps height and width, or divides them by the stride."""
    inits: dict[str, Any] = {"kernel_init": scaled_init(scale), "bias_init": constant_init(0.0)}
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=(stride, stride),
        padding="SAME",
        rngs=rngs,
        conv_general_dilated=convolve,
        **inits,
    )


def fan_in_conv(size: int, inputs: int, outputs: int, rngs: nnx.Rngs, bias: bool = True, dilation: int = 1) -> nnx.Conv:
    """Return a size x size convolution that keeps height and width, with PyTorch's initial weights."""
    init = fan_in_init(size * size * inputs)
    settings: dict[str, Any] = {"padding": "SAME", "kernel_dilation": (dilation, dilation), "use_bias": bias}
    settings |= {"conv_general_dilated": convolve}
    return nnx.Conv(inputs, outputs, (size, size), **settings, kernel_init=init, bias_init=init, rngs=rngs)


def dense(inputs: int, outputs: int, rngs: nnx.Rngs, scale: float = 1.0) -> nnx.Linear:
    """Return a linear map of the last axis."""
    return nnx.Linear(inputs, outputs, kernel_init=scaled_init(scale), bias_init=constant_init(0.0), rngs=rngs)


class GroupNorm(nnx.GroupNorm):
    """`GroupNorm` normalises with sums over each channel and one pass x a + b (Wu & He 2018).

    It computes in float32 if x has lower precision. With n numbers in a group, mean = sum x / n and variance =
    sum x^2 / n - mean^2; a = scale / sqrt(variance + epsilon) and b = bias - mean a, by channel. No array is reshaped
    into groups, because a reshaped array would spread 4 or 8 channels over the lanes of an accelerator.
    """

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        assert mask is None and self.scale is not None and self.bias is not None
        batch, *spatial, channels = x.shape
        axes = tuple(range(1, 1 + len(spatial)))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        sums = jnp.stack([jnp.sum(wide, axes), jnp.sum(wide**2, axes)])
        size = channels // self.num_groups
        of_groups = sums.reshape(2, batch, self.num_groups, size).sum(-1) / (math.prod(spatial) * size)
        mean, square = jnp.repeat(of_groups, size, axis=-1)
        a = self.scale[...] * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0) + self.epsilon)
        b = self.bias[...] - mean * a
        at = (slice(None), *(None,) * len(spatial))
        return (wide * a[at] + b[at]).astype(x.dtype)


def group_norm(channels: int, rngs: nnx.Rngs, groups: int | None = None, epsilon: float = 1e-6) -> GroupNorm:
    """Return a GroupNorm of `groups` or min(channels // 4, 32) groups, or the next smaller divisor of the channels."""
    wanted = max(1, min(channels // 4, 32) if groups is None else min(channels, groups))
    found = next(g for g in range(wanted, 0, -1) if channels % g == 0)
    inits: dict[str, Any] = {"scale_init": constant_init(1.0), "bias_init": constant_init(0.0)}
    return GroupNorm(channels, num_groups=found, epsilon=epsilon, rngs=rngs, **inits)


def dropout(x: Array, rate: float, keys: Array | None, layer: int) -> Array:
    """Apply dropout, with keys of shape (batch,) folded with the number of the layer; None for evaluation.

    The rate is rounded to a multiple of 2^-16, because one random word gives two random draws. The values that stay
    are divided by their probability to stay.
    """
    dropped = min(round(rate * 2**16), 2**16 - 1)
    if keys is None or dropped == 0:
        return x
    kept = keys_.halves_of_words(keys_.fold(keys, layer), x.shape[1:]) >= dropped
    return jnp.where(kept, x / (1 - dropped / 2**16), 0).astype(x.dtype)


class Attention(nnx.Module):
    """`Attention` adds self-attention over all pixels, with one head, to its input.

    Args:
        channels: channels of the input and of the output.
        rngs: random keys of the initial weights.
        rescale: whether the sum is divided by sqrt 2.
        scale: scale of the initial weights of the last layer.
        groups: as in `group_norm`.
    """

    def __init__(
        self, channels: int, rngs: nnx.Rngs, rescale: bool = True, scale: float = 0.0, groups: int | None = None
    ) -> None:
        self.rescale = rescale
        self.norm = group_norm(channels, rngs, groups)
        self.query = dense(channels, channels, rngs, scale=PROJECTION_SCALE)
        self.key = dense(channels, channels, rngs, scale=PROJECTION_SCALE)
        self.value = dense(channels, channels, rngs, scale=PROJECTION_SCALE)
        self.out = dense(channels, channels, rngs, scale=scale)

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        h = self.norm(x).reshape(batch, height * width, channels)
        logits = jnp.einsum("bqc,bkc->bqk", self.query(h), self.key(h)) / math.sqrt(channels)
        attention = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        h = jnp.einsum("bqk,bkc->bqc", attention.astype(x.dtype), self.value(h))
        return merged(x, self.out(h).reshape(x.shape), self.rescale)


def merged(x: Array, h: Array, rescale: bool) -> Array:
    """Return x + h; with `rescale` the sum is divided by sqrt 2, which keeps the variance."""
    return (x + h) / math.sqrt(2) if rescale else x + h
