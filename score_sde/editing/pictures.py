"""This module holds a picture of any size in its own units, and converts it to the values of a model's data."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from score_sde.core.arrays import as_array
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.readers.pictures import Fit, Unreadable, decode, header

_LUMA = (0.299, 0.587, 0.114)  # of Pillow's grey, with which colour pictures are read for grey models
_BYTE = 255


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A `Picture` is one picture of any size, upright.

    Attributes:
        pixels: (height, width, channels), channels 1 or 3, or those of the model; in the picture's own units.
        maximum: the largest pixel value, such as 255; None for real numbers.
        alpha: opacity, uint8 (height, width); None for an opaque picture.
        name: the name for messages.
    """

    pixels: np.ndarray
    maximum: int | None
    alpha: np.ndarray | None = None
    name: str = "the picture"

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def values(self, codec: Codec) -> np.ndarray:
        """Return the pixels in the units and the channels of a model's data, float (height, width, channels).

        Raises:
            InputError: if the picture has other units or channels than the data can have.
        """
        channels, own = codec.data_shape[2], self.pixels.shape[2]
        if (self.maximum is None) != (codec.maximum is None):
            ours, theirs = ("real" if one is None else "whole" for one in (self.maximum, codec.maximum))
            raise InputError(
                f"{self.name} has {ours} numbers as pixels, and the data have {theirs} numbers; expected an array in "
                "the units of the data."
            )
        if own != channels and not {own, channels} <= {1, 3}:
            raise InputError(f"{self.name} has {own} channels; expected {channels}, as the data have.")
        pixels = self.pixels.astype(float) * self._factor(codec)
        if pixels.shape[2] == channels:
            return pixels
        return pixels @ np.asarray(_LUMA)[:, None] if channels == 1 else pixels.repeat(channels, axis=2)

    def own(self, values: np.ndarray, codec: Codec, channels: int) -> np.ndarray:
        """Return values of a model's data in the units of this picture, with 1 channel or `channels` equal ones."""
        pixels = values / self._factor(codec)
        return pixels if pixels.shape[-1] == channels else pixels.repeat(channels, axis=-1)

    def _factor(self, codec: Codec) -> float:
        return 1.0 if self.maximum is None or codec.maximum is None else codec.maximum / self.maximum

    def rounded(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels in the units of this picture as the picture stores them."""
        if self.maximum is None:
            return pixels.astype(self.pixels.dtype)
        dtype = np.uint8 if self.maximum < 256 else np.int32
        return np.clip(np.round(pixels), 0, self.maximum).astype(dtype)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Return a picture of a file: upright, with 8 bits per channel, grey or RGB, and its alpha apart.

    Raises:
        InputError: if the file is no picture that can be read.
    """
    path = pathlib.Path(os.path.expanduser(path))
    try:
        encoded = path.read_bytes()
        about = header(encoded)
        if not about.height * about.width:
            raise InputError(f"{path} has {about.width} x {about.height} pixels; expected at least one.")
        channels = 4 if about.alpha else 1 if about.is_grey else 3
        pixels = decode(encoded, Fit(about.height, about.width, channels))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Unreadable as error:
        raise InputError(f"{path} {error}.") from error
    if channels < 4:
        return Picture(pixels, _BYTE, None, str(path))
    colour, alpha = pixels[..., :3], pixels[..., 3].copy()
    return Picture(colour[..., :1] if about.is_grey else colour, _BYTE, alpha, str(path))


def as_pictures(given: Any, codec: Codec) -> tuple[list[Picture], bool]:
    """Return pictures, and whether one picture was given alone.

    Args:
        given: the path of a file, or an array (height, width, channels) in the units of the data, alone, in a list, or
            as (n, height, width, channels).
        codec: the codec of the data.
    """
    if isinstance(given, str | os.PathLike):
        return [read_picture(given)], True
    if isinstance(given, Picture):
        return [given], True
    if isinstance(given, list | tuple) and given and (_is_named(given[0]) or np.ndim(given[0]) == 3):
        return [_named(one, codec, number) for number, one in enumerate(given)], False
    array = as_array(given, "pictures")
    if array.ndim == 4 and len(array):
        return [_named(one, codec, number) for number, one in enumerate(array)], False
    return [_of_array(array, codec, "the picture")], True


def _is_named(one: Any) -> bool:
    return isinstance(one, Picture | str | os.PathLike)


def _named(one: Any, codec: Codec, number: int) -> Picture:
    if isinstance(one, Picture):
        return one
    if isinstance(one, str | os.PathLike):
        return read_picture(one)
    return _of_array(as_array(one, "a picture"), codec, f"picture {number}")


def _of_array(array: np.ndarray, codec: Codec, name: str) -> Picture:
    channels = codec.data_shape[2]
    if array.ndim != 3 or array.shape[2] not in ({1, 3} if channels in (1, 3) else {channels}) or not array.size:
        raise InputError(
            f"{name} has the shape {array.shape}; expected (height, width, {channels}), in the units of the data, or "
            "the path of a file."
        )
    if codec.maximum is not None:
        if array.dtype.kind not in "iuf":
            raise InputError(f"{name} has dtype {array.dtype}; expected whole numbers from 0 to {codec.maximum}.")
        wrong = not (array.min() >= 0 and array.max() <= codec.maximum)
        if wrong or (array.dtype.kind == "f" and not np.array_equal(array, np.round(array))):
            raise InputError(
                f"{name} has values from {array.min()} to {array.max()}; expected whole numbers from 0 "
                f"to {codec.maximum}, the units of the data."
            )
        dtype = np.uint8 if codec.maximum < 256 else np.int32
        return Picture(array.astype(dtype), codec.maximum, None, name)
    if array.dtype.kind != "f":
        raise InputError(f"{name} has dtype {array.dtype}; expected real numbers, the units of the data.")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or infinity; expected finite numbers.")
    return Picture(array, None, None, name)


__all__ = ["Picture", "as_pictures", "read_picture"]
