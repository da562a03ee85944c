"""This module converts the columns that come with pictures (classes, captions, numbers) to conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from score_sde.core.checks import shown
from score_sde.core.conditions import ABSENT, Condition, Conditions, Label, Text
from score_sde.core.errors import InputError
from score_sde.readers.refusal import shown as plain

_LONGEST_TEXT = 256  # bytes
_FLOAT32 = float(np.finfo(np.float32).max)
_RESERVED = (ABSENT, "values", "index")


@dataclasses.dataclass(frozen=True)
class Declared:
    """`Declared` lists the conditions of the examples, in plain values that a config can hold.

    Attributes:
        classes: names of the classes, or the number of classes; 0 for no condition `label`.
        text: number of bytes of a caption; 0 for no condition `text`.
        others: {name: shape} of numeric conditions.
    """

    classes: Any = 0
    text: int = 0
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def count(self) -> int:
        """Return the number of classes."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def conditions(self) -> Conditions:
        """Return the declarations by name."""
        known: dict[str, Condition] = {name: Condition(shape=tuple(shape)) for name, shape in self.others.items()}
        if self.count:
            known["label"] = Label(self.count)
        if self.text:
            known["text"] = Text(self.text)
        return Conditions(known)


def normalised(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return raw columns in which labels are whole numbers or names.

    Labels such as 3.0 or true, and one-hot vectors, become whole numbers. Other label vectors become the column
    `label_vector`. A column `caption` or `prompt` becomes `text` if there is no column `text`.
    """
    listed: dict[str, list[Any]] = {name: list(column) for name, column in columns.items()}
    for caption in ("caption", "prompt"):
        if caption in listed and "text" not in listed:
            listed["text"] = listed.pop(caption)
    if "label" in listed:
        column = [_plain_label(entry) for entry in listed["label"]]
        if any(isinstance(entry, list | tuple) for entry in column):
            del listed["label"]
            listed["label_vector"] = column
        else:
            listed["label"] = column
    return listed


def _plain_label(entry: Any) -> Any:
    if isinstance(entry, bytes):
        return entry.decode("utf-8", "replace")
    if isinstance(entry, bool | np.bool_):
        return int(entry)
    if isinstance(entry, float) and entry.is_integer():
        return int(entry)
    if isinstance(entry, list | tuple) and _is_one_hot(entry):
        return [float(number) for number in entry].index(1.0)
    return entry


def _is_one_hot(entry: Sequence[Any]) -> bool:
    small = all(isinstance(number, int | float) and number in (0, 1) for number in entry)
    return small and sum(entry) == 1


def declare(columns: Mapping[str, Sequence[Any]], classes: Sequence[str]) -> tuple[Declared, tuple[str, ...]]:
    """Return the conditions that columns define, and sentences about columns that are not used.

    Labels are whole numbers from 0, or names, which are numbered in alphabetical order. A caption is text. Other
    columns hold numbers, or lists of numbers of equal length.

    Raises:
        InputError: if labels are neither whole numbers from 0 nor names, or if a caption is not text.
    """
    found: dict[str, Any] = {}
    others: dict[str, Any] = {}
    unused = []
    for name, column in columns.items():
        present = [entry for entry in column if entry is not None]
        if name == "label":
            found["classes"] = _classes(present, classes)
        elif name == "text":
            wrong = next((entry for entry in present if not isinstance(entry, str)), None)
            if wrong is not None:
                raise InputError(f"a caption is {shown(wrong)}; expected text.")
            longest = max((len(text.encode("utf-8", "replace")) for text in present), default=0)
            found["text"] = min(max(longest, 1), _LONGEST_TEXT)
        elif (shape := _shape(present)) is not None and name.isidentifier() and name not in _RESERVED:
            others[name] = shape
        else:
            unused.append(name)
    note = f"{', '.join(map(plain, unused))}: not used, as neither a class, a caption nor numbers of one shape"
    return Declared(**found, others=others), (note,) if unused else ()


def _classes(present: Sequence[Any], names: Sequence[str]) -> Any:
    whole = [entry for entry in present if isinstance(entry, int) and not isinstance(entry, bool)]
    if len(whole) == len(present):
        if min(whole, default=0) < 0:
            raise InputError(
                f"a label is {min(whole)}; expected whole numbers from 0, or names of classes; omit the label of an "
                "example without a class."
            )
        count = max(whole, default=-1) + 1
        if count > 4 * len(present) + 1000:
            raise InputError(
                f"a label is {count - 1:,}, but there are only {len(present):,} labels; expected classes numbered "
                "from 0."
            )
        return tuple(names) if len(names) >= count else count
    if all(isinstance(entry, str) for entry in present):
        return tuple(sorted(set(present)))
    raise InputError(f"labels include {shown(present[0])}; expected only whole numbers from 0, or only names.")


def _shape(present: Sequence[Any]) -> tuple[int, ...] | None:
    """Return the common shape of numeric entries; None if an entry is not numeric or if shapes differ."""

    def one(entry: Any) -> tuple[int, ...] | None:
        if _is_finite(entry):
            return ()
        fits = isinstance(entry, list | tuple) and entry and all(map(_is_finite, entry))
        return (len(entry),) if fits else None

    shapes = {one(entry) for entry in present}
    return shapes.pop() if len(shapes) == 1 else None


def _is_finite(entry: Any) -> bool:
    """Return whether an entry is a number in the range of float32."""
    return isinstance(entry, int | float) and bool(-_FLOAT32 <= entry <= _FLOAT32)


def as_arrays(columns: Mapping[str, Sequence[Any]], declared: Declared, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the columns as arrays in declared form; 'absent' marks the examples without a condition.

    Args:
        columns: columns in the form that `normalised` returns.
        declared: conditions to return.
        names: names of the classes, if the column `label` holds numbers that refer to these names.

    Raises:
        InputError: if a column is missing or has another shape, or if the number or the name of a class is not
            declared.
    """
    arrays: dict[str, Any] = {}
    absent: dict[str, np.ndarray] = {}
    known = {} if isinstance(declared.classes, int) else {name: i for i, name in enumerate(declared.classes)}
    for name, condition in declared.conditions().items():
        column = columns.get(name)
        if column is None:
            raise InputError(f"the examples have no {name!r}; expected {name!r}, which they had when the run began.")
        lacking = np.asarray([entry is None for entry in column])
        if name == "label":
            called = [names[entry] if known and names and isinstance(entry, int) else entry for entry in column]
            values: Any = np.asarray([_number(entry, known, declared.count) for entry in called], np.int32)
        elif name == "text":
            parsed = [condition.parse("" if entry is None else entry) for entry in column]
            values = jax.tree.map(lambda *leaves: np.stack(leaves), *parsed)
        else:
            none = np.zeros(condition.shape, np.float32)
            rows = [none if entry is None else np.asarray(entry, np.float32) for entry in column]
            if any(row.shape != condition.shape for row in rows):
                raise InputError(f"{name!r} has another shape in some examples; expected {condition.shape} in all.")
            values = np.stack(rows)
        arrays[name] = values
        if lacking.any():
            absent[name] = lacking
    return arrays | ({ABSENT: absent} if absent else {})


def _number(entry: Any, names: Mapping[str, int], count: int) -> int:
    if isinstance(entry, str):
        number = names.get(entry, -1)
    else:
        number = 0 if entry is None else entry if isinstance(entry, int) else -1
    if not 0 <= number < count:
        raise InputError(
            f"a label is {shown(entry)}; expected one of the {count} classes "
            f"{plain(', '.join(names), 200) if names else f'0 to {count - 1}'} of data.classes."
        )
    return number
