"""This module decodes an encoded picture into pixels with Pillow's operations.

This file imports no module of the project, and at first no package except Pillow, so that a process that decodes starts
at once. `python pixels.py` answers requests from its standard input; workers.py sends the requests.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from score_sde.readers.pictures.image import Fit

# The formats that Pillow may read. Its other readers start programs (EPS starts Ghostscript) or read other files.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "QOI")
_COMMON = ("PNG", "JPEG", "GIF", "BMP", "DIB", "PPM")  # the formats that Pillow's `preinit` loads
# A PNG that states an orientation contains one of these marks, before or after its pixels.
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_LEVELS = 65535


class Unreadable(Exception):
    """`Unreadable` gives the reason why a picture is not read, as the end of a sentence that begins with its name."""


def beginning(encoded: bytes) -> tuple[int, int, str, bool]:
    """Return height and width after the EXIF orientation, Pillow's mode, and whether the picture has alpha.

    No pixel is decoded, except in a PNG that may state an orientation after its pixels.

    Raises:
        Unreadable: if the bytes are not a picture.
    """
    with _opened(encoded) as picture:
        width, height = picture.size
        # Pillow decodes a PNG to search for an orientation after its pixels, which takes time.
        plain = picture.format == "PNG" and not any(mark in encoded for mark in _PNG_EXIF)
        if not plain and _orientation(picture) >= 5:  # rotated by 90 degrees
            width, height = height, width
        return height, width, picture.mode, _has_alpha(picture)


def decoded(encoded: bytes, fit: Fit) -> bytes:
    """Return the pixels of an encoded picture as height x width x channels bytes.

    Raises:
        Unreadable: if the bytes are not a picture or are cut off, or if the picture has too many pixels.
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
        except Exception as error:  # a damaged file causes many kinds of exceptions
            raise Unreadable(f"cannot be decoded ({str(error)[:100] or type(error).__name__})") from error
        return fitted(_upright(picture), fit)


def fitted(picture: Image.Image, fit: Fit) -> bytes:
    """Return the pixels of an upright picture with the channels and the size of the fit."""
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
        raise Unreadable("is not a picture in a format that is read" if encoded else "is empty") from error
    except Exception as error:
        raise Unreadable(f"cannot be opened ({str(error)[:100] or type(error).__name__})") from error
    with picture:
        yield picture


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the formats of `FORMATS` that this Pillow was built with; loading all formats takes 0.3 s."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the orientation is missing or damaged."""
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
    """Return the picture with 8 bits per channel, and with alpha if the picture has alpha: L, LA, RGB or RGBA."""
    if picture.mode in SIXTEEN_BIT or picture.mode == "F":
        return _cut_levels(picture)
    grey = picture.mode in ("1", "L", "LA", "La")
    if _has_alpha(picture):
        return _in_mode(picture, "LA" if grey else "RGBA")
    return _in_mode(picture, "L" if grey else "RGB")


def _cut_levels(picture: Image.Image) -> Image.Image:
    """Convert a grey picture of 16 bits or of floating point values to 8 bits."""
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
    # 65535 = 257 x 255, so this is the nearest of 256 levels. Pillow's own conversion clips all values at 255.
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Return the picture in a mode; do not convert a picture that has the mode, as Pillow would copy the picture."""
    return picture if picture.mode == mode and "transparency" not in picture.info else picture.convert(mode)


def _coloured(picture: Image.Image, fit: Fit) -> Image.Image:
    """Return the picture with the channels of the fit, blended over the background if alpha is not kept."""
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
    """`_Settings` holds the settings of a fit from a request."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.__dict__.update(settings)


def _answers(request: dict[str, Any], pictures: Iterator[bytes]) -> tuple[list[Any], bytes]:
    """Return for each picture (True, header or None) or (False, reason), and the pixels of the decoded pictures."""
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
    """Answer requests: read a line of JSON (`fit`, `sizes`) and pictures, and write a line of JSON and the pixels."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that sends requests decides when to end
    stream, answer = sys.stdin.buffer, sys.stdout.buffer
    while line := stream.readline():
        request = json.loads(line)
        # One read transfers pieces as large as the pipe; one read per picture would take longer than the transfer.
        pictures = io.BytesIO(stream.read(sum(request["sizes"])))
        told, pixels = _answers(request, (pictures.read(size) for size in request["sizes"]))
        answer.write(json.dumps(told).encode() + b"\n" + pixels)
        answer.flush()


if __name__ == "__main__":
    _serve()
