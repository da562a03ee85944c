"""This module reads masks: boxes, pictures, folders of pictures, transparent pixels, and arrays."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from score_sde.core.arrays import as_array
from score_sde.core.checks import is_whole, shown
from score_sde.core.errors import InputError
from score_sde.core.files import digest_of_file
from score_sde.editing.pictures import Picture, read_picture
from score_sde.readers.pictures import ENDINGS, ending

ALPHA = "alpha"
_OPAQUE = 128  # alpha and grey values from it on count as opaque and as white


def as_mask(mask: Any) -> Any:
    """Return a mask as a path, 'alpha', a box, or an array of numbers; raise InputError for anything else."""
    if isinstance(mask, str | os.PathLike) and os.fspath(mask):
        return mask
    if isinstance(mask, tuple | list) and len(mask) == 4 and all(is_whole(side, 0) for side in mask):
        return tuple(int(side) for side in mask)
    array = np.zeros(()) if isinstance(mask, str | os.PathLike | None) else as_array(mask, "mask of Inpaint")
    if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "biuf":
        raise InputError(
            f"mask of Inpaint is {shown(mask)}; expected (left, top, right, bottom) as whole numbers of at least 0, "
            "the path of a picture, 'alpha', or an array of True and False."
        )
    return array


def check(mask: Any) -> None:
    """Raise InputError if a mask is a path that does not exist."""
    path = _path_of(mask)
    if path is not None and not path.exists():
        raise InputError(
            f"mask of Inpaint is {os.fspath(mask)!r}, which does not exist; expected the path of a picture or of a "
            "folder, 'alpha', or a box."
        )


def digest_for(mask: Any, name: str) -> str:
    """Return a digest of the file of the mask of a picture; '' for a mask without files."""
    path = _path_of(mask)
    return "" if path is None else digest_of_file(_file_for(path, name))


def hole(mask: Any, picture: Picture, number: int) -> np.ndarray:
    """Return which pixels of a picture a mask has, bool (height, width).

    Args:
        mask: the result of `as_mask`.
        picture: the picture.
        number: the place of the picture among several, for an array of several masks.

    Raises:
        InputError: if the mask has another size, or no pixel.
    """
    height, width = picture.size
    pixels = _pixels(mask, picture, number)
    if pixels.shape != picture.size:
        raise InputError(
            f"The mask of {picture.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels; expected {width} x {height},"
            " those of the picture."
        )
    if not pixels.any():
        what = "transparent" if isinstance(mask, str) and mask == ALPHA else "masked"
        raise InputError(f"The mask of {picture.name} is empty; expected at least one {what} pixel.")
    return pixels


def _pixels(mask: Any, picture: Picture, number: int) -> np.ndarray:
    height, width = picture.size
    path = _path_of(mask)
    if path is not None:
        return _white(_file_for(path, picture.name))
    if isinstance(mask, str):
        return np.zeros(picture.size, bool) if picture.alpha is None else picture.alpha < _OPAQUE
    if isinstance(mask, np.ndarray):
        several = mask.ndim == 3 and mask.shape != (height, width, 1)
        return _of_array(mask[number % len(mask)] if several else mask)
    left, top, right, bottom = mask
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"mask of Inpaint is {mask} for {picture.name} of {width} x {height} pixels; expected (left, top, right, "
            "bottom) inside the picture."
        )
    box = np.zeros(picture.size, bool)
    box[top:bottom, left:right] = True
    return box


def _path_of(mask: Any) -> pathlib.Path | None:
    is_path = isinstance(mask, str | os.PathLike) and mask != ALPHA
    return pathlib.Path(os.path.expanduser(mask)) if is_path else None


def _file_for(path: pathlib.Path, name: str) -> pathlib.Path:
    """Return the file of the mask of a picture: in a folder, that of the same name, also in the same sub-folder."""
    own = pathlib.Path(name)
    if not path.is_dir():
        return path
    for start in range(len(own.parts)):
        folder = path.joinpath(*own.parts[start:-1])
        if own.parts[start] == own.anchor or not folder.is_dir():
            continue
        for file in sorted(folder.iterdir()):
            if file.stem == own.stem and ending(file.name) in ENDINGS:
                return file
    raise InputError(f"{path} has no mask for {name}; expected a picture with the name {own.stem}.")


def _white(path: pathlib.Path) -> np.ndarray:
    try:
        picture = read_picture(path)
    except InputError as error:
        raise InputError(f"mask of Inpaint: {error}") from error
    white = picture.pixels.mean(axis=2) >= _OPAQUE
    return white if picture.alpha is None else white & (picture.alpha >= _OPAQUE)


def _of_array(mask: np.ndarray) -> np.ndarray:
    flat = mask[..., 0] if mask.ndim == 3 and mask.shape[2] == 1 else mask
    if flat.dtype == np.uint8 and np.isin(flat, (0, 255)).all():
        return flat > 0
    if flat.ndim != 2 or not np.isin(flat, (0, 1)).all():
        raise InputError(
            f"mask of Inpaint is an array {mask.shape} of {mask.dtype}; expected (height, width) of True and False."
        )
    return flat.astype(bool)


__all__ = ["ALPHA", "as_mask", "check", "digest_for", "hole"]
