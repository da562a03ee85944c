"""Photographs from the user's disk: CIFAR-10's own binary files, and folders of image files."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.core.checks import require_whole, shown
from score_sde.core.conditions import Conditions, Label
from score_sde.core.errors import InputError
from score_sde.data.base import Arrays, Dataset, Records, Source, folder_of
from score_sde.data.codec import QuantizedCodec

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class CIFAR10(Dataset):
    """60,000 photographs of 32 x 32 pixels in ten classes (Krizhevsky 2009), from its binary version.

    Each record is a label and 3 x 1,024 pixels. Nothing is downloaded: unpack cifar-10-binary.tar.gz of
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        dir: the folder with cifar-10-batches-bin, or that folder itself; None for the user's cache.
        centered: whether the model sees [-1, 1], or [0, 1].
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
                f"{path} is no file of CIFAR-10 in its binary version; expected records of 3,073 bytes, a label from 0 "
                "to 9 and 3 x 1,024 pixels: get it again."
            )
        return content.reshape(-1, 3073)


class ImageFolder(Dataset):
    """Image files in the folders train/ and test/, cut to their middle square and scaled to one size.

    Files are taken in the order of their names and decoded as they are needed.

    Args:
        dir: where `folder` is; None for the user's cache.
        folder: the folder with train/ and test/.
        size: height and width of an example.
        crop: the side of the middle square to take, in the file's own pixels; 0 for all that fits.
        centered: whether the model sees [-1, 1], or [0, 1].
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
        self.crop = crop
        self.codec = QuantizedCodec((size, size, 3), 255, centered)

    def source(self, split: str) -> Source:
        folder = self.dir / split
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
        if not files:
            raise InputError(
                f"There are no images in {folder}: put files ({', '.join(_ENDINGS)}) there, or name the folder that "
                f"holds {self.dir.name}/{split} with --config.data.dir."
            )
        return Records(_Files(files, self.shape[0], self.crop), f"the images of {folder}")


class _Files:
    """Image files by number."""

    def __init__(self, files: list[pathlib.Path], size: int, crop: int) -> None:
        self.files, self.size, self.crop = files, size, crop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from PIL import Image

        with Image.open(self.files[index]) as file:
            side = self.crop or min(file.size)
            if side > min(file.size):
                raise InputError(f"a square of {side} pixels cannot be cut from {file.size}: {self.files[index].name}")
            left, top = ((length - side) // 2 for length in file.size)
            square = file.convert("RGB").crop((left, top, left + side, top + side))
            small = square.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return {"values": np.asarray(small, np.uint8)}

    def digest(self) -> str:
        """A BLAKE2b digest of the files' bytes, which are not decoded."""
        total = hashlib.blake2b(digest_size=16)
        for path in self.files:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "blake2b").digest())
        return total.hexdigest()
