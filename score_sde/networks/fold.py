"""This module folds squares of pixels into channels, so that a network costs less for each parameter."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from score_sde.core.arrays import Array
from score_sde.core.conditions import Cond
from score_sde.networks import layers


def folded_shape(shape: tuple[int, ...], side: int) -> tuple[int, int, int]:
    """Return the shape of an image after squares of side x side pixels became channels."""
    height, width, channels = shape
    return height // side, width // side, channels * side**2


def fold(x: Array, side: int) -> Array:
    """Fold (batch, height, width, channels) into (batch, height / side, width / side, side^2 channels)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // side, width // side, side**2 * channels)


def unfold(x: Array, side: int) -> Array:
    """Compute the inverse of `fold`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, side, side, channels // side**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * side, width * side, channels // side**2)


class Folded(nnx.Module):
    """`Folded` makes a network of images from a network of folded images.

    Args:
        inner: network of folded images.
        side: side of the squares in pixels.
        channels: channels of the images.
        stem: channels at the full resolution; a 3 x 3 convolution makes them from the image before the fold, and
            another reads them after the unfold; 0 to fold the image itself.
        rngs: random keys of the initial weights.
        outputs: 2 if the network has a second output, the variance; without a stem `inner` makes both outputs.
    """

    def __init__(
        self, inner: Callable[..., Array], side: int, channels: int, stem: int, rngs: nnx.Rngs, outputs: int = 1
    ) -> None:
        self.inner, self.side = inner, side
        self.conv_in = layers.conv(3, channels, stem, rngs) if stem else None
        self.conv_out = layers.conv(3, stem, channels, rngs) if stem else None
        self.outputs = outputs
        if stem and outputs == 2:
            self.conv_variance = layers.marked(layers.conv(3, stem, channels, rngs, scale=0), head=True)

    def __call__(self, x: Array, time_label: Array, cond: Cond, keys: Array | None) -> Array:
        with jax.named_scope("fold"):
            folded = fold(x if self.conv_in is None else self.conv_in(x), self.side)
        inner = self.inner(folded, time_label, cond, keys)
        with jax.named_scope("unfold"):
            if self.conv_out is None:
                parts = jnp.split(inner, self.outputs, axis=-1)
                return jnp.concatenate([unfold(part, self.side) for part in parts], axis=-1)
            unfolded = unfold(inner, self.side)
            mean = self.conv_out(unfolded)
            return mean if self.outputs == 1 else jnp.concatenate([mean, self.conv_variance(unfolded)], axis=-1)
