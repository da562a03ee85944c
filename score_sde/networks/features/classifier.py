"""This module computes a small convolutional classifier, whose last hidden layer gives features of its data set."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.networks.features.units import conv
from score_sde.networks.fold import fold

FEATURES = 128
_WIDTHS = (48, 96, 128)  # channels of the convolutions; deeper ones keep the last
_SIDE = 8  # the last convolution reads an image whose longer side has at most this many pixels


def _stages(shape: tuple[int, ...]) -> int:
    """Return the number of convolutions, at a half, a quarter, ... of the resolution."""
    return max(math.ceil(math.log2(max(shape[:2]) / _SIDE)), 1)


def init(key: Array, shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """Return random parameters for images of the shape (height, width, channels)."""
    params: dict[str, Any] = {}
    height, width, channels = shape
    channels *= 4
    keys = jax.random.split(key, _stages(shape) + 2)
    for i in range(_stages(shape)):
        out = _WIDTHS[min(i, len(_WIDTHS) - 1)]
        params[f"conv{i}"] = _layer(keys[i], (3, 3, channels, out))
        channels, height, width = out, -(-height // 2), -(-width // 2)
    params["hidden"] = _layer(keys[-2], (height * width * channels, FEATURES))
    params["out"] = _layer(keys[-1], (FEATURES, classes))
    return params


def apply(params: Any, x: Array, drop: Array | None = None) -> dict[str, Array]:
    """Return features (n, 128) and logits (n, classes) of images (n, height, width, channels) of values 0..1.

    Args:
        params: the parameters of `init`.
        x: the images.
        drop: in training, the factor of each feature under dropout, (n, 128); otherwise None.
    """
    x = fold(_even(x - 0.5), 2)
    for i in range(sum(name.startswith("conv") for name in params)):
        x = jax.nn.relu(conv(params[f"conv{i}"], x if i == 0 else _halved(x)))
    hidden = params["hidden"]
    features = jax.nn.relu(x.reshape(len(x), -1) @ hidden["kernel"] + hidden["bias"])
    dropped = features if drop is None else features * drop
    return {"features": features, "logits": dropped @ params["out"]["kernel"] + params["out"]["bias"]}


def _halved(x: Array) -> Array:
    """Return the mean of each 2 x 2 pixels; an odd side repeats its last row.

    The gradient of a strided convolution is slow on a CPU.
    """
    x = _even(x)
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _even(x: Array) -> Array:
    """Return the images with an even number of rows and columns."""
    height, width = x.shape[1:3]
    return jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _layer(key: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    fan_in = math.prod(shape[:-1])
    return {"kernel": jax.random.normal(key, shape) * math.sqrt(2 / fan_in), "bias": jnp.zeros(shape[-1])}
