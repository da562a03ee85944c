"""Parquet files as HuggingFace's datasets write them: encoded pictures in a column, classes and captions in others."""

from __future__ import annotations

import functools
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers.pictures.collection import SPLITS, TRAIN, Collection
from score_sde.readers.refusal import shown

_PART = re.compile(r"[a-z_]+")
_LABELS = ("label", "labels", "fine_label", "class", "class_label")
_CAPTIONS = ("text", "caption", "captions", "prompt")


def of_files(where: pathlib.Path, files: Sequence[pathlib.Path]) -> Collection:
    """The pictures of parquet files, which are read a group of rows at a time.

    Raises:
        InputError: for files that are damaged, of different columns, or have no pictures.
    """
    import pyarrow
    from pyarrow import parquet

    names: list[str] = []
    places: list[tuple[int, int, int]] = []  # file, group of rows, row in it
    splits: list[str] = []
    columns: dict[str, list[Any]] = {}
    opened = []
    picture, renamed, classes = "", dict[str, str](), tuple[str, ...]()
    for number, path in enumerate(files):
        try:
            file = parquet.ParquetFile(path)
            if number == 0:
                picture, renamed, classes = _columns(file.schema_arrow, path)
            for old, new in renamed.items():
                columns.setdefault(new, []).extend(file.read(columns=[old]).column(0).to_pylist())
            groups = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            if picture not in file.schema_arrow.names:
                raise InputError(f"{path} has no column {picture!r}, and {files[0]} has; expected the same columns.")
        except (pyarrow.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no parquet file that can be read ({shown(error, 120)}).") from error
        opened.append(file)
        rows = [(number, group, row) for group, length in enumerate(groups) for row in range(length)]
        names += [f"{path.relative_to(where) if path != where else path.name}/{row:08d}" for row in range(len(rows))]
        places += rows
        splits += [_split(path, where)] * len(rows)

    @functools.lru_cache(maxsize=8)
    def group_of(file: int, group: int) -> Any:
        return opened[file].read_row_group(group, columns=[picture]).column(0)

    def get(number: int) -> bytes | np.ndarray:
        file, group, row = places[number]
        try:
            entry = group_of(file, group)[row].as_py()
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{files[file]}, row group {group}, is damaged ({shown(error, 120)}).") from error
        content = entry.get("bytes") if isinstance(entry, dict) else entry
        if not isinstance(content, bytes):
            raise InputError(
                f"{names[number]} has no bytes of a picture (it has {shown(entry)}); expected them inside."
            )
        return content

    stamps = [f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    # A parquet file without rows for training is a part of the data of its own.
    whole = splits if TRAIN in splits and len(set(splits)) > 1 else None
    kind = "a parquet file" if len(files) == 1 else f"{len(files)} parquet files"
    return Collection(kind, where, names, get, lambda i: stamps[places[i][0]], whole, columns, classes)


def _split(path: pathlib.Path, where: pathlib.Path) -> str:
    """The part of the data that the name of a file, or of a folder above it, says; '' where none does."""
    parts = path.relative_to(where).parts if path != where else (path.name,)
    for part in reversed(parts):
        word = _PART.match(part.lower())
        if word and word[0].strip("_") in SPLITS:
            return SPLITS[word[0].strip("_")]
    return ""


def _columns(schema: Any, path: pathlib.Path) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """The column of the pictures, what the others are called here, and the names of the classes."""
    import pyarrow

    def is_picture(field: Any) -> bool:
        kind = field.type
        if pyarrow.types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

    pictures = [field.name for field in schema if is_picture(field)]
    if not pictures:
        raise InputError(
            f"{path} has the columns {shown(', '.join(schema.names), 200)}; expected one of pictures' bytes."
        )
    best = next((name for name in ("image", "img", "jpg", "png", "webp") if name in pictures), pictures[0])
    renamed = {}
    for field in schema:
        simple = pyarrow.types.is_integer(field.type) or pyarrow.types.is_floating(field.type)
        if field.name != best and (simple or pyarrow.types.is_string(field.type)):
            renamed[field.name] = field.name
    for known, meaning in ((_LABELS, "label"), (_CAPTIONS, "text")):
        name = next((name for name in known if name in renamed), None)
        if name is not None:
            renamed[name] = meaning
    return best, renamed, _class_names(schema, next((old for old, new in renamed.items() if new == "label"), ""))


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
