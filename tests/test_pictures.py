"""This module tests that pictures decode to the pixels of Pillow's operations, and that other files are refused."""

import io
import struct
import subprocess
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image, ImageOps

import score_sde as ss
from score_sde.readers.pictures import Fit, Unreadable, decode, fit_array, header

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def over(rgba, background=(255, 255, 255)):
    under = Image.new("RGBA", rgba.size, (*background, 255))
    return np.asarray(Image.alpha_composite(under, rgba).convert("RGB"))


RGB = Image.fromarray(pixels(40, 60, 3))
GREY = Image.fromarray(pixels(40, 60))
RGBA = Image.fromarray(pixels(40, 60, 4))


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG", "TGA", "JPEG2000", "ICO"])
def test_a_picture_of_the_size_is_as_pillow_has_it(form):
    picture = Image.fromarray(pixels(32, 32, 3))
    content = encoded(picture, form)
    np.testing.assert_array_equal(
        decode(content, Fit(32, 32)), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    )


@pytest.mark.parametrize("size", [(16, 16), (10, 30), (80, 20), (64, 96)])
@pytest.mark.parametrize("name", ["bicubic", "lanczos", "box", "nearest"])
def test_crop_pad_and_stretch_are_pillows(size, name):
    method, (height, width) = Image.Resampling[name.upper()], size
    content = encoded(RGB)
    for way, wanted in (
        ("crop", ImageOps.fit(RGB, (width, height), method)),
        ("pad", ImageOps.pad(RGB, (width, height), method, color=(10, 20, 30))),
        ("stretch", RGB.resize((width, height), method)),
    ):
        fit = Fit(height, width, way=way, filter=name, background=(10, 20, 30))
        np.testing.assert_array_equal(decode(content, fit), np.asarray(wanted))


def test_a_square_of_the_files_own_pixels_is_cut_first():
    wanted = RGB.crop((15, 5, 45, 35)).resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(encoded(RGB), Fit(8, 8, crop=30)), np.asarray(wanted))
    with pytest.raises(Unreadable, match="60 x 40 pixels; expected a side of 41 or more"):
        decode(encoded(RGB), Fit(8, 8, crop=41))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(RGB, "PNG", exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    info = header(content)
    assert (info.width, info.height) == wanted.size
    np.testing.assert_array_equal(decode(content, Fit(info.height, info.width)), np.asarray(wanted))
    turns = {1: 0, 3: 2, 6: 3, 8: 1}
    if orientation in turns:  # NumPy's rotation is independent of Pillow.
        np.testing.assert_array_equal(
            decode(content, Fit(info.height, info.width)), np.rot90(np.asarray(RGB), turns[orientation])
        )


def test_transparency_is_blended_or_kept():
    content = encoded(RGBA)
    np.testing.assert_array_equal(decode(content, Fit(40, 60)), over(RGBA))
    np.testing.assert_array_equal(decode(content, Fit(40, 60, background=(0, 9, 200))), over(RGBA, (0, 9, 200)))
    np.testing.assert_array_equal(decode(content, Fit(40, 60, channels=4)), np.asarray(RGBA))
    hidden = Image.fromarray(np.full((8, 8, 4), (200, 10, 10, 0), np.uint8))
    assert (decode(encoded(hidden), Fit(8, 8)) == 255).all()
    assert (decode(encoded(hidden), Fit(4, 4)) == 255).all()


def test_grey_with_alpha_palettes_and_a_transparent_colour():
    la = Image.fromarray(pixels(40, 60, 2), "LA")
    np.testing.assert_array_equal(decode(encoded(la), Fit(40, 60)), over(la.convert("RGBA")))
    np.testing.assert_array_equal(
        decode(encoded(la), Fit(40, 60, channels=1))[..., 0], over(la.convert("RGBA"))[..., 0]
    )
    palette = RGB.quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette), Fit(40, 60)), np.asarray(palette.convert("RGB")))
    content = encoded(palette, "PNG", transparency=3)
    again = Image.open(io.BytesIO(content)).convert("RGBA")
    assert (np.asarray(again)[..., 3] == 0).any()
    np.testing.assert_array_equal(decode(content, Fit(40, 60)), over(again))
    content = encoded(GREY, "PNG", transparency=int(np.asarray(GREY)[0, 0]))
    assert decode(content, Fit(40, 60))[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bits_are_divided_by_257():
    """Each of 65,536 grey values becomes the nearest of 256; Pillow's conversion makes all values above 255 white."""
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for form in ("PNG", "TIFF"):
        grey = decode(encoded(Image.fromarray(levels), form), Fit(256, 256, channels=1))[..., 0]
        np.testing.assert_array_equal(grey, np.round(levels / 257).astype(np.uint8))
    assert abs(grey.mean() - 127.5) < 0.01


def test_cmyk_one_bit_and_floats():
    cmyk = RGB.convert("CMYK")
    content = encoded(cmyk, "JPEG", quality=95)
    np.testing.assert_array_equal(
        decode(content, Fit(40, 60)), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    )
    bits = GREY.convert("1")
    np.testing.assert_array_equal(
        decode(encoded(bits), Fit(40, 60, channels=1))[..., 0], np.asarray(bits) * np.uint8(255)
    )
    floats = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    values = decode(encoded(floats, "TIFF"), Fit(8, 8, channels=1))
    np.testing.assert_array_equal(values.ravel(), np.round(np.linspace(0, 1, 64, dtype=np.float32) * 255))
    with pytest.raises(Unreadable, match="values from 0 to 7; expected 0 to 1"):
        decode(encoded(Image.fromarray(np.arange(8, dtype=np.float32).reshape(2, 4)), "TIFF"), Fit(2, 4))


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (10, 200)]
    for form in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
        assert abs(decode(content, Fit(16, 16)).astype(int) - 10).max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_are_fitted_as_files_are(channels):
    array = pixels(40, 60, channels)
    picture = Image.fromarray(array[..., 0] if channels == 1 else array)
    for fit in (Fit(40, 60, channels=channels), Fit(16, 16, channels=3), Fit(20, 20, channels=1, way="pad")):
        np.testing.assert_array_equal(fit_array(array, fit), decode(encoded(picture), fit))


def test_a_picture_of_too_many_pixels_is_not_decoded():
    """A PNG that states 30,000 x 30,000 pixels is refused, and no array of that size is made."""
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    with pytest.raises(Unreadable, match="too many pixels"):
        decode(content, Fit(8, 8))
    with pytest.raises(Unreadable, match="has 60 x 40 pixels, more than 2,000"):
        decode(encoded(RGB), Fit(8, 8, most_pixels=2000))


def test_what_is_no_picture():
    for content, words in (
        (b"", "is empty"),
        (b"some text", "is not a picture"),
        (encoded(RGB, "JPEG")[:700], "cannot be decoded"),
    ):
        with pytest.raises(Unreadable, match=words):
            decode(content, Fit(8, 8))


def test_nothing_is_started_to_read_a_picture(monkeypatch):
    """An EPS file starts no program, although Pillow passes EPS to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(Unreadable, match="is not a picture"):
        decode(encoded(RGB, "EPS"), Fit(8, 8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(height=0, width=8), "height is 0"),
        (dict(height=8, width=8, channels=2), "channels is 2"),
        (dict(height=8, width=8, way="fill"), "way is 'fill'; expected crop, pad, stretch"),
        (dict(height=8, width=8, background=(1, 2)), "background is"),
        (dict(height=8, width=8, filter="best"), "filter is 'best'"),
    ],
)
def test_settings_that_are_none(options, words):
    with pytest.raises(ss.InputError, match=words):
        Fit(**options)


ENCODED = [encoded(Image.fromarray(pixels(12, 12, 3)), form) for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]
ENCODED += [encoded(Image.fromarray(pixels(12, 12, 4))), encoded(Image.fromarray(pixels(12, 12, 3)), "JPEG2000")]


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.sampled_from(ENCODED),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
def test_mutated_pictures_are_read_or_refused(content, changes, keep):
    mutated = bytearray(content)
    for place, byte in changes:
        mutated[int(place * len(mutated))] = byte
    mutated = bytes(mutated[: max(1, int(keep * len(mutated)))])
    try:
        shape, refused = decode(mutated, Fit(8, 8, most_pixels=10_000)).shape, ""
    except Unreadable as error:
        shape, refused = (8, 8, 3), str(error)
    assert shape == (8, 8, 3)
    assert "\n" not in refused
