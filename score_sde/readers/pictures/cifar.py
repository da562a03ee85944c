"""This module reads CIFAR-10 and CIFAR-100 in the binary and the Python version, in a tar or unpacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers import pickles
from score_sde.readers.known import Array
from score_sde.readers.pictures.collection import TEST, TRAIN, Collection, of_arrays
from score_sde.readers.pictures.tree import Tree
from score_sde.readers.refusal import Refused, shown

_PIXELS = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class _Version:
    """`_Version` describes one of four forms: files by split, bytes of labels before a picture, number of classes."""

    name: str
    files: Mapping[str, tuple[str, ...]]
    names: str
    classes: int
    labels: int = 0  # 0 for pickles


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
VERSIONS = (
    _Version(
        "CIFAR-10", {TRAIN: tuple(f"{b}.bin" for b in _BATCHES), TEST: ("test_batch.bin",)}, "batches.meta.txt", 10, 1
    ),
    _Version("CIFAR-100", {TRAIN: ("train.bin",), TEST: ("test.bin",)}, "fine_label_names.txt", 100, 2),
    _Version("CIFAR-10", {TRAIN: _BATCHES, TEST: ("test_batch",)}, "batches.meta", 10),
    _Version("CIFAR-100", {TRAIN: ("train",), TEST: ("test",)}, "meta", 100),
)


def version_of(tree: Tree) -> tuple[_Version, str] | None:
    """Return the form of CIFAR that a tree has, and its folder in the tree; None for another tree."""
    folders = {name.rpartition("/")[0] for name in tree.names}
    names = set(tree.names)
    for folder in sorted(folders):
        at = f"{folder}/" if folder else ""
        for version in VERSIONS:
            if all(at + file in names for file in (*version.files[TRAIN], *version.files[TEST], version.names)):
                return version, at
    return None


def of_tree(tree: Tree, version: _Version, at: str) -> Collection:
    """Return the pictures of CIFAR, (32, 32, 3); CIFAR-100 has the fine class as `label` and the other as `coarse`."""
    values: dict[str, np.ndarray] = {}
    labels: dict[str, list[np.ndarray]] = {}
    splits: list[str] = []
    for part, files in version.files.items():
        for file in files:
            read = _binary if version.labels else _pickled
            pixels, columns = read(tree, at + file, version)
            values[file.removesuffix(".bin")] = pixels
            splits += [part] * len(pixels)
            for name, column in columns.items():
                labels.setdefault(name, []).append(column)
    classes = _class_names(tree, version, at)
    return of_arrays(
        f"{version.name} ({'binary' if version.labels else 'Python'} version)",
        tree.where,
        values,
        {name: np.concatenate(parts).tolist() for name, parts in labels.items()},
        splits,
        classes,
    )


def _binary(tree: Tree, file: str, version: _Version) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    content = np.frombuffer(tree.read(file), np.uint8)
    length = version.labels + _PIXELS
    if not content.size or content.size % length:
        raise InputError(
            f"{tree.where}/{file} has {content.size:,} bytes; expected records of {length:,} bytes: get it again."
        )
    records = content.reshape(-1, length)
    columns = {"label": records[:, version.labels - 1]} | ({"coarse": records[:, 0]} if version.labels == 2 else {})
    return _checked(tree, file, version, records[:, version.labels :], columns)


def _pickled(tree: Tree, file: str, version: _Version) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    found = _unpickled(tree, file)
    data, name = found.get("data"), "labels" if version.classes == 10 else "fine_labels"
    wanted = {"label": found.get(name)} | ({"coarse": found.get("coarse_labels")} if version.classes == 100 else {})
    wanted = {key: column.numbers() if isinstance(column, Array) else column for key, column in wanted.items()}
    lists = all(isinstance(column, list | tuple | np.ndarray) for column in wanted.values())
    if not (isinstance(data, Array) and data.dtype == np.uint8 and lists):
        raise InputError(f"{tree.where}/{file} has {shown(list(found))}; expected data and {name}, as in CIFAR.")
    try:
        columns = {key: np.asarray(column, np.int64) for key, column in wanted.items()}
        pixels = data.numbers()
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{tree.where}/{file} has pixels or labels that are not numbers as in CIFAR.") from error
    return _checked(tree, file, version, pixels, columns)


def _checked(
    tree: Tree, file: str, version: _Version, pixels: np.ndarray, columns: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    fits = pixels.shape == (len(pixels), _PIXELS)
    for name, column in columns.items():
        most = version.classes if name == "label" else 20
        fits = fits and column.shape == (len(pixels),) and (not column.size or 0 <= column.min() <= column.max() < most)
    if not fits or not len(pixels):
        raise InputError(f"{tree.where}/{file} has pixels or labels of another shape or range than {version.name}.")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), columns


def _class_names(tree: Tree, version: _Version, at: str) -> tuple[str, ...]:
    if version.labels:
        names = tree.text(at + version.names).split()
    else:
        found = _unpickled(tree, at + version.names)
        names = found.get("label_names" if version.classes == 10 else "fine_label_names") or []
    fits = isinstance(names, list) and len(names) == version.classes and all(isinstance(name, str) for name in names)
    return tuple(names) if fits else ()


def _unpickled(tree: Tree, file: str) -> dict[str, Any]:
    """Return the dictionary that a pickle makes; only functions that make arrays are called."""
    try:
        found, _ = pickles.read(tree.read(file))
    except (Refused, MemoryError, RecursionError) as error:
        raise InputError(f"{tree.where}/{file} is not a file of CIFAR: {error or 'it is too large'}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{tree.where}/{file} is not a file of CIFAR: it holds a {type(found).__name__}.")
    return {str(key): value for key, value in found.items()}
