"""One picture: opened upright, as 8-bit pixels, and fitted to a size."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from typing import TYPE_CHECKING

import numpy as np

from score_sde.core.checks import as_shape, is_whole, shown
from score_sde.core.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

WAYS = ("crop", "pad", "stretch")
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# What Pillow may take bytes for. Others of its readers start programs (EPS starts Ghostscript) or read other files.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "QOI")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_LEVELS = 65535


class Unreadable(Exception):
    """Why a picture cannot be read: the end of a sentence that begins with the picture's name."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a picture becomes pixels of one size; each step is an operation of Pillow.

    The picture is turned as its EXIF orientation says, converted to 8 bits, blended over the background where it is
    transparent, and brought to the size.

    Attributes:
        height, width: of the result; a picture of this size already is not resampled.
        channels: 1 (grey), 3 (RGB) or 4 (RGB and alpha, which is kept and not blended).
        way: 'crop' takes the largest centred part with the proportions of the result (ImageOps.fit), 'pad' keeps the
            whole picture and fills the rest with the background (ImageOps.pad), 'stretch' changes the proportions.
        crop: the side of a centred square that is cut first, in the picture's own pixels; 0 for the whole picture.
        filter: of the resampling; Pillow's filters also smooth when they make a picture smaller.
        background: the red, green and blue under transparent pixels.
        most_pixels: the number of pixels above which a picture is not decoded.
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
    """What the beginning of a picture says: sizes after its EXIF orientation, Pillow's mode, whether it has alpha."""

    height: int
    width: int
    mode: str
    alpha: bool

    @property
    def is_grey(self) -> bool:
        return self.mode in ("1", "L", "LA", "La", "F", *_SIXTEEN_BIT)


def header(encoded: bytes) -> Header:
    """Read the beginning of a picture; no pixel is decoded.

    Raises:
        Unreadable: for bytes that are no picture.
    """
    with _opened(encoded) as picture:
        width, height = picture.size
        if _orientation(picture) >= 5:  # turned by a quarter
            width, height = height, width
        return Header(height, width, picture.mode, _has_alpha(picture))


def decode(encoded: bytes, fit: Fit) -> np.ndarray:
    """Return the pixels of an encoded picture, uint8 of shape fit.shape.

    Raises:
        Unreadable: for bytes that are no picture, are cut off, or make too many pixels.
    """
    with _opened(encoded) as picture:
        width, height = picture.size
        if width * height > fit.most_pixels:
            raise Unreadable(
                f"has {width} x {height} pixels, more than {fit.most_pixels:,}: make it smaller, or raise "
                "data.most_pixels"
            )
        try:
            picture.load()
        except Exception as error:  # whatever the decoder of a damaged file raises
            raise Unreadable(f"cannot be decoded ({str(error)[:100] or type(error).__name__})") from error
        return _fitted(_upright(picture), fit)


def fit_array(pixels: np.ndarray, fit: Fit) -> np.ndarray:
    """Return uint8 pixels, (height, width) or (height, width, 1, 2, 3 or 4), fitted as an encoded picture is."""
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and not 1 <= pixels.shape[2] <= 4):
        raise Unreadable(f"is an array of {pixels.dtype} of shape {pixels.shape}; expected bytes of 1 to 4 channels")
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.shape == fit.shape[: pixels.ndim]:
        return np.ascontiguousarray(pixels).reshape(fit.shape)
    return _fitted(Image.fromarray(np.ascontiguousarray(pixels)), fit)


@contextlib.contextmanager
def _opened(encoded: bytes):  # type: ignore[no-untyped-def]
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(encoded), formats=_formats())
    except Image.DecompressionBombError as error:
        raise Unreadable(f"has too many pixels ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise Unreadable("is no picture of a kind that Pillow reads" if encoded else "is empty") from error
    except Exception as error:
        raise Unreadable(f"cannot be opened ({str(error)[:100] or type(error).__name__})") from error
    with picture:
        yield picture


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is not stated or damaged."""
    try:
        stated = picture.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF does not make the pixels unreadable
        return 1
    return stated if stated in range(1, 9) else 1


def _upright(picture: Image.Image) -> Image.Image:
    from PIL import ImageOps

    if _orientation(picture) == 1:
        return picture
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:
        raise Unreadable(f"has an EXIF orientation that cannot be applied ({str(error)[:100]})") from error


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info


def _eight_bit(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits a channel, with alpha where it has any: L, LA, RGB or RGBA."""
    from PIL import Image

    if picture.mode in _SIXTEEN_BIT:
        levels = np.asarray(picture).astype(np.int64)
        if levels.size and (levels.min() < 0 or levels.max() > _LEVELS):
            raise Unreadable(f"has grey values from {levels.min()} to {levels.max()}; expected 0 to {_LEVELS}")
        # 65535 = 257 x 255: the nearest of 256 levels. Pillow's own conversion cuts all values at 255.
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if picture.mode == "F":
        values = np.asarray(picture)
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise Unreadable(
                f"has floating point values from {values.min():g} to {values.max():g}; expected 0 to 1: convert it to "
                "8 bits, or store such data in a .npy array"
            )
        return Image.fromarray(np.round(values * 255).astype(np.uint8))
    grey = picture.mode in ("1", "L", "LA", "La")
    if _has_alpha(picture):
        return _in_mode(picture, "LA" if grey else "RGBA")
    return _in_mode(picture, "L" if grey else "RGB")


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in a mode; Pillow's own conversion copies what is in it already."""
    return picture if picture.mode == mode and "transparency" not in picture.info else picture.convert(mode)


def _coloured(picture: Image.Image, fit: Fit) -> Image.Image:
    """The picture in the channels of the fit, blended where alpha is not kept."""
    from PIL import Image

    picture = _eight_bit(picture)
    if fit.channels == 4:
        return _in_mode(picture, "RGBA")
    if picture.mode in ("LA", "RGBA"):
        under = Image.new("RGBA", picture.size, (*fit.background, 255))
        grey = picture.mode == "LA" and fit.channels == 1
        picture = Image.alpha_composite(under, picture.convert("RGBA")).convert("L" if grey else "RGB")
    return _in_mode(picture, "L" if fit.channels == 1 else "RGB")


def _fitted(picture: Image.Image, fit: Fit) -> np.ndarray:
    from PIL import Image, ImageOps

    picture = _coloured(picture, fit)
    if fit.crop:
        if fit.crop > min(picture.size):
            raise Unreadable(f"has {picture.width} x {picture.height} pixels; expected a side of {fit.crop} or more")
        left, top = ((length - fit.crop) // 2 for length in picture.size)
        picture = picture.crop((left, top, left + fit.crop, top + fit.crop))
    size = (fit.width, fit.height)
    if picture.size != size:
        method = Image.Resampling[fit.filter.upper()]
        if fit.way == "crop":
            picture = ImageOps.fit(picture, size, method)
        elif fit.way == "pad":
            opaque = (*fit.background, 255) if fit.channels == 4 else fit.background
            grey = np.asarray(Image.new("RGB", (1, 1), fit.background).convert("L")).item()
            picture = ImageOps.pad(picture, size, method, color=grey if fit.channels == 1 else opaque)
        else:
            picture = picture.resize(size, method)
    return np.asarray(picture, np.uint8).reshape(fit.shape)
