"""This module computes EfficientNet-Lite0, a small network of ImageNet's classes.

The source is Tan & Le 2019 (arXiv:1905.11946), in the variant "lite" without squeeze-and-excitation and with ReLU6. The
units have the names of the PyTorch port whose weights a package carries.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.networks.features.units import Params, conv, depthwise

EPS = 1e-3  # of every batch norm
FEATURES, CLASSES = 1280, 1000
SIDE = 224


class Block(NamedTuple):
    """`Block` describes one inverted bottleneck."""

    into: int
    out: int
    kernel: int
    stride: int
    expand: int


def _table() -> tuple[Block, ...]:
    stages = (
        (1, 16, 1, 1, 3),
        (2, 24, 2, 6, 3),
        (2, 40, 2, 6, 5),
        (3, 80, 2, 6, 3),
        (3, 112, 1, 6, 5),
        (4, 192, 2, 6, 5),
        (1, 320, 1, 6, 3),
    )
    blocks, into = [], 32
    for repeats, out, stride, expand, kernel in stages:
        for i in range(repeats):
            blocks.append(Block(into, out, kernel, stride if i == 0 else 1, expand))
            into = out
    return tuple(blocks)


BLOCKS = _table()


def units() -> dict[str, tuple[str, tuple[int, int, int, int]]]:
    """Return, for each convolution, the name of its batch norm and the shape of its kernel (HWIO)."""
    found = {"_conv_stem": ("_bn0", (3, 3, 3, 32))}
    for i, block in enumerate(BLOCKS):
        name, wide = f"_blocks.{i}.", block.into * block.expand
        if block.expand > 1:
            found[f"{name}_expand_conv"] = (f"{name}_bn0", (1, 1, block.into, wide))
        found[f"{name}_depthwise_conv"] = (f"{name}_bn1", (block.kernel, block.kernel, 1, wide))
        found[f"{name}_project_conv"] = (f"{name}_bn2", (1, 1, wide, block.out))
    found["_conv_head"] = ("_bn1", (1, 1, 320, FEATURES))
    return found


def apply(params: Params, x: Array) -> dict[str, Array]:
    """Return features (n, 1280) and logits (n, 1000) for images (n, height, width, 3) of values (v - 127) / 128.

    Args:
        params: kernels (HWIO, with their batch norm) and biases by the names of `units`; '_fc' has kernel and bias.
        x: images, 224 x 224 pixels in training; other sizes give features of the same size.
    """
    x = jax.nn.relu6(conv(params["_conv_stem"], x, stride=2))
    for i, block in enumerate(BLOCKS):
        name, before = f"_blocks.{i}.", x
        if block.expand > 1:
            x = jax.nn.relu6(conv(params[f"{name}_expand_conv"], x))
        x = jax.nn.relu6(depthwise(params[f"{name}_depthwise_conv"], x, block.stride))
        x = conv(params[f"{name}_project_conv"], x)
        if block.stride == 1 and block.into == block.out:
            x = x + before
    x = jax.nn.relu6(conv(params["_conv_head"], x))
    features = x.mean(axis=(1, 2))
    return {"features": features, "logits": jnp.dot(features, params["_fc"]["kernel"]) + params["_fc"]["bias"]}
