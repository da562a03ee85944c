"""This module chooses a network for examples of a shape, as the entry of a config."""

from __future__ import annotations

import math
from typing import Any

import jax

from score_sde.core.errors import InputError

_MOST_LEVELS = 6
_LEAST_SIDE = 4  # smallest side of the lowest level
_ATTENTION = 16  # largest height with attention
_FOLDED, _MOST_FOLD, _STEM = 20, 4, 8  # on a CPU: largest side without a fold, largest fold, stem
# (number of examples, dropout below this number): a network memorises a small data set.
_DROPOUT = ((5_000, 0.2), (100_000, 0.1))


def fitted(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the small network of `score_sde.fit`: a U-Net with one block per level for images, otherwise an MLP.

    Raises:
        InputError: if images have more than 4 channels.
    """
    if len(shape) != 3:
        numbers = math.prod(shape)
        return dict(name="MLP", width=max(64, min(512, 4 * numbers)), blocks=3, octaves=4 if numbers <= 3 else 0)
    height, width, _ = _checked(shape)
    levels = levels_of(height, width, 4)
    attention = tuple(height >> level for level in range(levels) if height >> level in (4, 8))[-1:]
    channels = 16 if height * width <= 256 else 32
    sizes = dict(channels=channels, multipliers=(1, 2, 2, 2)[:levels], blocks=1, attention=attention)
    return dict(name="DDPMpp", **sizes, dropout=0.0, dtype="auto")


def fitted_to(shape: tuple[int, ...], examples: int) -> dict[str, Any]:
    """Return the network for a run of many steps on this number of examples.

    For images the network has a level for each factor of two that both sides have, down to 4 pixels. The first two
    levels with a height of at most 16 have attention. Dropout is 0.2 below 5,000 examples and 0.1 below 100,000. On a
    GPU or TPU the network has 128 channels and two blocks per level. On a CPU it has 32 channels and one block per
    level, and squares of pixels are folded until the sides are at most 20 or not divisible, or the squares have 4 x 4
    pixels. Other examples get the MLP of `fitted` at twice the width, without dropout.

    Raises:
        InputError: if images have more than 4 channels.
    """
    dropout = next((value for most, value in _DROPOUT if examples < most), 0.0)
    if len(shape) != 3:
        return fitted(shape) | dict(width=max(128, min(1024, 8 * math.prod(shape))))
    height, width, _ = _checked(shape)
    on_cpu = jax.default_backend() == "cpu"
    fold = _fold(height, width) if on_cpu else 1
    levels = levels_of(height // fold, width // fold, _MOST_LEVELS)
    heights = [height // fold >> level for level in range(levels)]
    attention = tuple(side for side in heights if side <= _ATTENTION)[:2]
    return dict(
        name="DDPMpp",
        channels=32 if on_cpu else 128,
        multipliers=(1, *[2] * (levels - 1)),
        blocks=1 if on_cpu else 2,
        attention=attention,
        dropout=dropout,
        fold=fold,
        stem=_STEM if fold > 1 else 0,
        dtype="auto",
    )


def _fold(height: int, width: int) -> int:
    fold = 1
    while fold < _MOST_FOLD and max(height, width) > _FOLDED * fold and height % (2 * fold) == width % (2 * fold) == 0:
        fold *= 2
    return fold


def levels_of(height: int, width: int, most: int) -> int:
    """Return the number of levels of a U-Net: 1 plus the factors of two that both sides have, down to 4 pixels."""
    levels = 1
    while (
        levels < most
        and height % 2**levels == 0
        and width % 2**levels == 0
        and min(height, width) >> levels >= _LEAST_SIDE
    ):
        levels += 1
    return levels


def _checked(shape: tuple[int, ...]) -> tuple[int, ...]:
    if shape[2] > 4:
        raise InputError(f"Examples have shape {shape}; expected images (height, width, channels), channels last.")
    return shape
