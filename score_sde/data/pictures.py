"""This module reads photographs from the user's disk: CIFAR-10's binary files, and folders of image files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.core.checks import require_whole, shown
from score_sde.core.conditions import Conditions, Label
from score_sde.core.errors import InputError
from score_sde.data.base import Arrays, Dataset, Source, folder_of
from score_sde.data.codec import QuantizedCodec
from score_sde.readers.pictures import ENDINGS, Fit, FolderTree, Unreadable, decode, ending, header


class CIFAR10(Dataset):
    """`CIFAR10` reads the binary version of 60,000 photographs of 32 x 32 pixels in ten classes (Krizhevsky 2009).

    Each record is a label and 3 x 1,024 pixels. Nothing is downloaded: unpack cifar-10-binary.tar.gz from
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        dir: folder that contains cifar-10-batches-bin, or cifar-10-batches-bin itself; None for the user's cache.
        centered: whether the model's scale is [-1, 1]; otherwise the scale is [0, 1].
    """

    conditions = Conditions(label=Label(10))
    files: Mapping[str, Sequence[str]] = {
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test": ("test_batch.bin",),
    }

    def __init__(self, dir: str | os.PathLike[str] | None = None, centered: bool = True) -> None:
        self.dir = folder_of(dir)
        self.codec = QuantizedCodec((32, 32, 3), 255, centered)

    def source(self, split: str) -> Source:
        below = self.dir / "cifar-10-batches-bin"
        folder = below if below.is_dir() else self.dir
        records = np.concatenate([self._records(folder / name) for name in self.files[split]])
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return Arrays(values=np.ascontiguousarray(images), label=records[:, 0].astype(np.int32))

    def _records(self, path: pathlib.Path) -> np.ndarray:
        try:
            content = np.fromfile(path, np.uint8)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}): unpack cifar-10-binary.tar.gz (the binary version of "
                "https://www.cs.toronto.edu/~kriz/cifar.html) there, or name its folder with --config.data.dir."
            ) from error
        if not content.size or content.size % 3073 or content[::3073].max() > 9:
            raise InputError(
                f"{path} is no file of CIFAR-10's binary version; expected records of 3,073 bytes, a label from 0 to 9 "
                "and 3 x 1,024 pixels: download the file again."
            )
        return content.reshape(-1, 3073)


class ImageFolder(Dataset):
    """`ImageFolder` reads image files in train/ and test/, crops them to the centre square and scales them to one size.

    Files are read in the order of their names and decoded when they are needed. The EXIF orientation is applied, pixels
    become 8-bit, and transparent pixels are blended over white. `Files` reads more formats, and decodes each file once.

    Args:
        dir: folder that contains `folder`; None for the user's cache.
        folder: folder that contains train/ and test/.
        size: height and width of an example in pixels.
        crop: side of the centre square in pixels of the file; 0 for the largest square.
        centered: whether the model's scale is [-1, 1]; otherwise the scale is [0, 1].
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] | None = None,
        folder: str = "",
        size: int = 64,
        crop: int = 0,
        centered: bool = True,
    ) -> None:
        require_whole("size of ImageFolder", size, 1)
        require_whole("crop of ImageFolder", crop, 0)
        if not isinstance(folder, str):
            raise InputError(f"ImageFolder got folder={shown(folder)}; expected the name of a folder.")
        self.dir = folder_of(dir) / folder
        self.fit = Fit(size, size, crop=crop)
        self.codec = QuantizedCodec((size, size, 3), 255, centered)

    def source(self, split: str) -> Source:
        folder = self.dir / split
        tree = FolderTree(folder) if folder.is_dir() else None
        names = [name for name in tree.names if ending(name) in ENDINGS] if tree is not None else []
        if tree is None or not names:
            raise InputError(
                f"There are no images in {folder}: put files ({', '.join(sorted(ENDINGS))}) there, or name the folder "
                f"that holds {self.dir.name}/{split} with --config.data.dir."
            )
        return _Files(tree, names, self.fit)


class _Files:
    """`_Files` decodes image files by number."""

    def __init__(self, tree: FolderTree, names: list[str], fit: Fit) -> None:
        self.tree, self.names, self.fit = tree, names, fit

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        try:
            content = self.tree.read(name)
            # Crop to the largest square in whole pixels, as for the data sets of 2021.
            found = header(content)
            fit = dataclasses.replace(self.fit, crop=self.fit.crop or min(found.height, found.width))
            return {"values": decode(content, fit)}
        except Unreadable as error:
            raise InputError(f"{self.tree.where / name} {error}: repair or remove the file.") from error

    def digest(self) -> str:
        """Return a BLAKE2b digest of the bytes of the files, without decoding."""
        total = hashlib.blake2b(digest_size=16)
        for name in self.names:
            total.update(hashlib.blake2b(self.tree.read(name)).digest())
        return total.hexdigest()
