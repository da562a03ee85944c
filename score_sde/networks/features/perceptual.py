"""This module computes LPIPS, a distance of pairs of images by the layers of AlexNet or VGG16.

The source is Zhang et al. 2018, arXiv:1801.03924, Eq. 1: features are normalised along the channels, the squared
differences are weighted by channel, and the means over the places of all layers are added.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array
from score_sde.networks.features.units import Params, conv, max_pool

# The layer of each network: (index of the convolution in torchvision's `features`, channels, kernel, stride, padding).
ALEXNET = ((0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1), (10, 256, 3, 1, 1))
_ALEXNET_POOLED = (3, 6)  # a maximum pool comes before these convolutions
VGG16 = tuple(
    (index, channels, 3, 1, 1)
    for index, channels in zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
        strict=True,
    )
)
_VGG16_POOLED = (5, 10, 17, 24)
_VGG16_TAPS = (2, 7, 14, 21, 28)
NETWORKS = {"alexnet": ALEXNET, "vgg16": VGG16}
# The means and standard deviations of ImageNet's colours, for values -1..1.
_SHIFT, _SCALE = np.asarray([-0.030, -0.088, -0.188], "f4"), np.asarray([0.458, 0.448, 0.450], "f4")
_EPS = 1e-10


def taps(network: str) -> tuple[int, ...]:
    """Return the indices of the five convolutions whose outputs are compared."""
    return tuple(index for index, *_ in ALEXNET) if network == "alexnet" else _VGG16_TAPS


def layers(params: Params, x: Array, network: str) -> list[Array]:
    """Return the five compared layers of a network for images (n, h, w, 3) of values -1..1."""
    x = (x - _SHIFT) / _SCALE
    pooled = _ALEXNET_POOLED if network == "alexnet" else _VGG16_POOLED
    side = 3 if network == "alexnet" else 2
    found = []
    for index, _, _, stride, padding in NETWORKS[network]:
        x = max_pool(x, side, 2) if index in pooled else x
        x = jax.nn.relu(conv(params[f"features.{index}"], x, stride, padding))
        if index in taps(network):
            found.append(x)
    return found


def distance(params: Params, x: Array, y: Array, network: str) -> Array:
    """Return the distance of each pair of images (n, h, w, 3) of values -1..1, (n,).

    Args:
        params: 'features.INDEX' with kernel and bias for each convolution; 'lin0' .. 'lin4' with the weights (c,) of
            the channels under 'kernel'.
        x, y: images.
        network: 'alexnet' or 'vgg16'.
    """
    total = jnp.zeros(len(x), x.dtype)
    for i, (a, b) in enumerate(zip(layers(params, x, network), layers(params, y, network), strict=True)):
        total += (((_unit(a) - _unit(b)) ** 2) @ params[f"lin{i}"]["kernel"]).mean(axis=(1, 2))
    return total


def _unit(x: Array) -> Array:
    return x / (jnp.sqrt((x * x).sum(axis=-1, keepdims=True)) + _EPS)
