"""DDPM++, the U-Net of Song et al. 2021 (arXiv:2011.13456, App. H) for VP and sub-VP SDEs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx

from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.networks import layers
from score_sde.networks.base import ModuleNetwork


@dataclasses.dataclass(frozen=True)
class DDPMpp(ModuleNetwork):
    """A U-Net of BigGAN residual blocks with attention.

    The largest network of the paper is channels=128, multipliers=(1, 2, 2, 2), blocks=8,
    attention=(16,), dropout=0.1 on 32 x 32 images.

    Attributes:
        shape: (height, width, channels) of an image; the sides divisible by 2^(levels - 1).
        num_classes: the number of classes, or None for none.
        channels: channels of the first level.
        multipliers: channels of each level, as multiples of `channels`; each level halves the sides.
        blocks: residual blocks per level.
        attention: heights of the feature maps that get self-attention; the middle always has it.
        dropout: dropout rate in the residual blocks.
        embedding: 'positional' or 'fourier' embedding of the time label.
        fourier_scale: standard deviation of the Fourier frequencies.
        dtype, remat: as in ModuleNetwork.
    """

    shape: tuple[int, int, int]
    num_classes: int | None = None
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    dropout: float = 0.1
    embedding: str = "positional"
    fourier_scale: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shape", "multipliers", "attention"):
            numbers = tuple(getattr(self, name))
            if not all(isinstance(number, int) for number in numbers):
                raise InputError(f"DDPMpp got {name}={numbers!r}; expected whole numbers.")
            object.__setattr__(self, name, numbers)
        step = 2 ** (len(self.multipliers) - 1)
        if len(self.shape) != 3 or any(side % step for side in self.shape[:2]):
            raise InputError(
                f"DDPMpp got images of shape {self.shape}; expected (height, width, channels) with sides divisible by "
                f"{step} for {len(self.multipliers)} levels: use fewer multipliers, or pad the images."
            )
        if self.embedding not in ("positional", "fourier"):
            raise InputError(f"embedding is {self.embedding!r}; expected 'positional' or 'fourier'.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; expected a rate in [0, 1).")
        if self.channels < 1 or self.blocks < 1 or not self.multipliers or min(self.multipliers) < 1:
            raise InputError(
                f"DDPMpp got channels={self.channels}, blocks={self.blocks}, multipliers={self.multipliers}; "
                "expected numbers of at least 1."
            )

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        return _UNet(self, rngs)


class _UNet(nnx.Module):
    """Residual blocks down to the smallest level, the middle, and up again over the skips."""

    def __init__(self, net: DDPMpp, rngs: nnx.Rngs) -> None:
        self.num_classes, self.remat = net.num_classes, net.remat
        self.embedding = layers.TimeEmbedding(net.channels, net.embedding, net.fourier_scale, net.num_classes, rngs)
        count = iter(range(1_000_000))

        def block(inputs: int, outputs: int, resample: str | None = None) -> layers.ResidualBlock:
            return layers.ResidualBlock(
                inputs, outputs, 4 * net.channels, rngs, layer=next(count), dropout=net.dropout, resample=resample
            )

        def attention(level: int, width: int) -> layers.Attention | None:
            return layers.Attention(width, rngs) if net.shape[0] >> level in net.attention else None

        self.conv_in = layers.conv(3, net.shape[2], net.channels, rngs)
        now, skips, down, up = net.channels, [net.channels], [], []
        last = len(net.multipliers) - 1
        for level, width in enumerate(net.channels * m for m in net.multipliers):
            for _ in range(net.blocks):
                down.append(_Stage(block(now, width), attention(level, width)))
                now = width
                skips.append(now)
            if level < last:
                down.append(_Stage(block(now, now, "down"), None))
                skips.append(now)
        self.middle = nnx.List([block(now, now), layers.Attention(now, rngs), block(now, now)])
        for level, width in reversed(list(enumerate(net.channels * m for m in net.multipliers))):
            for i in range(net.blocks + 1):
                attends = attention(level, width) if i == net.blocks else None
                up.append(_Stage(block(now + skips.pop(), width), attends))
                now = width
            if level > 0:
                up.append(_Stage(block(now, now, "up"), None))
        self.down, self.up = nnx.List(down), nnx.List(up)
        self.norm_out = layers.group_norm(now, rngs)
        self.conv_out = layers.conv(3, now, net.shape[2], rngs, scale=0)

    def __call__(self, x: Array, time_label: Array, cond: Any, keys: Array | None) -> Array:
        if cond is not None and self.num_classes is None:
            raise InputError("A condition was given to a network without classes: build it with num_classes.")
        embedding = self.embedding(time_label, None if cond is None else cond["label"])
        h = self.conv_in(x)
        skips = [h]
        for stage in self.down:
            h = layers.rematerialised(stage, self.remat)(h, embedding, keys)
            skips.append(h)
        first, attention, second = (layers.rematerialised(block, self.remat) for block in self.middle)
        h = second(attention(first(h, embedding, keys)), embedding, keys)
        for stage in self.up:
            skip = None if stage.block.resample else skips.pop()
            h = layers.rematerialised(stage, self.remat)(h, embedding, keys, skip)
        return self.conv_out(jax.nn.swish(self.norm_out(h)))


class _Stage(nnx.Module):
    """A residual block, over a skip if it is on the way up, and attention if the level has it."""

    def __init__(self, block: layers.ResidualBlock, attention: layers.Attention | None) -> None:
        self.block, self.attention = block, attention

    def __call__(self, h: Array, embedding: Array, keys: Array | None, skip: Array | None = None) -> Array:
        if skip is not None:
            h = jax.numpy.concatenate([h, skip], axis=-1)
        h = self.block(h, embedding, keys)
        return h if self.attention is None else self.attention(h)
