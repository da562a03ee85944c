"""This module reads Fashion-MNIST from the user's disk."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from score_sde.core.conditions import Conditions, Label
from score_sde.core.errors import InputError
from score_sde.data.base import Arrays, Dataset, Source, folder_of
from score_sde.data.codec import QuantizedCodec
from score_sde.readers.pictures import open_collection

_OF_DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
_GET = (
    "on Debian and Ubuntu `apt-get install dataset-fashion-mnist`; otherwise put the four files of "
    "https://github.com/zalandoresearch/fashion-mnist into a folder, and name the folder with --config.data.dir"
)


class FashionMNIST(Dataset):
    """`FashionMNIST` holds 70,000 grey pictures of clothes of 28 x 28 pixels in ten classes.

    The source is Xiao et al. 2017, arXiv:1708.07747. 60,000 pictures are for training and 10,000 for testing, as in the
    authors' split. Nothing is downloaded.

    Args:
        dir: folder with train-images-idx3-ubyte and the three other files, gzipped or not; None for the folder of
            Debian's package dataset-fashion-mnist.
    """

    codec = QuantizedCodec((28, 28, 1), 255)
    conditions = Conditions(label=Label(10))
    names = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

    def __init__(self, dir: str | os.PathLike[str] | None = None) -> None:
        self.dir = _OF_DEBIAN if dir is None or (isinstance(dir, str) and not dir) else folder_of(dir)

    def source(self, split: str) -> Source:
        if not self.dir.is_dir():
            raise InputError(f"Fashion-MNIST is not in {self.dir}: {_GET}.")
        found = open_collection(self.dir)
        labels, splits = found.columns.get("label"), found.splits
        if found.values is None or found.values.shape[1:] != self.shape or labels is None or splits is None:
            raise InputError(f"{self.dir} has {len(found)} examples in {found.kind}; expected Fashion-MNIST: {_GET}.")
        rows = np.flatnonzero([part == split for part in splits])
        return Arrays(values=found.values[rows], label=np.asarray(labels, np.int32)[rows])
