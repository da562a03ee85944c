"""This module reads arrays of NumPy (.npy, .npz) and IDX files, such as the files of MNIST."""

from __future__ import annotations

import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers.pictures.collection import SPLITS, TEST, TRAIN, Collection, of_arrays, part_of_file
from score_sde.readers.pictures.packed import seekable
from score_sde.readers.refusal import shown

_MOST_RATIO = 1100  # above the limit of deflate
_VALUES = ("values", "images", "image", "data", "x", "samples", "points", "arr_0")
_LABELS = ("labels", "label", "y", "classes", "arr_1")
_IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IDX = re.compile(r"(?P<part>.*?)(?P<what>images|labels)[-.]idx[13](-ubyte)?(\.gz)?$")


def of_npy(where: pathlib.Path) -> Collection:
    """Return the examples of an array (n, *shape); the array stays on the disk."""
    try:
        array = np.load(where, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header causes many kinds of exceptions, such as tokenize.TokenError
        raise InputError(f"{where} is not a NumPy array of numbers ({shown(error, 120)}).") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{where} is named .npy, but is an archive: rename it to .npz.")
    values, notes = _examples(array, where)
    return of_arrays("an array", where, {where.stem: values}, {}, notes=notes)


def of_npz(where: pathlib.Path) -> Collection:
    """Return the examples of an archive with arrays of values and labels, or x_train, y_train, x_test, y_test."""
    arrays = {name.lower(): array for name, array in _archive(where).items()}
    parts: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for word, part in SPLITS.items():  # test comes before val, so that val is omitted if both exist
        values, labels = (_of_part(arrays, names, word) for names in (_VALUES, _LABELS))
        if values is not None and part not in parts:
            parts[part] = (values, labels)
    if TRAIN in parts:
        return _of_parts("an archive of arrays", where, parts if len(parts) > 1 else {"": parts[TRAIN]})
    name = next((name for name in _VALUES if name in arrays), next(iter(arrays), "") if len(arrays) == 1 else "")
    if not name:
        raise InputError(
            f"{where} has the arrays {shown(', '.join(arrays) or 'none', 200)}; expected the examples under one of the "
            f"names {', '.join(_VALUES)}, or x_train and x_test."
        )
    labels = next((arrays[other] for other in _LABELS if other in arrays and other != name), None)
    return _of_parts("an archive of arrays", where, {"": (arrays[name], labels)})


def _of_part(arrays: dict[str, np.ndarray], names: Sequence[str], part: str) -> np.ndarray | None:
    """Return the array of a split, named x_train or train_x; None if it is missing."""
    called = (f"{first}_{second}" for name in names for first, second in ((name, part), (part, name)))
    return next((arrays[name] for name in called if name in arrays), None)


def _archive(where: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        size = where.stat().st_size
        with zipfile.ZipFile(where) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > _MOST_RATIO * size:
            raise InputError(f"{where} states {total:,} bytes of arrays in a file of {size:,} bytes; it is not used.")
        with np.load(where, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{where} is not a NumPy archive of arrays of numbers ({shown(error, 120)}).") from error
    except Exception as error:  # a damaged header causes many kinds of exceptions, such as tokenize.TokenError
        raise InputError(f"{where} is damaged ({type(error).__name__}): get it again.") from error


def _of_parts(
    kind: str,
    where: pathlib.Path,
    parts: dict[str, tuple[np.ndarray, np.ndarray | None]],
) -> Collection:
    """Return one collection of the splits of a data set, each with values and with labels or None."""
    values: dict[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()
    for part, (array, _) in parts.items():
        values[part or "example"], notes = _examples(array, where)
    dtypes = {part: str(array.dtype) for part, array in values.items()}
    if len(set(dtypes.values())) > 1:
        raise InputError(f"{where} has splits of different dtypes ({shown(dtypes)}); expected one dtype.")
    given = [labels for _, labels in parts.values()]
    if any(labels is None for labels in given) and not all(labels is None for labels in given):
        raise InputError(f"{where} has labels in one split only; expected labels in all splits, or in none.")
    columns: dict[str, Sequence[Any]] = {}
    if given[0] is not None:
        flat = [np.atleast_1d(np.asarray(labels)) for labels in given]
        flat = [labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels for labels in flat]
        columns["label"] = [entry for labels in flat for entry in labels.tolist()]
    splits = [part for part, array in zip(parts, values.values(), strict=True) for _ in range(len(array))]
    return of_arrays(kind, where, values, columns, splits if all(parts) else None, notes=notes)


def _examples(array: np.ndarray, where: pathlib.Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the array with examples first and channels last, and notes on the changes."""
    if array.ndim < 2 or not array.size:
        raise InputError(f"{where} has an array of shape {array.shape}; expected (n, *shape), one example or more.")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where} has an array of {array.dtype}; expected numbers.")
    array = array.astype(np.uint8) * 255 if array.dtype.kind == "b" else array
    if array.ndim == 4 and array.shape[1] in (1, 3, 4) and array.shape[3] not in (1, 3, 4):
        return array.transpose(0, 2, 3, 1), ("the channels were first in each example and are now last",)
    if array.ndim == 3 and array.dtype == np.uint8:
        return array[..., None], ()
    return array, ()


def idx_files(folder: pathlib.Path) -> dict[str, dict[str, pathlib.Path]]:
    """Return the IDX files of a folder: for each split, the paths of its images and labels."""
    parts: dict[str, dict[str, pathlib.Path]] = {}
    for name in sorted(os.listdir(folder)):
        match = IDX.match(name)
        if match and (folder / name).is_file():
            parts.setdefault(match["part"].strip("-_."), {}).setdefault(match["what"], folder / name)
    return {part: files for part, files in parts.items() if "images" in files}


def of_idx(where: pathlib.Path) -> Collection:
    """Return the images of a folder (train-images-idx3-ubyte, t10k-images-idx3-ubyte, labels) or of one IDX file.

    The format is described at http://yann.lecun.com/exdb/mnist: two zero bytes, the type, the number of axes, the sizes
    of the axes as big-endian numbers of four bytes, and the values.
    """
    if where.is_file():
        return _of_parts("an IDX file", where, {"": (read_idx(where), None)})
    parts = {}
    for name, files in idx_files(where).items():
        part = TEST if name.lower().endswith("t10k") else part_of_file(name) or (name if name else TRAIN)
        images, labels = read_idx(files["images"]), read_idx(files["labels"]) if "labels" in files else None
        if labels is not None and labels.shape != (len(images),):
            raise InputError(f"{files['labels']} has labels of shape {labels.shape}; expected ({len(images)},).")
        parts[part] = (images, labels)
    if set(parts) - {TRAIN, TEST}:
        raise InputError(f"{where} has IDX files of {', '.join(parts)}; expected train and t10k, or train and test.")
    parts = {part: parts[part] for part in sorted(parts, key=(TRAIN, TEST).index)}
    return _of_parts("IDX files", where, parts if len(parts) > 1 else {"": next(iter(parts.values()))})


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Return the array of an IDX file, gzipped or not.

    Raises:
        InputError: if the file is not an IDX file, or if it has fewer or more values than its head states.
    """
    with seekable(path) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_DTYPES or not 1 <= head[3] <= 4:
            raise InputError(
                f"{path} is not an IDX file (it begins with {head!r}); expected two zero bytes, type and axes."
            )
        axes = file.read(4 * head[3])
        if len(axes) < 4 * head[3]:
            raise InputError(f"{path} is cut off; get it again.")
        shape, dtype = struct.unpack(f">{head[3]}I", axes), np.dtype(_IDX_DTYPES[head[2]])
        content = file.read()
    expected = dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise InputError(f"{path} states {expected:,} bytes of values and has {len(content):,}: get it again.")
    array = np.frombuffer(content, dtype).reshape(shape)
    return array if dtype == np.uint8 else array.astype(dtype.newbyteorder("="))
