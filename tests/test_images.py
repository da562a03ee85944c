"""A picture shows the values of its images, and a file is whole or absent."""

import os

import numpy as np
import pytest
from PIL import Image

from score_sde import plots as images
from score_sde.core import files

UMASK = os.umask(0)
os.umask(UMASK)


def test_a_grid_holds_each_image_in_its_place(tmp_path):
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 17, (5, 8, 6, 1))
    picture = images.image_grid(batch, 16, columns=3, least_side=16)
    assert picture.shape == (2 * 18 + 2, 3 * 14 + 2, 3)
    images.save_png(tmp_path / "grid.png", picture)
    back = np.asarray(Image.open(tmp_path / "grid.png"))
    for i, image in enumerate(batch):
        top, left = 2 + (i // 3) * 18, 2 + (i % 3) * 14
        cell = back[top : top + 16 : 2, left : left + 12 : 2, 1]
        np.testing.assert_array_equal(cell, np.round(image[..., 0] / 16 * 255))


def test_colour_and_odd_channels():
    colour = np.zeros((1, 64, 64, 3), int)
    colour[..., 2] = 255
    np.testing.assert_array_equal(images.image_grid(colour, 255)[30, 30], [0, 0, 255])
    assert images.image_grid(np.zeros((4, 2, 2, 5), int), 9).shape[-1] == 3


def test_curves_are_a_picture(tmp_path):
    images.save_curves(tmp_path / "curve.png", {"loss": ([1, 2, 3], [1.0, 0.5, 0.3])}, "step", "loss")
    assert np.asarray(Image.open(tmp_path / "curve.png")).std() > 5


def test_a_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    files.write_text(target, "first")
    with pytest.raises(RuntimeError), files.atomic_file(target) as file:
        file.write(b"half of the sec")
        raise RuntimeError
    assert target.read_text() == "first"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~UMASK
