"""This module computes the Inception network of December 2015, whose features define the FID.

The network differs from Inception v3 of other libraries: the weights, 1,008 logits, no auxiliary head, mean pools that
divide by the pixels inside the image, and a maximum pool in the last block. The units have the names of pytorch-fid.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array
from score_sde.networks.features.units import Params, conv, max_pool, max_pool_same, mean_pool

EPS = 1e-3  # of every batch norm
FEATURES, CLASSES, SPATIAL = 2048, 1008, 7 * 17 * 17
SIDE = 299


class Unit(NamedTuple):
    """`Unit` describes a convolution with batch norm and ReLU.

    Attributes:
        scope: its place in TensorFlow's graph of 2015.
        into, out: input and output channels.
        kernel: height and width of the kernel.
    """

    scope: str
    into: int
    out: int
    kernel: tuple[int, int]


_ONE, _THREE, _FIVE, _ROW, _COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
_STEM = {
    "Conv2d_1a_3x3": Unit("conv", 3, 32, _THREE),
    "Conv2d_2a_3x3": Unit("conv_1", 32, 32, _THREE),
    "Conv2d_2b_3x3": Unit("conv_2", 32, 64, _THREE),
    "Conv2d_3b_1x1": Unit("conv_3", 64, 80, _ONE),
    "Conv2d_4a_3x3": Unit("conv_4", 80, 192, _THREE),
}


def _named(block: str, scope: str, **branches: tuple[str, int, int, tuple[int, int]]) -> dict[str, Unit]:
    """Return the units of a block by name."""
    return {f"Mixed_{block}.{name}": Unit(f"{scope}/{b[0]}", *b[1:]) for name, b in branches.items()}


def _units_5(block: str, scope: str, into: int, pooled: int) -> dict[str, Unit]:
    return _named(
        block,
        scope,
        branch1x1=("conv", into, 64, _ONE),
        branch5x5_1=("tower/conv", into, 48, _ONE),
        branch5x5_2=("tower/conv_1", 48, 64, _FIVE),
        branch3x3dbl_1=("tower_1/conv", into, 64, _ONE),
        branch3x3dbl_2=("tower_1/conv_1", 64, 96, _THREE),
        branch3x3dbl_3=("tower_1/conv_2", 96, 96, _THREE),
        branch_pool=("tower_2/conv", into, pooled, _ONE),
    )


def _units_6a() -> dict[str, Unit]:
    return _named(
        "6a",
        "mixed_3",
        branch3x3=("conv", 288, 384, _THREE),
        branch3x3dbl_1=("tower/conv", 288, 64, _ONE),
        branch3x3dbl_2=("tower/conv_1", 64, 96, _THREE),
        branch3x3dbl_3=("tower/conv_2", 96, 96, _THREE),
    )


def _units_6(block: str, scope: str, c: int) -> dict[str, Unit]:
    return _named(
        block,
        scope,
        branch1x1=("conv", 768, 192, _ONE),
        branch7x7_1=("tower/conv", 768, c, _ONE),
        branch7x7_2=("tower/conv_1", c, c, _ROW),
        branch7x7_3=("tower/conv_2", c, 192, _COLUMN),
        branch7x7dbl_1=("tower_1/conv", 768, c, _ONE),
        branch7x7dbl_2=("tower_1/conv_1", c, c, _COLUMN),
        branch7x7dbl_3=("tower_1/conv_2", c, c, _ROW),
        branch7x7dbl_4=("tower_1/conv_3", c, c, _COLUMN),
        branch7x7dbl_5=("tower_1/conv_4", c, 192, _ROW),
        branch_pool=("tower_2/conv", 768, 192, _ONE),
    )


def _units_7a() -> dict[str, Unit]:
    return _named(
        "7a",
        "mixed_8",
        branch3x3_1=("tower/conv", 768, 192, _ONE),
        branch3x3_2=("tower/conv_1", 192, 320, _THREE),
        branch7x7x3_1=("tower_1/conv", 768, 192, _ONE),
        branch7x7x3_2=("tower_1/conv_1", 192, 192, _ROW),
        branch7x7x3_3=("tower_1/conv_2", 192, 192, _COLUMN),
        branch7x7x3_4=("tower_1/conv_3", 192, 192, _THREE),
    )


def _units_7(block: str, scope: str, into: int) -> dict[str, Unit]:
    return _named(
        block,
        scope,
        branch1x1=("conv", into, 320, _ONE),
        branch3x3_1=("tower/conv", into, 384, _ONE),
        branch3x3_2a=("tower/mixed/conv", 384, 384, (1, 3)),
        branch3x3_2b=("tower/mixed/conv_1", 384, 384, (3, 1)),
        branch3x3dbl_1=("tower_1/conv", into, 448, _ONE),
        branch3x3dbl_2=("tower_1/conv_1", 448, 384, _THREE),
        branch3x3dbl_3a=("tower_1/mixed/conv", 384, 384, (1, 3)),
        branch3x3dbl_3b=("tower_1/mixed/conv_1", 384, 384, (3, 1)),
        branch_pool=("tower_2/conv", into, 192, _ONE),
    )


# All 94 units, by name.
UNITS = {
    **_STEM,
    **_units_5("5b", "mixed", 192, 32),
    **_units_5("5c", "mixed_1", 256, 64),
    **_units_5("5d", "mixed_2", 288, 64),
    **_units_6a(),
    **_units_6("6b", "mixed_4", 128),
    **_units_6("6c", "mixed_5", 160),
    **_units_6("6d", "mixed_6", 160),
    **_units_6("6e", "mixed_7", 192),
    **_units_7a(),
    **_units_7("7b", "mixed_9", 1280),
    **_units_7("7c", "mixed_10", 2048),
}


def apply(params: Params, x: Array) -> dict[str, Array]:
    """Return the outputs for images (n, height, width, 3) of values (v - 128) / 128, from 0..255.

    Args:
        params: kernels (HWIO, with their batch norm) and biases by the names of UNITS; 'fc' has kernel and bias.
        x: images, 299 x 299 pixels for published numbers.

    Returns:
        features: the mean over the places of the last block, (n, 2048).
        logits: the 1,008 logits without their bias, of which published inception scores are made.
        spatial: the first 7 channels of Mixed_6d.branch1x1, flattened, (n, 2023) for 299 pixels; sFID compares them.
    """
    stem = _Chain(params, "")
    x = stem("Conv2d_1a_3x3", x, stride=2, padding="VALID")
    x = stem("Conv2d_2b_3x3", stem("Conv2d_2a_3x3", x, padding="VALID"))
    x = stem("Conv2d_3b_1x1", max_pool(x, 3, 2))
    x = max_pool(stem("Conv2d_4a_3x3", x, padding="VALID"), 3, 2)
    for name in ("5b", "5c", "5d"):
        x = _block_5(_Chain(params, f"Mixed_{name}."), x)
    x = _block_6a(_Chain(params, "Mixed_6a."), x)
    spatial = x
    for name in ("6b", "6c", "6d", "6e"):
        x, first = _block_6(_Chain(params, f"Mixed_{name}."), x)
        spatial = first if name == "6d" else spatial
    x = _block_7a(_Chain(params, "Mixed_7a."), x)
    x = _block_7(_Chain(params, "Mixed_7b."), x, mean_pool(x))
    x = _block_7(_Chain(params, "Mixed_7c."), x, max_pool_same(x))
    features = x.mean(axis=(1, 2))
    return {
        "features": features,
        "logits": features @ params["fc"]["kernel"],
        "spatial": spatial[..., :7].reshape(len(x), -1),
    }


class _Chain:
    """`_Chain` applies units of one block, each to the output of the unit before it."""

    def __init__(self, params: Params, block: str) -> None:
        self._params, self._block = params, block

    def __call__(self, name: str, x: Array, stride: int = 1, padding: str = "SAME") -> Array:
        return jax.nn.relu(conv(self._params[self._block + name], x, stride, padding))

    def heads(self, x: Array, *names: str) -> list[Array]:
        """Apply several units of one pixel to the same input as one product, which is faster than several."""
        layers = [self._params[self._block + name] for name in names]
        kernel, bias = (jnp.concatenate([layer[part] for layer in layers], axis=-1) for part in ("kernel", "bias"))
        ends = np.cumsum([layer["bias"].shape[0] for layer in layers])[:-1]
        return jnp.split(jax.nn.relu(conv({"kernel": kernel, "bias": bias}, x)), ends, axis=-1)

    def many(self, branch: str, parts: str, x: Array, last: tuple[int, str] = (1, "SAME")) -> Array:
        """Apply branch + part for each of the parts; `last` is stride and padding of the last unit."""
        names = parts.split()
        for name in names[:-1]:
            x = self(branch + name, x)
        return self(branch + names[-1], x, *last)


def _block_5(unit: _Chain, x: Array) -> Array:
    one, five, three = unit.heads(x, "branch1x1", "branch5x5_1", "branch3x3dbl_1")
    branches = [
        one,
        unit("branch5x5_2", five),
        unit.many("branch3x3dbl_", "2 3", three),
        unit("branch_pool", mean_pool(x)),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_6a(unit: _Chain, x: Array) -> Array:
    halved = (2, "VALID")
    branches = [unit("branch3x3", x, *halved), unit.many("branch3x3dbl_", "1 2 3", x, halved), max_pool(x, 3, 2)]
    return jnp.concatenate(branches, axis=-1)


def _block_6(unit: _Chain, x: Array) -> tuple[Array, Array]:
    first, seven, double = unit.heads(x, "branch1x1", "branch7x7_1", "branch7x7dbl_1")
    branches = [
        first,
        unit.many("branch7x7_", "2 3", seven),
        unit.many("branch7x7dbl_", "2 3 4 5", double),
        unit("branch_pool", mean_pool(x)),
    ]
    return jnp.concatenate(branches, axis=-1), first


def _block_7a(unit: _Chain, x: Array) -> Array:
    halved = (2, "VALID")
    three, seven = unit.heads(x, "branch3x3_1", "branch7x7x3_1")
    branches = [
        unit("branch3x3_2", three, *halved),
        unit.many("branch7x7x3_", "2 3 4", seven, halved),
        max_pool(x, 3, 2),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_7(unit: _Chain, x: Array, pooled: Array) -> Array:
    one, middle, double = unit.heads(x, "branch1x1", "branch3x3_1", "branch3x3dbl_1")
    double = unit("branch3x3dbl_2", double)
    branches = [
        one,
        unit("branch3x3_2a", middle),
        unit("branch3x3_2b", middle),
        unit("branch3x3dbl_3a", double),
        unit("branch3x3dbl_3b", double),
        unit("branch_pool", pooled),
    ]
    return jnp.concatenate(branches, axis=-1)
