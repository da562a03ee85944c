"""Which of a tree's files are pictures, in which part of the data, and with which class or caption."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

from score_sde.core.errors import InputError
from score_sde.readers.pictures.beside import beside
from score_sde.readers.pictures.collection import SPLITS, TRAIN, Collection
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
    return pathlib.PurePosixPath(name).suffix.lower()


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
    root = _common_folder(pictures)
    splits = _splits(pictures, root)
    columns, used = described(tree, pictures, [name for name in others if name.rsplit("/", 1)[-1] in DESCRIPTIONS])
    classes: tuple[str, ...] = ()
    if not columns:
        columns, used = beside(tree, pictures, others)
    if "label" not in columns:
        folders = [_class_folder(name, root, splits is not None) for name in pictures]
        if None not in folders and len(set(folders)) > 1:
            classes = tuple(sorted({folder for folder in folders if folder is not None}))
            number = {name: place for place, name in enumerate(classes)}
            columns = {**columns, "label": [number[str(folder)] for folder in folders]}
    return Collection(
        kind=f"a {tree.kind} of pictures",
        where=tree.where,
        names=pictures,
        get=lambda number: tree.read(pictures[number]),
        stamp=lambda number: tree.stamp(pictures[number]),
        splits=splits,
        columns=columns,
        classes=classes,
        notes=_left_out([name for name in others if name not in used]),
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


def _splits(names: Sequence[str], root: str) -> list[str] | None:
    """The part of each picture, where the first folders are called after parts and one of them is for training."""
    firsts = {name[len(root) :].split("/", 1)[0].lower() if "/" in name[len(root) :] else "" for name in names}
    if len(firsts) < 2 or not firsts <= set(SPLITS) or TRAIN not in {SPLITS[first] for first in firsts}:
        return None
    return [SPLITS[name[len(root) :].split("/", 1)[0].lower()] for name in names]


def _class_folder(name: str, root: str, has_splits: bool) -> Any:
    parts = name[len(root) :].split("/")[has_splits:]
    return parts[0] if len(parts) > 1 else None
