"""Which of a tree's files are pictures, in which part of the data, and with which class or caption."""

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
    """The ending of a name in lower case, with its dot."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{last}".lower() if stem else ""


def of_tree(tree: Tree) -> Collection:
    """The pictures of a tree.

    Sub-folders called train and test (or val, valid, validation) are the parts of the data. A class or a caption is
    had from dataset.json, metadata.jsonl or metadata.csv; else from files of the same name that end in .txt, .cls or
    .json; else the class is the first sub-folder, where there are several and every picture is in one.

    Raises:
        InputError: for a tree without pictures, or descriptions that do not fit them.
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
    """The folder that all pictures are in, with its slash; '' where it is the tree's own."""
    root = ""
    while all("/" in name[len(root) :] for name in names):
        firsts = {name[len(root) :].split("/", 1)[0] for name in names}
        if len(firsts) > 1:
            break
        root += firsts.pop() + "/"
    return root


def _splits(tree: Tree, names: Sequence[str], root: str) -> list[str] | None:
    """The part of each picture, where the first folders are called after parts and one of them is for training.

    Raises:
        InputError: where something lies beside the folders of both parts, whose part nobody knows.
    """
    firsts = [name[len(root) :].split("/", 1)[0] if "/" in name[len(root) :] else "" for name in names]
    parts = [SPLITS.get(first.lower(), "") for first in firsts]
    if not {TRAIN, TEST} <= set(parts):
        return None
    if "" in parts:
        raise InputError(
            f"{tree.where} has folders for training and for testing, and {shown(names[parts.index('')])} in neither; "
            "expected every picture in one of them: move it."
        )
    return parts


def _splits_of_shards(names: Sequence[str]) -> list[str] | None:
    """The part of each picture by the name of its archive, where all are called after parts."""
    parts = [part_of_file(_shard(name)) for name in names]
    return parts if {TRAIN, TEST} == set(parts) else None


def _shard(name: str) -> str:
    """The archive's part of a name."""
    return name[: name.index(".tar/") + 4]


def _with_folders(
    tree: Tree, names: Sequence[str], root: str, has_splits: bool, columns: dict[str, list[Any]]
) -> tuple[dict[str, list[Any]], tuple[str, ...], tuple[str, ...]]:
    """(the conditions with the class that the folders say, the names of classes, what is to be said of it)."""
    folders = [
        _class_folder(name, _shard(name) + "/" if tree.shards else root, has_splits and not tree.shards)
        for name in names
    ]
    several = len({folder for folder in folders if folder is not None}) > 1
    if "label" in columns:
        return columns, (), ("the class is that of the descriptions, not of the folders",) if several else ()
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
