"""This module reads classes and captions from dataset.json, metadata.jsonl or metadata.csv."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from score_sde.core.errors import InputError
from score_sde.readers.pictures.tree import Tree
from score_sde.readers.refusal import shown

_MOST_COLUMNS = 100


def described(tree: Tree, pictures: Sequence[str], files: Sequence[str]) -> tuple[dict[str, list[Any]], set[str]]:
    """Return the columns that the files state for the pictures, and the names of the files that were used.

    dataset.json of EDM is {"labels": [["a/b.png", 3], ...] or {"a/b.png": 3} or null}. metadata.jsonl has an object per
    line and metadata.csv a row, with `file_name`, relative to the folder of the metadata file, and any other columns.

    Raises:
        InputError: if a file has another form, or describes a picture that does not exist.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    there = set(pictures)
    for name in files:
        folder = name.rpartition("/")[0]
        for line, picture, row in _rows(tree, name):
            full = f"{folder}/{picture}" if folder else picture
            if full not in there:
                raise InputError(
                    f"{tree.where}/{name}{line} describes {shown(picture)}, and there is no such picture beside it; "
                    "expected names relative to the folder of this file."
                )
            rows[full] = {**rows.get(full, {}), **row}
    names = list(dict.fromkeys(key for row in rows.values() for key in row))[:_MOST_COLUMNS]
    columns = {key: [rows.get(picture, {}).get(key) for picture in pictures] for key in names}
    return {key: column for key, column in columns.items() if any(x is not None for x in column)}, set(files)


def _rows(tree: Tree, name: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield for each picture the place in the file, the name of the picture, and the values by column."""
    text, where = tree.text(name), f"{tree.where}/{name}"
    if name.endswith("dataset.json"):
        whole = _json(text, where)
        labels = whole.get("labels") if isinstance(whole, dict) else None
        pairs = list(labels.items()) if isinstance(labels, dict) else labels or []
        if not isinstance(whole, dict) or not isinstance(pairs, list):
            raise InputError(f'{where} is not a list of labels; expected {{"labels": [["a.png", 3], ...]}}.')
        for pair in pairs:
            if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise InputError(f'{where} has the label {shown(pair)}; expected pairs such as ["a.png", 3].')
            yield "", pair[0], {"label": pair[1]}
    elif name.endswith(".csv"):
        yield from _csv_rows(text, where)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                row = _json(line, f"{where}, line {number},")
                if not isinstance(row, dict):
                    raise InputError(f"{where}, line {number}, is {shown(line)}; expected an object with file_name.")
                yield (
                    f", line {number},",
                    _file_name(row, where, number),
                    {k: v for k, v in row.items() if k != "file_name"},
                )


def _csv_rows(text: str, where: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        columns = [column.strip() for column in next(lines, [])]
        table = []
        for row in lines:
            if row and len(row) != len(columns):
                raise InputError(
                    f"{where}, line {lines.line_num}, has {len(row)} columns; expected {len(columns)}, as in line 1."
                )
            if row:
                table.append((lines.line_num, dict(zip(columns, row, strict=True))))
    except csv.Error as error:
        raise InputError(f"{where}, line {lines.line_num}, is not a row of a csv file ({error}).") from error
    read = {
        column: _reader([row[column] for _, row in table]) for column in columns if column not in ("text", "caption")
    }
    for number, entries in table:
        kept = {column: value for column, value in entries.items() if column not in ("file_name", "") and value != ""}
        given = {column: read[column](value) if column in read else value for column, value in kept.items()}
        yield f", line {number},", _file_name(entries, where, number), given


_NUMBER = re.compile(r"[-+]?(\d+(?P<real>\.\d*)?|\.\d+)([eE][-+]?\d+)?$")


def _reader(column: Sequence[str]) -> Callable[[str], Any]:
    """Return the function that converts the entries of a column of text: int, float, or str."""
    matches = [_NUMBER.match(text) for text in column if text]
    if not matches or None in matches:
        return str
    whole = all(match is not None and match[0].lstrip("+-").isdecimal() and len(match[0]) < 19 for match in matches)
    return int if whole else float


def _file_name(row: Mapping[str, Any], where: str, line: int) -> str:
    picture = row.get("file_name")
    if not isinstance(picture, str) or not picture:
        raise InputError(f"{where}, line {line}, has no file_name (it has {shown(list(row))}); expected one.")
    return picture.removeprefix("./")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({str(error)[:80]}).") from error
