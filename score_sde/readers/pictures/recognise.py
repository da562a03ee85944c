"""This module recognises the data at a path by the content, not by the name."""

from __future__ import annotations

import gzip
import os
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Sequence

from score_sde.core.checks import shown
from score_sde.core.errors import InputError
from score_sde.readers.pictures import arrays, cifar, known_sets, layout, parquet, tfrecord
from score_sde.readers.pictures.collection import Collection
from score_sde.readers.pictures.tree import FolderTree, TarTree, Tree, ZipTree, is_hidden

_KINDS = (
    "a folder or zip of pictures, a .npy or .npz array, IDX files, CIFAR-10 or CIFAR-100, parquet, a tar (WebDataset), "
    "TFRecord files, an lmdb, or the folder of a tensorflow-datasets builder"
)
_HEAD = 512


def open_collection(path: str | os.PathLike[str]) -> Collection:
    """Recognise the data at a path, and list the examples without decoding them.

    Raises:
        InputError: if the path does not exist, or if the kind of the data is unknown.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise InputError(f"data.path is {shown(path)}; expected the path of {_KINDS}.")
    try:
        where = pathlib.Path(path).expanduser()
    except RuntimeError as error:  # ~NAME, where no user has this name
        raise InputError(f"data.path is {shown(path)}: {error}") from error
    if not where.exists():
        raise InputError(f"There is nothing at {where}; expected {_KINDS}.")
    if not (where.is_dir() or where.is_file()):
        raise InputError(f"{where} is neither a file nor a folder; expected {_KINDS}.")
    try:
        found = _in_folder(where) if where.is_dir() else _in_file(where)
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error}): repair or remove it.") from error
    if not len(found):
        raise InputError(f"{where} has no examples; expected one or more.")
    return found


def _in_folder(where: pathlib.Path) -> Collection:
    try:
        names = {name for name in os.listdir(where) if not is_hidden(name)}
    except OSError as error:
        raise InputError(f"{where} cannot be listed ({error.strerror}).") from error
    if "data.mdb" in names:
        return known_sets.of_lmdb(where)
    if {"dataset_info.json", "features.json"} <= names:
        return known_sets.of_tfds(where)
    if arrays.idx_files(where):
        return arrays.of_idx(where)
    tree = FolderTree(where)
    version = cifar.version_of(tree)
    if version is not None:
        return cifar.of_tree(tree, *version)
    if any(layout.ending(name) in layout.ENDINGS for name in tree.names):
        return layout.of_tree(tree)
    return _of_files_in(where, tree)


def _of_files_in(where: pathlib.Path, tree: FolderTree) -> Collection:
    """Return the collection of a folder that has no picture files."""

    def that(wanted: Sequence[str]) -> list[pathlib.Path]:
        return [where / name for name in tree.names if layout.ending(name) in wanted]

    if files := that([".parquet"]):
        return parquet.of_files(where, files)
    if files := [where / name for name in tree.names if tfrecord.NAME.match(name)]:
        return tfrecord.of_files(where, files)
    if files := that([".tar"]):
        return _of_tree(TarTree(where, files))
    folders = sorted({(where / name).parent for name in tree.names if arrays.IDX.match(name.rsplit("/", 1)[-1])})
    if len(folders) == 1 and arrays.idx_files(folders[0]):  # the layout of torchvision
        return arrays.of_idx(folders[0])
    archives = that([".zip", ".npz", ".npy", ".tgz", ".gz"])
    if len(archives) == 1:
        return _in_file(archives[0])
    return layout.of_tree(tree)  # raises InputError, which lists the endings of the files


def _of_tree(tree: Tree) -> Collection:
    version = cifar.version_of(tree)
    return layout.of_tree(tree) if version is None else cifar.of_tree(tree, *version)


def _in_file(where: pathlib.Path) -> Collection:
    try:
        with where.open("rb") as file:
            head = file.read(_HEAD)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(where) as unpacked:
                inner = unpacked.read(_HEAD)
        else:
            inner = head
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{where} cannot be read ({shown(str(error))}).") from error
    if head[:6] == b"\x93NUMPY":
        return arrays.of_npy(where)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return arrays.of_npz(where) if _is_npz(where) else _of_tree(ZipTree(where))
    if head[:4] == b"PAR1":
        return parquet.of_files(where, [where])
    if inner[257:262] == b"ustar":
        return _of_tree(TarTree(where, [where]))
    if inner[:3] in (b"\0\0\x08", b"\0\0\x0d", b"\0\0\x0b"):
        return arrays.of_idx(where)
    if tfrecord.is_tfrecord(head[:12]):
        return tfrecord.of_files(where, [where])
    if layout.ending(where.name) in layout.ENDINGS and head:
        raise InputError(f"{where} is one picture; expected the folder of many.")
    if not head:
        raise InputError(f"{where} is empty; expected {_KINDS}.")
    if tarfile.is_tarfile(where):
        raise InputError(f"{where} is a tar not packed by gzip, or older than 1988: unpack it, and give the folder.")
    raise InputError(f"{where} is a file of an unknown kind (it begins with {head[:8]!r}); expected {_KINDS}.")


def _is_npz(where: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(where) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{where} cannot be opened as a zip ({str(error)[:100]}): get it again.") from error
    return bool(names) and all(name.endswith(".npy") for name in names)
