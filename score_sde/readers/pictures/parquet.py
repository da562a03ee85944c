"""This module reads parquet files of HuggingFace's datasets: encoded pictures in one column, conditions in others."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers.pictures.collection import TRAIN, Collection, part_of_file, stamp_of
from score_sde.readers.pictures.tree import read_file
from score_sde.readers.refusal import shown

_LABELS = ("label", "labels", "fine_label", "class", "class_label")
_CAPTIONS = ("text", "caption", "captions", "prompt")


def of_files(where: pathlib.Path, files: Sequence[pathlib.Path]) -> Collection:
    """Return the pictures of parquet files, which are read one group of rows at a time.

    Raises:
        InputError: if a file is damaged, has no pictures, or has the pictures in another column than the other files.
    """
    names: list[str] = []
    places: list[tuple[int, int, int]] = []  # file, group of rows, row in the group
    splits: list[str] = []
    columns: dict[str, list[Any]] = {}
    opened, picture, classes = [], "", tuple[str, ...]()
    for number, path in enumerate(files):
        file, picture, groups = _opened(path, picture)
        for old, new in _others(file.schema_arrow, picture).items():
            # A column that is missing in other files is None for their rows.
            columns.setdefault(new, [None] * len(names)).extend(_entries(file, old, path))
            classes = classes or (_class_names(file.schema_arrow, old) if new == "label" else ())
        opened.append(file)
        told = path.relative_to(where).as_posix() if path != where else path.name
        names += [f"{told}/{row:08d}" for row in range(sum(groups))]
        places += [(number, group, row) for group, length in enumerate(groups) for row in range(length)]
        splits += [part_of_file(told)] * sum(groups)
        for column in columns.values():
            column.extend([None] * (len(names) - len(column)))
    has_parts = TRAIN in splits and len(set(splits)) > 1
    if has_parts and "" in splits:
        raise InputError(
            f"{names[splits.index('')]} belongs to no split, but other examples do; expected train or test."
        )

    @functools.lru_cache(maxsize=2)
    def group_of(file: int, group: int) -> Any:
        return opened[file].read_row_group(group, columns=[picture]).column(0)

    def get(number: int) -> bytes | np.ndarray:
        file, group, row = places[number]
        entry = _had(lambda: group_of(file, group)[row].as_py(), f"{files[file]}, row group {group},")
        content = entry.get("bytes") if isinstance(entry, dict) else entry
        outside = beside[number]
        if content is None and outside is not None:
            return read_file(outside)
        if not isinstance(content, bytes):
            raise InputError(
                f"{names[number]} has no bytes of a picture (it has {shown(entry)}); expected the bytes in the file."
            )
        return content

    folder = where if where.is_dir() else where.parent
    beside = [named for file, path in zip(opened, files, strict=True) for named in _beside(file, picture, path, folder)]
    stamps = [stamp_of(path) for path in files]

    def stamp(number: int) -> str:
        outside = beside[number]
        return stamps[places[number][0]] + (stamp_of(outside) if outside is not None else "")

    kind = "a parquet file" if len(files) == 1 else f"{len(files)} parquet files"
    # Files of one split alone are a data set without splits.
    return Collection(kind, where, names, get, stamp, splits if has_parts else None, columns, classes)


def _had(read: Callable[[], Any], told: str) -> Any:
    import pyarrow

    try:
        return read()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{told} is damaged ({shown(error, 120)}).") from error


def _opened(path: pathlib.Path, picture: str) -> tuple[Any, str, list[int]]:
    """Return (a file, its column of pictures, the rows of each group); the column is `picture` if it is not empty."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        picture = picture or _picture_column(file.schema_arrow, path)
        groups = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    except (pyarrow.ArrowException, OSError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a parquet file ({shown(error, 120)}).") from error
    if picture not in file.schema_arrow.names:
        raise InputError(f"{path} has no column {picture!r}, and other files have this column; expected it in all.")
    return file, picture, groups


def _beside(file: Any, picture: str, path: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path | None]:
    """Return for each row the file that holds its picture, if the row names a file in the folder; otherwise None."""
    import pyarrow

    kind = file.schema_arrow.field(picture).type
    if not (pyarrow.types.is_struct(kind) and "path" in {field.name for field in kind}):
        return [None] * file.metadata.num_rows
    named = [
        entry.get("path") if isinstance(entry, dict) else None for entry in _entries(file, f"{picture}.path", path)
    ]
    inside = [_within(path.parent / name, folder) if isinstance(name, str) else None for name in named]
    if not any(inside) and any(named) and not _has_bytes(file, f"{picture}.bytes"):
        raise InputError(
            f"{path} has no pictures, but paths such as {shown(next(filter(None, named)))}, which is not in {folder}; "
            "expected the pictures inside, as datasets.table.embed_table_storage writes them: embed them, or give "
            "the folder of the pictures."
        )
    return inside


def _within(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path | None:
    try:
        real = path.resolve()
        return real if real.is_relative_to(folder.resolve()) and real.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name that is too long or has a null, or a loop of links
        return None


def _has_bytes(file: Any, column: str) -> bool:
    """Return whether a column may have an entry, by the counts that the file states."""
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group)
        for number in range(rows.num_columns):
            stated = rows.column(number)
            if stated.path_in_schema == column:
                statistics = stated.statistics
                if statistics is None or not statistics.has_null_count or statistics.null_count < rows.num_rows:
                    return True
    return False


def _entries(file: Any, column: str, path: pathlib.Path) -> list[Any]:
    import pyarrow

    try:
        return list(file.read(columns=[column]).column(0).to_pylist())
    except (pyarrow.ArrowException, OSError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{path}, column {column!r}, cannot be read ({shown(error, 120)}).") from error


def _picture_column(schema: Any, path: pathlib.Path) -> str:
    import pyarrow

    def is_picture(kind: Any) -> bool:
        if pyarrow.types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    pictures = [field.name for field in schema if is_picture(field.type)]
    if not pictures:
        raise InputError(f"{path} has the columns {shown(', '.join(schema.names), 200)}; expected one of bytes.")
    return next((name for name in ("image", "img", "jpg", "png", "webp") if name in pictures), pictures[0])


def _others(schema: Any, picture: str) -> dict[str, str]:
    """Return the columns that may be conditions, and the names of these conditions."""
    import pyarrow

    types = pyarrow.types
    left_out = (types.is_struct, types.is_binary, types.is_large_binary, types.is_map)
    renamed = {
        field.name: field.name
        for field in schema
        if field.name != picture and not any(is_such(field.type) for is_such in left_out)
    }
    for known, meaning in ((_LABELS, "label"), (_CAPTIONS, "text")):
        name = next((name for name in known if name in renamed), None)
        if name is not None:
            renamed[name] = meaning
    return renamed


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
