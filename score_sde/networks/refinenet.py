"""This module defines NCSN and NCSNv2, which are RefineNets (Lin et al. 2017, arXiv:1611.06612).

NCSN (Song & Ermon 2019, arXiv:1907.05600) learns one row of each normalisation per noise level. NCSNv2 (Song & Ermon
2020, arXiv:2006.09011) does not use the noise level; its parametrisation divides by the level (`scale_by_sigma`).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from score_sde.core.arrays import Array
from score_sde.core.checks import as_shape, is_whole
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.networks import layers, resample
from score_sde.networks.base import ModuleNetwork
from score_sde.networks.layers import Activation

# SECTIONS: by depth, (width, halves, dilation) of each section on the way down; a dilation above 1 replaces halving.
# REFINED, REFINED_BY_PORT: by depth, the widths on the way up, in the original and in its PyTorch port.
SECTIONS: dict[int, tuple[tuple[int, bool, int], ...]] = {
    64: ((1, False, 1), (2, True, 1), (2, True, 2), (2, True, 4)),
    128: ((1, False, 1), (2, True, 1), (2, True, 1), (4, True, 2), (4, True, 4)),
    256: ((1, False, 1), (2, True, 1), (2, True, 1), (2, True, 1), (4, True, 2), (4, True, 4)),
}
REFINED = {64: (2, 2, 2, 1), 128: (4, 2, 2, 1, 1), 256: (4, 2, 2, 2, 1, 1)}
REFINED_BY_PORT = REFINED | {64: (2, 2, 1, 1)}
INTERPOLATIONS = ("bilinear", "nearest", "nearest_neighbor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineNetwork(ModuleNetwork):
    """`RefineNetwork` holds what NCSN and NCSNv2 have in common.

    The time label is the index of a noise level; index 0 has the most noise.

    Attributes:
        shape: (height, width, channels) of an image.
        conditions: empty, because these networks read no condition.
        levels: number of noise levels; NCSN has one row of each normalisation per level.
        channels: channels of the first section.
        depth: 64, 128 or 256, the size of the images for which the network was designed. None selects 64 for NCSN. For
            NCSNv2 None selects 64 for sides up to 95, 128 for sides up to 128, and otherwise 256.
        nonlinearity: 'swish', 'elu', 'relu' or 'lrelu'.
        interpolation: method to enlarge smaller feature maps: 'bilinear' or 'nearest' (or 'nearest_neighbor').
        port: whether the network computes as the PyTorch port does, to use weights of the port: always bilinear with
            aligned corners, the variance of channel means with n - 1, and half the width in one block of depth 64.
    """

    shape: tuple[int, int, int] = dataclasses.field(kw_only=False)
    conditions: Conditions = dataclasses.field(default=Conditions(), kw_only=False)
    levels: int = 10
    channels: int = 128
    depth: int | None = None
    nonlinearity: str = "elu"
    interpolation: str = "bilinear"
    port: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        object.__setattr__(self, "shape", as_shape(f"shape of {name}", self.shape))
        object.__setattr__(self, "conditions", Conditions(self.conditions))
        if self.conditions:
            raise InputError(
                f"{name} reads no conditions; conditions has {', '.join(self.conditions)}: use data.given=()."
            )
        if not is_whole(self.levels, 1):
            raise InputError(f"{name} got levels={self.levels!r}; expected the number of a chain's levels (SMLD).")
        if self.depth is None:
            most = {64: math.inf if self.conditional else 95}
            fits = [depth for depth in SECTIONS if max(self.shape[:2], default=0) <= most.get(depth, depth)]
            object.__setattr__(self, "depth", fits[0] if fits else max(SECTIONS))
        if self.depth not in SECTIONS or self.channels < 1:
            raise InputError(f"{name} got depth={self.depth}, channels={self.channels}; expected depth 64, 128 or 256.")
        step = 2 ** sum(halves and dilation == 1 for _, halves, dilation in SECTIONS[self.depth])
        if len(self.shape) != 3 or any(side % step for side in self.shape[:2]):
            raise InputError(
                f"{name} got images of shape {self.shape}; expected (height, width, channels) with sides divisible by "
                f"{step}."
            )
        known = dict(nonlinearity=tuple(layers.ACTIVATIONS), interpolation=INTERPOLATIONS)
        for setting, values in known.items():
            if getattr(self, setting) not in values:
                raise InputError(f"{setting} is {getattr(self, setting)!r}; expected one of {', '.join(values)}.")

    @property
    @abc.abstractmethod
    def conditional(self) -> bool:
        """Return whether every normalisation has one row per noise level."""

    @property
    def sections(self) -> tuple[tuple[int, bool, int], ...]:
        """Return (channels, halves, dilation) of each section on the way down."""
        return tuple(
            (self.channels * width, halves, dilation) for width, halves, dilation in SECTIONS[self.depth or 64]
        )

    @property
    def refined(self) -> tuple[int, ...]:
        """Return the channels of each block on the way up, from the deepest block."""
        return tuple(self.channels * w for w in (REFINED_BY_PORT if self.port else REFINED)[self.depth or 64])

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        return _RefineNet(self, rngs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NCSN(RefineNetwork):
    """`NCSN` is the noise-conditional score network of Song & Ermon 2019; `RefineNetwork` explains the settings."""

    @property
    def conditional(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class NCSNv2(RefineNetwork):
    """`NCSNv2` is the noise-conditional score network of Song & Ermon 2020; `RefineNetwork` explains the settings."""

    @property
    def conditional(self) -> bool:
        return False


class _Norm(nnx.Module):
    """`_Norm` is InstanceNorm++, with the output gamma (h + alpha m) + beta.

    h is x, each channel normalised over the image. m is the mean of each channel over the image, normalised over the
    channels. NCSN has one row of (gamma, alpha, beta) per noise level.
    """

    def __init__(self, channels: int, net: RefineNetwork, rngs: nnx.Rngs) -> None:
        self.free = int(net.port)
        near_one, zero = layers.normal_init(0.02, mean=1.0), layers.constant_init(0.0)
        table = layers.beside(near_one, 2 * channels, zero, channels)
        rows = nnx.Embed(net.levels, 3 * channels, embedding_init=table, rngs=rngs) if net.conditional else None
        self.rows = rows
        if rows is None:
            self.gamma, self.alpha, self.beta = (
                nnx.Param(init(rngs.params(), (channels,))) for init in (near_one, near_one, zero)
            )

    def __call__(self, x: Array, label: Array) -> Array:
        h = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        means = h.mean(axis=(1, 2))
        h = (h - means[:, None, None]) / jnp.sqrt(h.var(axis=(1, 2), keepdims=True) + 1e-5)
        spread = means.var(axis=-1, keepdims=True, ddof=self.free)
        means = (means - means.mean(axis=-1, keepdims=True)) / jnp.sqrt(spread + 1e-5)
        if self.rows is not None:
            gamma, alpha, beta = (part[:, None, None] for part in jnp.split(self.rows(label), 3, axis=-1))
        else:
            gamma, alpha, beta = self.gamma[...], self.alpha[...], self.beta[...]
        return (gamma * (h + alpha * means[:, None, None]) + beta).astype(x.dtype)


class _Block(nnx.Module):
    """`_Block` is a residual block of two convolutions; a mean halves the image, or dilation widens the view."""

    def __init__(
        self, inputs: int, outputs: int, halves: bool, dilation: int, net: RefineNetwork, rngs: nnx.Rngs
    ) -> None:
        self.act, self.pools = layers.ACTIVATIONS[net.nonlinearity], halves and dilation == 1
        width = inputs if halves else outputs
        self.norm1 = _Norm(inputs, net, rngs)
        self.conv1 = layers.fan_in_conv(3, inputs, width, rngs, dilation=dilation)
        self.norm2 = _Norm(width, net, rngs)
        self.conv2 = layers.fan_in_conv(3, width, outputs, rngs, dilation=dilation)
        size = 1 if self.pools or dilation == 1 else 3
        changes = halves or inputs != outputs
        self.shortcut = layers.fan_in_conv(size, inputs, outputs, rngs, dilation=dilation) if changes else None

    def __call__(self, x: Array, label: Array) -> Array:
        h = self.conv1(self.act(self.norm1(x, label)))
        h = self.conv2(self.act(self.norm2(h, label)))
        x = x if self.shortcut is None else self.shortcut(x)
        return resample.downsample(h) + resample.downsample(x) if self.pools else h + x


class _Units(nnx.Module):
    """`_Units` are residual blocks of two convolutions without bias, each after the nonlinearity."""

    def __init__(self, channels: int, blocks: int, net: RefineNetwork, rngs: nnx.Rngs) -> None:
        self.act, self.blocks = layers.ACTIVATIONS[net.nonlinearity], blocks
        for i in range(2 * blocks):
            if net.conditional:
                setattr(self, f"norm{i}", _Norm(channels, net, rngs))
            setattr(self, f"conv{i}", layers.fan_in_conv(3, channels, channels, rngs, bias=False))

    def __call__(self, x: Array, label: Array) -> Array:
        for block in range(self.blocks):
            h = x
            for i in (2 * block, 2 * block + 1):
                norm = getattr(self, f"norm{i}", None)
                h = getattr(self, f"conv{i}")(self.act(h if norm is None else norm(h, label)))
            x = h + x
        return x


class _Refine(nnx.Module):
    """`_Refine` joins feature maps of one or two sizes, then adds the results of repeated pooling."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, last: bool, net: RefineNetwork, rngs: nnx.Rngs) -> None:
        self.net, self.count = net, len(inputs)
        for i, width in enumerate(inputs):
            setattr(self, f"adapt{i}", _Units(width, 2, net, rngs))
        if len(inputs) > 1:
            for i, width in enumerate(inputs):
                if net.conditional:
                    setattr(self, f"merge_norm{i}", _Norm(width, net, rngs))
                setattr(self, f"merge{i}", layers.fan_in_conv(3, width, outputs, rngs))
        for i in range(2):
            if net.conditional:
                setattr(self, f"pool_norm{i}", _Norm(outputs, net, rngs))
            setattr(self, f"pool{i}", layers.fan_in_conv(3, outputs, outputs, rngs, bias=False))
        self.out = _Units(outputs, 3 if last else 1, net, rngs)

    def __call__(self, maps: list[Array], label: Array) -> Array:
        maps = [getattr(self, f"adapt{i}")(each, label) for i, each in enumerate(maps)]
        h = maps[0] if self.count == 1 else self._merged(maps, label)
        return self.out(self._pooled(h, label), label)

    def _merged(self, maps: list[Array], label: Array) -> Array:
        total: Any = 0.0
        for i, each in enumerate(maps):
            norm = getattr(self, f"merge_norm{i}", None)
            h = getattr(self, f"merge{i}")(each if norm is None else norm(each, label))
            total = total + _enlarged(h, maps[0].shape[1:3], self.net.interpolation, self.net.port)
        return total

    def _pooled(self, x: Array, label: Array) -> Array:
        x = path = layers.ACTIVATIONS[self.net.nonlinearity](x)
        for i in range(2):
            norm = getattr(self, f"pool_norm{i}", None)
            pool = nnx.max_pool if norm is None else nnx.avg_pool
            path = pool(path if norm is None else norm(path, label), (5, 5), strides=(1, 1), padding="SAME")
            path = getattr(self, f"pool{i}")(path)
            x = path + x
        return x


def _enlarged(x: Array, size: tuple[int, ...], interpolation: str, corners: bool) -> Array:
    if x.shape[1:3] == tuple(size):
        return x
    if corners:
        rows, columns = (_aligned(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
        return jnp.einsum("ih,bhwc,jw->bijc", jnp.asarray(rows, x.dtype), x, jnp.asarray(columns, x.dtype))
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), interpolation.removesuffix("_neighbor"))


def _aligned(old: int, new: int) -> np.ndarray:
    """Return the (new, old) matrix of linear interpolation that keeps the first and the last of `old` points."""
    places = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)))


class _RefineNet(nnx.Module):
    def __init__(self, net: RefineNetwork, rngs: nnx.Rngs) -> None:
        self.net = net
        self.conv_in = layers.fan_in_conv(3, net.shape[2], net.channels, rngs)
        now = net.channels
        for i, (width, halves, dilation) in enumerate(net.sections):
            setattr(self, f"section{i}_block0", _Block(now, width, halves, dilation, net, rngs))
            setattr(self, f"section{i}_block1", _Block(width, width, False, dilation, net, rngs))
            now = width
        widths = [width for width, _, _ in net.sections][::-1]
        for i, outputs in enumerate(net.refined):
            inputs = (widths[i],) if i == 0 else (widths[i], net.refined[i - 1])
            setattr(self, f"refine{i}", _Refine(inputs, outputs, i == len(widths) - 1, net, rngs))
        self.norm_out = _Norm(net.refined[-1], net, rngs)
        self.conv_out = layers.fan_in_conv(3, net.refined[-1], net.shape[2], rngs)

    def __call__(self, x: Array, time_label: Array, cond: Cond, keys: Array | None) -> Array:
        net, label = self.net, jnp.asarray(time_label).astype(jnp.int32)
        act: Activation = layers.ACTIVATIONS[net.nonlinearity]
        h = self.conv_in(x)
        maps = []
        for i in range(len(net.sections)):
            with jax.named_scope(f"section{i}"):
                for j in range(2):
                    block = layers.rematerialised(getattr(self, f"section{i}_block{j}"), net.remat)
                    h = block(h, label)
            maps.append(h)
        for i in range(len(net.sections)):
            with jax.named_scope(f"refine{i}"):
                refine = layers.rematerialised(getattr(self, f"refine{i}"), net.remat)
                h = refine([maps.pop()] if i == 0 else [maps.pop(), h], label)
        return self.conv_out(act(self.norm_out(h, label)))
