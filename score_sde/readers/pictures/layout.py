"""This module finds the pictures of a tree, and the split, the class and the caption of each picture."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from score_sde.core.errors import InputError
from score_sde.readers.pictures.beside import beside
from score_sde.readers.pictures.collection import SPLITS, TEST, TRAIN, Collection, part_of_file
from score_sde.readers.pictures.described import described
from score_sde.readers.pictures.tree import Tree
from score_sde.readers.refusal import shown

ENDINGS = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
    + (".tga", ".ico", ".jp2", ".j2k", ".avif", ".qoi")
)
DESCRIPTIONS = ("dataset.json", "metadata.jsonl", "metadata.csv")


def ending(name: str) -> str:
    """Return the ending of a name in lower case, with its dot."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{last}".lower() if stem else ""


def of_tree(tree: Tree) -> Collection:
    """Return the pictures of a tree as a collection.

    Sub-folders named train and test (or val, valid, validation) are the splits. Class and caption come from
    dataset.json, metadata.jsonl or metadata.csv; otherwise from files of the same name that end in .txt, .cls or .json;
    otherwise the class is the first sub-folder, if there are several sub-folders and every picture is in one of them.

    Raises:
        InputError: if the tree has no pictures, or if the descriptions do not fit the pictures.
    """
    pictures = [name for name in tree.names if ending(name) in ENDINGS]
    others = [name for name in tree.names if ending(name) not in ENDINGS]
    if not pictures:
        kinds = collections.Counter(ending(name) or "no ending" for name in others)
        there = ", ".join(f"{count:,} x {kind}" for kind, count in kinds.most_common(5)) or "no files at all"
        raise InputError(
            f"{tree.where} has no pictures (it has {there}); expected files that end in {', '.join(sorted(ENDINGS))}."
        )
    root = "" if tree.shards else _common_folder(pictures)
    splits = _splits_of_shards(pictures) if tree.shards else _splits(tree, pictures, root)
    columns, used = described(tree, pictures, [name for name in others if name.rsplit("/", 1)[-1] in DESCRIPTIONS])
    if not columns:
        columns, used = beside(tree, pictures, others)
    columns, classes, notes = _with_folders(tree, pictures, root, splits is not None, columns)
    return Collection(
        kind=f"a {tree.kind} of pictures",
        where=tree.where,
        names=pictures,
        get=lambda number: tree.read(pictures[number]),
        stamp=lambda number: tree.stamp(pictures[number]),
        splits=splits,
        columns=columns,
        classes=classes,
        notes=(*notes, *_left_out([name for name in others if name not in used])),
    )


def _left_out(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    few = ", ".join(shown(name) for name in names[:3])
    return (
        f"{len(names):,} other file{'s are' if len(names) > 1 else ' is'} not used ({few}{', ...' * (len(names) > 3)})",
    )


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that contains all pictures, with a slash at its end; '' for the folder of the tree."""
    root = ""
    while all("/" in name[len(root) :] for name in names):
        firsts = {name[len(root) :].split("/", 1)[0] for name in names}
        if len(firsts) > 1:
            break
        root += firsts.pop() + "/"
    return root


def _splits(tree: Tree, names: Sequence[str], root: str) -> list[str] | None:
    """Return the split of each picture, if the first folders are named after both splits; otherwise None.

    Raises:
        InputError: if a picture lies beside the folders of both splits, so that its split is unknown.
    """
    firsts = [name[len(root) :].split("/", 1)[0] if "/" in name[len(root) :] else "" for name in names]
    parts = [SPLITS.get(first.lower(), "") for first in firsts]
    if not {TRAIN, TEST} <= set(parts):
        return None
    if "" in parts:
        raise InputError(
            f"{tree.where} has folders for training and for testing, and {shown(names[parts.index('')])} is in "
            "neither; expected every picture in one of them: move it."
        )
    return parts


def _splits_of_shards(names: Sequence[str]) -> list[str] | None:
    """Return the split of each picture from the name of its archive, if all archives are named after splits."""
    parts = [part_of_file(_shard(name)) for name in names]
    return parts if {TRAIN, TEST} == set(parts) else None


def _shard(name: str) -> str:
    """Return the part of a name that names the archive."""
    return name[: name.index(".tar/") + 4]


def _with_folders(
    tree: Tree, names: Sequence[str], root: str, has_splits: bool, columns: dict[str, list[Any]]
) -> tuple[dict[str, list[Any]], tuple[str, ...], tuple[str, ...]]:
    """Return (the conditions with the class that the folders state, the names of the classes, notes on the class)."""
    folders = [
        _class_folder(name, _shard(name) + "/" if tree.shards else root, has_splits and not tree.shards)
        for name in names
    ]
    several = len({folder for folder in folders if folder is not None}) > 1
    if "label" in columns:
        return columns, (), ("the class comes from the descriptions, not from the folders",) if several else ()
    if not several:
        return columns, (), ()
    if None in folders:
        first = names[folders.index(None)]
        return columns, (), (f"no classes: {shown(first)} and {folders.count(None) - 1:,} more are in no class folder",)
    classes = tuple(sorted({folder for folder in folders if folder is not None}))
    number = {name: place for place, name in enumerate(classes)}
    return {**columns, "label": [number[str(folder)] for folder in folders]}, classes, ()


def _class_folder(name: str, root: str, has_splits: bool) -> str | None:
    parts = name[len(root) :].split("/")[has_splits:]
    return parts[0] if len(parts) > 1 else None
