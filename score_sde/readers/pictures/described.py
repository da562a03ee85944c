"""Classes and captions from one file that describes all pictures: dataset.json, metadata.jsonl or metadata.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from score_sde.core.errors import InputError
from score_sde.readers.pictures.tree import Tree
from score_sde.readers.refusal import shown

_MOST_COLUMNS = 100


def described(tree: Tree, pictures: Sequence[str], files: Sequence[str]) -> tuple[dict[str, list[Any]], set[str]]:
    """What these files say of the pictures, and which of the files were used.

    dataset.json of EDM is {"labels": [["a/b.png", 3], ...] or {"a/b.png": 3} or null}; metadata.jsonl has an object a
    line, metadata.csv a row, with `file_name`, relative to the folder that the file is in, and any other columns.

    Raises:
        InputError: for a file that is not such, or that describes a picture that is not there.
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
    """For each line: where it is, the picture, and what is said of it."""
    text, where = tree.text(name), f"{tree.where}/{name}"
    if name.endswith("dataset.json"):
        whole = _json(text, where)
        labels = whole.get("labels") if isinstance(whole, dict) else None
        pairs = list(labels.items()) if isinstance(labels, dict) else labels or []
        if not isinstance(whole, dict) or not isinstance(pairs, list):
            raise InputError(f'{where} is no list of labels; expected {{"labels": [["a.png", 3], ...]}}.')
        for pair in pairs:
            if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise InputError(f'{where} has the label {shown(pair)}; expected pairs such as ["a.png", 3].')
            yield "", pair[0], {"label": pair[1]}
    elif name.endswith(".csv"):
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
        try:
            for row in reader:
                if None in row.values() or "" in row:
                    raise InputError(f"{where}, line {reader.line_num}, has another number of columns than its head.")
                given = {key: _read(value) for key, value in row.items() if key != "file_name" and value != ""}
                yield f", line {reader.line_num},", _file_name(row, where, reader.line_num), given
        except csv.Error as error:
            raise InputError(f"{where}, line {reader.line_num}, is no row of a csv file ({error}).") from error
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                row = _json(line, f"{where}, line {number},")
                if not isinstance(row, dict):
                    raise InputError(f"{where}, line {number}, is {shown(line)}; expected an object with file_name.")
                yield (
                    f", line {number},",
                    _file_name(row, where, number),
                    {k: v for k, v in row.items() if k != "file_name"},
                )


def _file_name(row: Mapping[str, Any], where: str, line: int) -> str:
    picture = row.get("file_name")
    if not isinstance(picture, str) or not picture:
        raise InputError(f"{where}, line {line}, has no file_name (it has {shown(list(row))}); expected one.")
    return picture.removeprefix("./")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON ({str(error)[:80]}).") from error


def _read(text: str) -> Any:
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
