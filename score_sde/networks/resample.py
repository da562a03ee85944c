"""Halving and doubling images: by means and repetition, or through a FIR filter (Karras et al. 2020, arXiv:1912.04958).

With z the image that has zeros between its pixels when it is doubled, k the normalised taps, and * convolution, a FIR
filter makes k * z, and of a halved image every other pixel of k * x; outside the image there are zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array
from score_sde.core.errors import InputError

_IMAGES = ("NHWC", "HWIO", "NHWC")
_AXES = (1, 2)  # height and width


def downsample(x: Array) -> Array:
    """Halves height and width by the mean of 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def upsample(x: Array) -> Array:
    """Doubles height and width by repeating pixels."""
    batch, height, width, channels = x.shape
    tiled = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return tiled.reshape(batch, 2 * height, 2 * width, channels)


def fir_downsample(x: Array, kernel: Sequence[float]) -> Array:
    """Halves height and width through a FIR filter of unit gain, the same along both axes.

    Args:
        x: shape (batch, height, width, channels), with even sides.
        kernel: the filter's taps, of any length and positive sum.
    """
    spare = len(kernel) - 2
    return _fir(x, _normalised(kernel), 1, 2, ((spare + 1) // 2, spare // 2))


def fir_upsample(x: Array, kernel: Sequence[float]) -> Array:
    """Doubles height and width through a FIR filter whose gain makes up for the zeros between the pixels."""
    spare = len(kernel) - 2
    return _fir(x, 2 * _normalised(kernel), 2, 1, ((spare + 1) // 2 + 1, spare // 2))


def fir_conv_downsample(x: Array, weight: Array, kernel: Sequence[float]) -> Array:
    """A convolution with stride 2 behind a FIR filter; weight of shape (size, size, inputs, outputs), size odd."""
    spare = len(kernel) - 2 + weight.shape[0] - 1
    x = _fir(x, _normalised(kernel), 1, 1, ((spare + 1) // 2, spare // 2))
    return jax.lax.conv_general_dilated(x, weight, (2, 2), "VALID", dimension_numbers=_IMAGES)


def fir_conv_upsample(x: Array, weight: Array, kernel: Sequence[float]) -> Array:
    """A convolution of the image with zeros between its pixels, then a FIR filter; weight as above."""
    size = weight.shape[0]
    # Zeros are put in by hand: on a CPU a dilated convolution takes 40 times as long.
    around = (0, 0, 0), (size - 1, size - 1, 1), (size - 1, size - 1, 1), (0, 0, 0)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), around)
    x = jax.lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=_IMAGES)
    spare = len(kernel) - 2 - (size - 1)
    return _fir(x, 2 * _normalised(kernel), 1, 1, ((spare + 1) // 2 + 1, spare // 2 + 1))


def check_kernel(kernel: Sequence[float]) -> tuple[float, ...]:
    """The taps of a FIR filter as floats; raises InputError for what is no filter."""
    try:
        taps = tuple(float(tap) for tap in kernel)
    except (TypeError, ValueError):
        taps = ()
    if not taps or not np.isfinite(taps).all() or not sum(taps) > 0:
        raise InputError(f"fir_kernel is {kernel!r}; expected the taps of a filter, with a positive sum: (1, 3, 3, 1).")
    return taps


def _normalised(kernel: Sequence[float]) -> np.ndarray:
    return np.asarray(kernel, np.float64) / np.sum(kernel)


def _fir(x: Array, taps: np.ndarray, up: int, down: int, pad: tuple[int, int]) -> Array:
    """The filter along each axis as a sum of shifted images, of shape (batch, height, width, channels).

    `up` and `down` are 1 or 2; pad is the zeros before and after the image that already has zeros in between.
    A depthwise convolution takes XLA:CPU 10 to 100 times as long, and is slow on accelerators too, where XLA gives its
    gradients to no fast kernel.
    """
    for axis in _AXES:
        length = (up * x.shape[axis] + sum(pad) - len(taps)) // down + 1
        phases = [
            _fir_phase(x, axis, taps, up, down, pad[0] - phase, -(-(length - phase) // up)) for phase in range(up)
        ]
        x = phases[0] if up == 1 else jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], length, *x.shape[axis + 1 :])
    return x


def _fir_phase(x: Array, axis: int, taps: np.ndarray, up: int, down: int, before: int, length: int) -> Array:
    """Every up-th value of the filtered axis: the sum of tap times the pixels that it meets."""
    total: Array | None = None
    for place, tap in enumerate(taps[::-1].tolist()):  # numbers of Python's, which keep x's dtype
        offset, between = divmod(place - before, up)
        if between:
            continue  # it meets the zeros
        ends = [(0, 0, 0)] * x.ndim
        ends[axis] = (-offset, offset + down * (length - 1) + 1 - x.shape[axis], 0)
        shifted = jax.lax.pad(x, jnp.zeros((), x.dtype), ends)
        shifted = shifted if down == 1 else jax.lax.slice_in_dim(shifted, 0, None, down, axis)
        total = tap * shifted if total is None else total + tap * shifted
    return jnp.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.dtype) if total is None else total
