"""This module defines networks that classify noised images: (x_t, time label) -> logits of the classes."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from score_sde.core.arrays import Array, to_time
from score_sde.core.checks import as_shape, is_whole
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.networks import embeddings, layers
from score_sde.networks.base import ModuleNetwork
from score_sde.networks.families import UNetNetwork
from score_sde.networks.fold import fold
from score_sde.networks.plan import UNetSpec
from score_sde.networks.unet import Encoder

POOLS = ("attention", "mean")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetClassifier(UNetNetwork):
    """`UNetClassifier` is the first half of a U-Net with attention pooling (Dhariwal & Nichol 2021, Sec. 4).

    The blocks and the embedding of the time label are those of `DDPMpp`. The output has shape (batch, classes).

    Attributes:
        classes: number of classes; a config takes this number from the condition `label` of the data set.
        pool: how the feature map of the middle becomes one vector: 'attention' (`AttentionPool`), or 'mean'.
        head_channels: channels of one head of the attention pooling; the next smaller divisor of the channels is used.
        embedding: 'positional' or 'fourier' embedding of the time label; a config without this entry selects 'fourier'
            if the labels lie within 20 units, such as logarithms of sigma.
        fourier_scale: standard deviation of the Fourier frequencies.
    """

    classes: int = 0
    blocks: int = 2
    pool: str = "attention"
    head_channels: int = 64
    embedding: str = "positional"
    fourier_scale: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classes("UNetClassifier", self.classes)
        if self.pool not in POOLS:
            raise InputError(f"pool of UNetClassifier is {self.pool!r}; expected one of {', '.join(POOLS)}.")
        if not is_whole(self.head_channels, 1):
            raise InputError(
                f"head_channels of UNetClassifier is {self.head_channels!r}; expected a whole number, at least 1."
            )

    def spec(self) -> UNetSpec:
        return UNetSpec(**self._common())

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        return _EncoderClassifier(self, rngs)


class _EncoderClassifier(nnx.Module):
    def __init__(self, net: UNetClassifier, rngs: nnx.Rngs) -> None:
        spec, levels = net.spec(), len(net.multipliers)
        self.fold = net.fold
        self.stem = layers.conv(3, net.shape[2], net.stem, rngs) if net.stem else None
        self.encoder = Encoder(spec, rngs)
        channels = self.encoder.outputs
        self.norm = layers.group_norm(channels, rngs)
        positions = (spec.shape[0] >> levels - 1) * (spec.shape[1] >> levels - 1)
        self.pool = AttentionPool(channels, positions, net.head_channels, rngs) if net.pool == "attention" else None
        self.logits = layers.dense(channels, net.classes, rngs)

    def __call__(self, x: Array, time_label: Array, cond: Cond, keys: Array | None) -> Array:
        x = x if self.stem is None else self.stem(x)
        h = self.encoder(fold(x, self.fold) if self.fold > 1 else x, time_label, cond, keys)
        with jax.named_scope("head"):
            h = jax.nn.swish(self.norm(h))
            pooled = jnp.mean(h, axis=(1, 2)) if self.pool is None else self.pool(h)
            return self.logits(pooled)


class AttentionPool(nnx.Module):
    """`AttentionPool` returns one vector of a feature map: (batch, height, width, channels) -> (batch, channels).

    The mean of the pixels attends over itself and all pixels, each with an embedding of its position (Radford et al.
    2021, arXiv:2103.00020, Sec. 2.4).

    Args:
        channels: channels of the feature map.
        positions: number of pixels, height x width.
        head_channels: channels of one head; the next smaller divisor of `channels` is used.
        rngs: random keys of the initial weights.
    """

    def __init__(self, channels: int, positions: int, head_channels: int, rngs: nnx.Rngs) -> None:
        size = next(size for size in range(min(head_channels, channels), 0, -1) if channels % size == 0)
        self.heads = channels // size
        init = layers.normal_init(1 / math.sqrt(channels))
        self.positions = layers.special(init(rngs.params(), (positions + 1, channels)), decays=False)
        self.query = layers.dense(channels, channels, rngs)
        self.key = layers.dense(channels, channels, rngs)
        self.value = layers.dense(channels, channels, rngs)

    def __call__(self, x: Array) -> Array:
        batch, _, _, channels = x.shape
        pixels = x.reshape(batch, -1, channels)
        tokens = jnp.concatenate([pixels.mean(axis=1, keepdims=True), pixels], axis=1) + self.positions[...]
        query, key, value = (
            part.reshape(batch, -1, self.heads, channels // self.heads)
            for part in (self.query(tokens[:, :1]), self.key(tokens), self.value(tokens))
        )
        return jax.nn.dot_product_attention(query, key, value).reshape(batch, channels)


@dataclasses.dataclass(frozen=True)
class WideResNet(ModuleNetwork):
    """`WideResNet` is the noise-conditional wide residual network of Song et al. 2021 (App. I.1).

    WRN-28-10 (Zagoruyko & Komodakis 2016, arXiv:1605.07146) is blocks=4, widen=10. Normalisation is by groups. The
    Fourier embedding of the time label passes through two layers, and each block adds a linear map of it; the published
    network has the label log(sigma), which is time_label='log_sigma' of a parametrisation. Each image is standardised:
    its mean becomes 0 and its standard deviation, which counts as at least 1 / sqrt(numbers of the image), becomes 1.
    The output has shape (batch, classes).

    Attributes:
        shape: (height, width, channels), with height and width divisible by 4.
        classes: number of classes; a config takes this number from the condition `label` of the data set.
        conditions: none; the class that is predicted is not an input.
        blocks: blocks in each of the three groups.
        widen: factor on the channels 16, 32 and 64 of the groups.
        embedding_channels: number of Fourier frequencies.
        fourier_scale: standard deviation of the Fourier frequencies.
        dtype, remat: as in ModuleNetwork.
    """

    shape: tuple[int, int, int]
    classes: int = 0
    conditions: Conditions = Conditions()  # noqa: RUF009 (Conditions is immutable)
    blocks: int = 4
    widen: int = 10
    embedding_channels: int = 128
    fourier_scale: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shape", as_shape("shape of WideResNet", self.shape))
        object.__setattr__(self, "conditions", Conditions(self.conditions))
        check_classes("WideResNet", self.classes)
        if self.conditions:
            raise InputError(f"WideResNet reads no conditions, and conditions has {', '.join(self.conditions)}.")
        for name in ("blocks", "widen", "embedding_channels"):
            if not is_whole(getattr(self, name), 1):
                raise InputError(
                    f"{name} of WideResNet is {getattr(self, name)!r}; expected a whole number, at least 1."
                )
        if len(self.shape) != 3 or any(side % 4 for side in self.shape[:2]):
            raise InputError(
                f"WideResNet got images of shape {self.shape}; expected (height, width, channels) with sides divisible "
                "by 4."
            )

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        return _Wide(self, rngs)


def check_classes(name: str, classes: int) -> None:
    """Raise InputError for a number of classes below 2."""
    if not is_whole(classes, 2):
        raise InputError(
            f"{name} got classes={classes!r}; expected the number of classes, at least 2: use a data set with the "
            "condition 'label'."
        )


class _Wide(nnx.Module):
    def __init__(self, net: WideResNet, rngs: nnx.Rngs) -> None:
        size = 4 * net.embedding_channels
        self.remat = net.remat
        self.fourier = embeddings.FourierEmbedding(net.embedding_channels, net.fourier_scale, rngs)
        self.hidden = layers.dense(size // 2, size, rngs)
        self.out = layers.dense(size, size, rngs)
        self.conv_in = _unbiased_conv(net.shape[2], 16, rngs)
        now, blocks = 16, []
        for group, width in enumerate((16 * net.widen, 32 * net.widen, 64 * net.widen)):
            for number in range(net.blocks):
                stride = 2 if group > 0 and number == 0 else 1
                blocks.append(_WideBlock(now, width, stride, size, group == number == 0, rngs))
                now = width
        self.blocks = nnx.List(blocks)
        self.norm = layers.group_norm(now, rngs, epsilon=1e-5)
        bound = layers.fan_in_init(net.classes)  # the published initial weights are uniform on +-1 / sqrt(classes)
        self.logits = nnx.Linear(now, net.classes, kernel_init=bound, bias_init=layers.constant_init(0.0), rngs=rngs)

    def __call__(self, x: Array, time_label: Array, cond: Cond, keys: Array | None) -> Array:
        with jax.named_scope("embedding"):
            embedded = self.fourier(to_time(time_label)).astype(x.dtype)
            embedding = jax.nn.swish(self.out(jax.nn.swish(self.hidden(embedded))))
        axes = (1, 2, 3)
        spread = jnp.maximum(jnp.std(x, axes, keepdims=True), 1 / math.sqrt(math.prod(x.shape[1:])))
        h = self.conv_in((x - jnp.mean(x, axes, keepdims=True)) / spread)
        for number, block in enumerate(self.blocks):
            with jax.named_scope(f"block{number}"):
                h = layers.rematerialised(block, self.remat)(h, embedding)
        with jax.named_scope("head"):
            return self.logits(jnp.mean(jax.nn.relu(self.norm(h)), axis=(1, 2)))


class _WideBlock(nnx.Module):
    """`_WideBlock` adds two convolutions to its input; the input of the first block is normalised in both branches."""

    def __init__(self, inputs: int, outputs: int, stride: int, embedding: int, first: bool, rngs: nnx.Rngs) -> None:
        self.stride, self.wider, self.first = stride, outputs - inputs, first
        self.norm_in = layers.group_norm(inputs, rngs, epsilon=1e-5)
        self.conv_in = _unbiased_conv(inputs, outputs, rngs, stride)
        self.embed = layers.dense(embedding, outputs, rngs)
        self.norm_out = layers.group_norm(outputs, rngs, epsilon=1e-5)
        self.conv_out = _unbiased_conv(outputs, outputs, rngs)

    def __call__(self, x: Array, embedding: Array) -> Array:
        h = jax.nn.relu(self.norm_in(x))
        x = h if self.first else x
        h = self.conv_in(h) + self.embed(embedding)[:, None, None]
        h = self.conv_out(jax.nn.relu(self.norm_out(h)))
        if self.stride > 1:
            x = nnx.avg_pool(x, (self.stride, self.stride), (self.stride, self.stride))
        return h + jnp.pad(x, [(0, 0)] * 3 + [(0, self.wider)])


def _unbiased_conv(inputs: int, outputs: int, rngs: nnx.Rngs, stride: int = 1) -> nnx.Conv:
    init = layers.normal_init(math.sqrt(2 / (9 * outputs)))  # He et al. 2015, by the outputs
    return nnx.Conv(
        inputs,
        outputs,
        (3, 3),
        strides=(stride, stride),
        padding="SAME",
        use_bias=False,
        kernel_init=init,
        conv_general_dilated=layers.convolve,
        rngs=rngs,
    )
