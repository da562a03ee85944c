"""This module defines the U-Net of all networks of this family and its forward pass."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from score_sde.core.arrays import Array, to_time
from score_sde.core.conditions import Cond
from score_sde.networks import embeddings, layers, resample
from score_sde.networks.layers import merged
from score_sde.networks.plan import Piece, UNetSpec, encoder_pieces, pieces


class ResidualBlock(nnx.Module):
    """`ResidualBlock` adds two time-conditional convolutions to its input, and may change size or channels.

    'ddpm' is the block of Ho et al. 2020. 'biggan' is the block of Brock et al. 2019 (arXiv:1809.11096), which
    resamples.
    """

    def __init__(self, piece: Piece, spec: UNetSpec, layer: int, rngs: nnx.Rngs) -> None:
        self.spec, self.resample, self.layer = spec, piece.resample, layer
        inputs, outputs = piece.inputs, piece.outputs
        self.norm_in = layers.group_norm(inputs, rngs, spec.groups)
        self.conv_in = _convolution(spec, inputs, outputs, rngs)
        self.embed = layers.dense(4 * spec.channels, outputs, rngs) if spec.noise_conditional else None
        self.norm_out = layers.group_norm(outputs, rngs, spec.groups)
        self.conv_out = _convolution(spec, outputs, outputs, rngs, scale=spec.init_scale)
        self.shortcut = self._shortcut(piece, rngs)

    def _shortcut(self, piece: Piece, rngs: nnx.Rngs) -> nnx.Conv | nnx.Linear | None:
        if piece.inputs == piece.outputs and piece.resample is None:
            return None
        if self.spec.resblock == "biggan":
            return layers.conv(1, piece.inputs, piece.outputs, rngs)
        return layers.dense(piece.inputs, piece.outputs, rngs, scale=layers.PROJECTION_SCALE)

    def __call__(self, x: Array, embedding: Array | None, keys: Array | None) -> Array:
        act = layers.ACTIVATIONS[self.spec.nonlinearity]
        h = act(self.norm_in(x))
        if self.resample is not None:
            h, x = (_resized(each, self.resample, self.spec) for each in (h, x))
        h = self.conv_in(h)
        if self.embed is not None and embedding is not None:
            h = h + self.embed(act(embedding))[:, None, None]
        h = layers.dropout(act(self.norm_out(h)), self.spec.dropout, keys, self.layer)
        h = self.conv_out(h)
        return merged(x if self.shortcut is None else self.shortcut(x), h, self.spec.skip_rescale)


def _convolution(spec: UNetSpec, inputs: int, outputs: int, rngs: nnx.Rngs, scale: float = 1.0) -> Any:
    """Return a 3 x 3 convolution, which sees the coordinates of its pixels if the spec says so."""
    made = layers.conv(3, inputs, outputs, rngs, scale=scale)
    return embeddings.AtPixels(made, inputs, rngs) if spec.coordinates else made


class Resample(nnx.Module):
    """`Resample` halves or doubles an image, with or without the FIR filter, with or without a convolution."""

    def __init__(self, piece: Piece, spec: UNetSpec, rngs: nnx.Rngs) -> None:
        self.spec, self.direction = spec, str(piece.resample)
        stride = 2 if piece.resample == "down" and not spec.fir else 1
        self.conv = layers.conv(3, piece.inputs, piece.outputs, rngs, stride=stride) if piece.conv else None

    def __call__(self, x: Array) -> Array:
        if self.conv is None:
            return _resized(x, self.direction, self.spec)
        if not self.spec.fir:
            return self.conv(resample.upsample(x) if self.direction == "up" else x)
        change = {"down": resample.fir_conv_downsample, "up": resample.fir_conv_upsample}[self.direction]
        weight, bias = self.conv.kernel[...], self.conv.bias
        assert bias is not None
        return change(x, weight, self.spec.fir_kernel) + bias[...]


def _resized(x: Array, direction: str, spec: UNetSpec) -> Array:
    if spec.fir:
        return {"down": resample.fir_downsample, "up": resample.fir_upsample}[direction](x, spec.fir_kernel)
    return {"down": resample.downsample, "up": resample.upsample}[direction](x)


class Combine(nnx.Module):
    """`Combine` applies a 1 x 1 convolution to the input pyramid and concatenates it with h or adds it to h."""

    def __init__(self, piece: Piece, spec: UNetSpec, rngs: nnx.Rngs) -> None:
        self.conv, self.method = layers.conv(1, piece.inputs, piece.outputs, rngs), spec.combine

    def __call__(self, pyramid: Array, h: Array) -> Array:
        part = self.conv(pyramid)
        return jnp.concatenate([part, h], axis=-1) if self.method == "cat" else part + h


class UNet(nnx.Module):
    """`UNet` passes h through the pieces in order, with a stack of skip connections and a pyramid of images."""

    def __init__(self, spec: UNetSpec, rngs: nnx.Rngs) -> None:
        self.spec, self.pieces = spec, self.plan(spec)
        self.embedding = embeddings.TimeEmbedding(
            spec.channels,
            spec.embedding,
            spec.fourier_scale,
            spec.reads,
            rngs,
            layers.ACTIVATIONS[spec.nonlinearity],
            spec.noise_conditional,
        )
        for number, piece in enumerate(self.pieces):
            setattr(self, piece.name, self._make(piece, number, rngs))

    def plan(self, spec: UNetSpec) -> tuple[Piece, ...]:
        """Return the pieces that the network has."""
        return pieces(spec)

    def _make(self, piece: Piece, number: int, rngs: nnx.Rngs) -> nnx.Module:
        if piece.kind == "block":
            return ResidualBlock(piece, self.spec, number, rngs)
        if piece.kind == "attention":
            spec = self.spec
            return layers.Attention(piece.inputs, rngs, spec.skip_rescale, spec.init_scale, spec.groups)
        if piece.kind == "resample":
            return Resample(piece, self.spec, rngs)
        if piece.kind == "combine":
            return Combine(piece, self.spec, rngs)
        if piece.kind == "norm":
            return layers.group_norm(piece.inputs, rngs, self.spec.groups)
        conv = _convolution(self.spec, piece.inputs, piece.outputs, rngs, scale=piece.scale)
        return layers.marked(conv, head=True) if piece.role == "variance" else conv

    def __call__(self, x: Array, time_label: Array, cond: Cond, keys: Array | None) -> Array:
        time_label = to_time(time_label)  # the label may be an integer index
        label = jnp.log(time_label) if self.spec.label == "sigma" else time_label
        with jax.named_scope("embedding"):
            embedding = self.embedding(label, cond)
        return self._walk(x, embedding, keys)

    def _walk(self, x: Array, embedding: Array | None, keys: Array | None) -> Array:
        act, rescale = layers.ACTIVATIONS[self.spec.nonlinearity], self.spec.skip_rescale
        h = normed = x
        variance: Array | None = None
        skips: list[Array] = []
        # On the way down the pyramid is the resized image; on the way up it is the output so far.
        pyramid: Array | None = x
        for piece in self.pieces:
            module = getattr(self, piece.name)
            with jax.named_scope(piece.name):
                if piece.role in ("start", "through"):
                    h = self._run(module, h)
                elif piece.role == "block":
                    skip = skips.pop() if piece.pops else None
                    h = self._run(functools.partial(_over_skip, module), h, skip, embedding, keys)
                elif piece.role == "pyramid":
                    pyramid = module(pyramid)
                elif piece.role == "pyramid_residual":
                    h = pyramid = merged(module(pyramid), h, rescale)
                elif piece.role == "combine":
                    h = module(pyramid, h)
                elif piece.role == "norm":
                    normed = act(module(h))
                elif piece.role == "skip":
                    pyramid = module(normed) if pyramid is None else pyramid + module(normed)
                elif piece.role == "variance":
                    variance = module(normed)
                else:
                    h = module(normed)
            if piece.pushes:
                skips.append(h)
            if piece.name == "middle_block1":
                pyramid = None
        image: Any = pyramid if self.spec.progressive == "output_skip" else h
        return image if variance is None else jnp.concatenate([image, variance], axis=-1)

    def _run(self, function: Any, *args: Any) -> Array:
        return layers.rematerialised(function, self.spec.remat)(*args)


class Encoder(UNet):
    """`Encoder` is the first half of a `UNet`: it returns the feature map of the middle, at the lowest resolution."""

    def plan(self, spec: UNetSpec) -> tuple[Piece, ...]:
        return encoder_pieces(spec)

    @property
    def outputs(self) -> int:
        """Return the channels of the feature map."""
        return self.pieces[-1].outputs


def _over_skip(block: Any, h: Array, skip: Array | None, embedding: Array | None, keys: Array | None) -> Array:
    return block(h if skip is None else jnp.concatenate([h, skip], axis=-1), embedding, keys)
