"""The pixels of an encoded picture, by Pillow's operations.

This file imports nothing of the project, and Pillow alone at first, so that a process that decodes begins at once:
`python pixels.py` serves requests from its standard input (workers.py asks them).
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL import Image

# What Pillow may take bytes for. Others of its readers start programs (EPS starts Ghostscript) or read other files.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "QOI")
_COMMON = ("PNG", "JPEG", "GIF", "BMP", "DIB", "PPM")  # those that Pillow's `preinit` loads
# One of these is in a PNG that states an orientation, before its pixels or behind them.
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_LEVELS = 65535


class Unreadable(Exception):
    """Why a picture cannot be read: the end of a sentence that begins with the picture's name."""


class HowToFit(Protocol):
    """The attributes of `Fit` (image.py), which says what they mean."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def way(self) -> str: ...
    @property
    def crop(self) -> int: ...
    @property
    def filter(self) -> str: ...
    @property
    def background(self) -> Any: ...
    @property
    def most_pixels(self) -> int: ...


def beginning(encoded: bytes) -> tuple[int, int, str, bool]:
    """Return height and width after the EXIF orientation, Pillow's mode and whether there is alpha.

    No pixel is decoded.

    Raises:
        Unreadable: for bytes that are no picture.
    """
    with _opened(encoded) as picture:
        width, height = picture.size
        # Pillow decodes a PNG to look for an orientation behind its pixels.
        plain = picture.format == "PNG" and not any(mark in encoded for mark in _PNG_EXIF)
        if not plain and _orientation(picture) >= 5:  # turned by a quarter
            width, height = height, width
        return height, width, picture.mode, _has_alpha(picture)


def decoded(encoded: bytes, fit: HowToFit) -> bytes:
    """Return the pixels of an encoded picture, one byte for each of height x width x channels.

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
        return fitted(_upright(picture), fit)


def fitted(picture: Image.Image, fit: HowToFit) -> bytes:
    """Return the pixels of an upright picture in the channels and the size of the fit."""
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
            background = tuple(fit.background)
            opaque = (*background, 255) if fit.channels == 4 else background
            grey = Image.new("RGB", (1, 1), background).convert("L").tobytes()[0]
            picture = ImageOps.pad(picture, size, method, color=grey if fit.channels == 1 else opaque)
        else:
            picture = picture.resize(size, method)
    return picture.tobytes()


@contextlib.contextmanager
def _opened(encoded: bytes):  # type: ignore[no-untyped-def]
    from PIL import Image

    try:
        try:
            picture = Image.open(io.BytesIO(encoded), formats=_COMMON)
        except Image.UnidentifiedImageError:
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
    """The formats that this Pillow was built with; to load them all takes 0.3 s."""
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
    if picture.mode in SIXTEEN_BIT or picture.mode == "F":
        return _cut_levels(picture)
    grey = picture.mode in ("1", "L", "LA", "La")
    if _has_alpha(picture):
        return _in_mode(picture, "LA" if grey else "RGBA")
    return _in_mode(picture, "L" if grey else "RGB")


def _cut_levels(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits or of floating point values in 8 bits."""
    import numpy as np
    from PIL import Image

    values = np.asarray(picture)
    if picture.mode == "F":
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise Unreadable(
                f"has floating point values from {values.min():g} to {values.max():g}; expected 0 to 1: convert it to "
                "8 bits, or store such data in a .npy array"
            )
        return Image.fromarray(np.round(values * 255).astype(np.uint8))
    levels = values.astype(np.int64)
    if levels.size and (levels.min() < 0 or levels.max() > _LEVELS):
        raise Unreadable(f"has grey values from {levels.min()} to {levels.max()}; expected 0 to {_LEVELS}")
    # 65535 = 257 x 255: the nearest of 256 levels. Pillow's own conversion cuts all values at 255.
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in a mode; Pillow's own conversion copies what is in it already."""
    return picture if picture.mode == mode and "transparency" not in picture.info else picture.convert(mode)


def _coloured(picture: Image.Image, fit: HowToFit) -> Image.Image:
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


class _Settings:
    """The settings of a fit, as a request has them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.__dict__.update(settings)


def _answers(request: dict[str, Any], pictures: Iterator[bytes]) -> tuple[list[Any], bytes]:
    """For each picture [true, what its header says] or [false, why not]; and the pixels of those that have some."""
    fit: Any = _Settings(request["fit"]) if request["fit"] else None
    told: list[Any] = []
    pixels: list[bytes] = []
    for encoded in pictures:
        try:
            if fit is None:
                told.append((True, beginning(encoded)))
            else:
                pixels.append(decoded(encoded, fit))
                told.append((True, None))
        except Unreadable as error:
            told.append((False, str(error)))
    return told, b"".join(pixels)


def _serve() -> None:
    """Answer requests: a line of JSON (`fit`, `sizes`) and the pictures; a line of JSON and the pixels come back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to end
    stream, answer = sys.stdin.buffer, sys.stdout.buffer
    while line := stream.readline():
        request = json.loads(line)
        # One read, in pieces as large as the pipe; reading picture by picture costs more than passing it.
        pictures = io.BytesIO(stream.read(sum(request["sizes"])))
        told, pixels = _answers(request, (pictures.read(size) for size in request["sizes"]))
        answer.write(json.dumps(told).encode() + b"\n" + pixels)
        answer.flush()


if __name__ == "__main__":
    _serve()
