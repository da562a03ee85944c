"""This module reads the header of one picture, and decodes the picture into 8-bit pixels of a given size."""

from __future__ import annotations

import dataclasses

import numpy as np

from score_sde.core.checks import as_shape, is_whole, shown
from score_sde.core.errors import InputError
from score_sde.readers.pictures import pixels as pixels_
from score_sde.readers.pictures.pixels import Unreadable

WAYS = ("crop", "pad", "stretch")
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclasses.dataclass(frozen=True)
class Fit:
    """`Fit` holds the settings that turn a picture into pixels of one size; each step is an operation of Pillow.

    The steps apply the EXIF orientation, convert the picture to 8 bits, blend transparent pixels over the background,
    and bring the picture to the size.

    Attributes:
        height, width: size of the result in pixels; a picture that has this size is not resampled.
        channels: 1 (grey), 3 (RGB) or 4 (RGB and alpha, which is kept and not blended).
        way: 'crop' takes the largest centred part with the proportions of the result (ImageOps.fit), 'pad' keeps the
            whole picture and fills the rest with the background (ImageOps.pad), 'stretch' changes the proportions.
        crop: side of a centred square that is cut out first, in pixels of the original picture; 0 for no cut.
        filter: name of the resampling filter; Pillow's filters also smooth when they make a picture smaller.
        background: red, green and blue under transparent pixels, each from 0 to 255.
        most_pixels: number of pixels above which a picture is not decoded.
    """

    height: int
    width: int
    channels: int = 3
    way: str = "crop"
    crop: int = 0
    filter: str = "bicubic"
    background: tuple[int, ...] = (255, 255, 255)
    most_pixels: int = 80_000_000

    def __post_init__(self) -> None:
        for name, least in (("height", 1), ("width", 1), ("crop", 0), ("most_pixels", 1)):
            if not is_whole(getattr(self, name), least):
                raise InputError(f"{name} is {shown(getattr(self, name))}; expected a whole number, at least {least}.")
        if self.channels not in (1, 3, 4):
            raise InputError(f"channels is {self.channels!r}; expected 1 (grey), 3 (RGB) or 4 (RGB and alpha).")
        for name, known in (("way", WAYS), ("filter", FILTERS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected {', '.join(known)}.")
        background = as_shape("background", self.background)
        if len(background) != 3 or max(background) > 255:
            raise InputError(f"background is {self.background!r}; expected red, green and blue from 0 to 255.")
        object.__setattr__(self, "background", background)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


@dataclasses.dataclass(frozen=True)
class Header:
    """`Header` holds a picture's size after its EXIF orientation, Pillow's mode, and whether the picture has alpha."""

    height: int
    width: int
    mode: str
    alpha: bool

    @property
    def is_grey(self) -> bool:
        return self.mode in ("1", "L", "LA", "La", "F", *pixels_.SIXTEEN_BIT)


def header(example: bytes | np.ndarray) -> Header:
    """Return the header of an encoded picture, in general without decoding a pixel, or of an array from its shape.

    Raises:
        Unreadable: if the bytes are not a picture.
    """
    if isinstance(example, bytes):
        return Header(*pixels_.beginning(example))
    height, width = example.shape[:2]
    channels = example.shape[2] if example.ndim == 3 else 1
    return Header(height, width, {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels"), channels == 4)


def decode(encoded: bytes, fit: Fit) -> np.ndarray:
    """Return the pixels of an encoded picture as uint8 of shape fit.shape.

    Raises:
        Unreadable: if the bytes are not a picture or are cut off, or if the picture has too many pixels.
    """
    return np.frombuffer(pixels_.decoded(encoded, fit), np.uint8).reshape(fit.shape)


def fit_array(pixels: np.ndarray, fit: Fit) -> np.ndarray:
    """Fit uint8 pixels, (height, width) or (height, width, 1, 2, 3 or 4), in the same way as an encoded picture."""
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and not 1 <= pixels.shape[2] <= 4):
        raise Unreadable(f"is an array of {pixels.dtype} of shape {pixels.shape}; expected uint8 with 1 to 4 channels")
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.shape == fit.shape[: pixels.ndim]:
        return np.ascontiguousarray(pixels).reshape(fit.shape)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.frombuffer(pixels_.fitted(picture, fit), np.uint8).reshape(fit.shape)
