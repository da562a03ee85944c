"""This module reads captions and classes from files with the name of a picture: .txt, .caption, .cls and .json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from score_sde.core.errors import InputError
from score_sde.readers.pictures.tree import Tree
from score_sde.readers.refusal import shown

_ENDINGS = {".txt": "text", ".caption": "text", ".cls": "label", ".json": ""}


def beside(tree: Tree, pictures: Sequence[str], others: Sequence[str]) -> tuple[dict[str, list[Any]], set[str]]:
    """Return the conditions of each picture from the files beside the picture, and the names of the files used.

    A file belongs to a picture if both names are equal up to the ending; in tars, up to the first dot of the file's
    name, as in WebDataset. The first non-empty line of .txt is the caption. .cls holds the number or the name of the
    class. .json holds an object with conditions by name.
    """
    in_tar = tree.kind.endswith(("tar", "tars"))
    files: dict[str, list[str]] = {}
    for name in others:
        if name[name.rfind(".") :].lower() in _ENDINGS:
            files.setdefault(_key(name, in_tar), []).append(name)
    rows: list[dict[str, Any]] = []
    used: set[str] = set()
    for picture in pictures:
        mine = files.get(_key(picture, in_tar), ())
        used |= set(mine)
        rows.append({key: value for name in sorted(mine) for key, value in _conditions(tree, name).items()})
    names = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in names}, used


def _key(name: str, in_tar: bool) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + (file.split(".", 1)[0] if in_tar else file.rpartition(".")[0])


def _conditions(tree: Tree, name: str) -> Mapping[str, Any]:
    meaning, text = _ENDINGS[name[name.rfind(".") :].lower()], tree.text(name)
    if meaning == "text":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return {"text": lines[0]} if lines else {}
    if meaning == "label":
        try:
            return {"label": int(text)}
        except ValueError:
            return {"label": text.strip()}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{tree.where}/{name} is not JSON ({str(error)[:80]}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{tree.where}/{name} is {shown(text)}; expected an object with conditions by name.")
    return found
