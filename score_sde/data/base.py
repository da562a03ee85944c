"""This module defines the interface between data sets and the rest of the library."""

from __future__ import annotations

import abc
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from score_sde.core.arrays import as_array
from score_sde.core.checks import shown
from score_sde.core.conditions import ABSENT, Condition, Conditions
from score_sde.core.errors import InputError
from score_sde.core.given import checked_values
from score_sde.data.codec import Codec

Batch = dict[str, Any]  # 'values' (batch, *shape), 'cond', 'index' (batch,): position in the whole batch
_CHUNK = 256


class Source(Protocol):
    """A source returns examples by number: {'values': (*shape), and each condition of the data set by name}.

    An entry 'absent', {name: bool}, is True for each condition that the example does not have.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class Records:
    """`Records` is a source that reads from files and names a record that cannot be read.

    Args:
        source: the records.
        name: name of the records in messages, such as 'digits, split train'.
        folder: folder of the records, which are prepared again after the folder is deleted; None if unknown.
    """

    def __init__(self, source: Source, name: str, folder: pathlib.Path | None = None) -> None:
        self._source, self._name, self._folder = source, name, folder

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        try:
            return self._source[index]
        except InputError:
            raise  # the message already states the cause
        except Exception as error:  # a damaged file may raise any exception
            remedy = f"delete {self._folder} to prepare the data again" if self._folder else "repair or remove it"
            raise InputError(
                f"Record {index} of {self._name} cannot be read ({type(error).__name__}: {str(error)[:120]}): {remedy}."
            ) from error

    def digest(self) -> str:
        return digest(self._source)


class Arrays:
    """`Arrays` is a source in memory that reads many examples at once.

    Args:
        columns: values=(n, *shape), label=(n,), and other conditions by name; a column may be a dictionary of arrays.
    """

    def __init__(self, **columns: Any) -> None:
        if "values" not in columns:
            raise InputError(f"Arrays got {', '.join(columns) or 'nothing'}; expected values=, an array of examples.")
        self.columns = {name: _column(name, column) for name, column in columns.items()}
        lengths = {
            name: leaf.shape[0] if leaf.ndim else None
            for name, column in self.columns.items()
            for leaf in jax.tree.leaves(column)
        }
        if None in lengths.values() or len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length or 'none'}" for name, length in lengths.items())
            raise InputError(f"Arrays got columns of different lengths ({told}); expected an entry for every example.")

    def __len__(self) -> int:
        return len(self.columns["values"])

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {name: jax.tree.map(lambda leaf: leaf[index], column) for name, column in self.columns.items()}

    def take(self, numbers: np.ndarray) -> dict[str, Any]:
        """Return the examples with these numbers, stacked."""
        return {name: jax.tree.map(lambda leaf: leaf[numbers], column) for name, column in self.columns.items()}


def _column(name: str, column: Any) -> Any:
    if isinstance(column, Mapping):
        return {part: _column(f"{name}.{part}", values) for part, values in column.items()}
    return as_array(column, name)


def read(source: Source, numbers: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Return the examples with these numbers, stacked: {'values': (n, *shape), 'label': (n,), ...}.

    No other example is read.
    """
    if isinstance(source, Arrays):
        return source.take(np.asarray(numbers))
    records = source if isinstance(source, Records) else Records(source, type(source).__name__)
    examples = [records[int(i)] for i in numbers]
    return {name: _stacked(name, [example.get(name) for example in examples], numbers) for name in examples[0]}


def _stacked(name: str, entries: Sequence[Any], numbers: Sequence[int] | np.ndarray) -> Any:
    """Stack one column of examples that were read one by one; raise InputError if their shapes differ."""
    first = _form(entries[0])
    for number, entry in zip(numbers, entries, strict=True):
        if _form(entry) != first:
            raise InputError(
                f"Example {int(number)} has {name!r} of another form ({_form(entry)}) than example {int(numbers[0])} "
                f"({first}); expected one form for all."
            )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *entries)


def _form(entry: Any) -> str:
    """Return the shapes of an entry in words."""
    if entry is None:
        return "missing"
    if isinstance(entry, Mapping):
        return ", ".join(f"{name}: {_form(part)}" for name, part in sorted(entry.items()))
    return "text" if isinstance(entry, str | bytes) else f"shape {np.shape(entry)}"


def all_examples(source: Source) -> dict[str, Any]:
    """Return all examples, stacked in order: {'values': (n, *shape), 'label': (n,), ...}."""
    return read(source, range(len(source)))


def as_batch(columns: Mapping[str, Any], reads: Conditions) -> Batch:
    """Return stacked examples as {'values', 'cond'}, where 'cond' has the conditions in `reads` in declared form.

    Raises:
        InputError: if the values or a condition in `reads` are missing, or if a condition cannot be parsed.
    """
    for name in ("values", *reads):
        if name not in columns:
            raise InputError(f"The examples have no {name!r}; expected {name!r} in addition to {', '.join(columns)}.")
    absent = {name: np.asarray(flags, bool) for name, flags in columns.get(ABSENT, {}).items() if name in reads}
    cond = {name: _declared(name, columns[name], condition, absent.get(name)) for name, condition in reads.items()}
    return {"values": columns["values"], "cond": (cond | ({ABSENT: absent} if absent else {})) or None}


def _declared(name: str, column: Any, condition: Condition, absent: np.ndarray | None) -> Any:
    """Return a column in the form of its declaration; parse text."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "USO":
        parsed = [
            condition.parse(text.decode("utf-8") if isinstance(text, bytes) else text) for text in column.tolist()
        ]
        column = jax.tree.map(lambda *leaves: np.stack(leaves), *parsed)
    return checked_values(name, column, condition, len(jax.tree.leaves(column)[0]), absent)


def check_source(source: Any, name: str = "the data set") -> None:
    """Raise InputError if an object is not a source, such as the None of a method without `return`."""
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise InputError(
            f"The source of {name} is {shown(source)}; expected an object with a length and items, such as a list of "
            "{'values': ...}, or data.Arrays(values=...)."
        )


def digest(source: Source) -> str:
    """Return a BLAKE2b digest of all examples, in hexadecimal; results identify their data by this digest.

    A source that can identify its content without reading every example defines its own digest().
    """
    check_source(source)
    own = getattr(source, "digest", None)
    if own is not None:
        return str(own())
    total = hashlib.blake2b(digest_size=16)
    for low in range(0, len(source), _CHUNK):
        columns = read(source, range(low, min(low + _CHUNK, len(source))))
        for path, leaf in jax.tree_util.tree_leaves_with_path(columns):
            array = np.asarray(leaf)
            array = np.char.encode(array, "utf-8", "surrogatepass") if array.dtype.kind == "U" else array
            total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
            if array.dtype.kind == "O":  # the bytes of an array of objects are addresses
                for entry in array.ravel().tolist():
                    total.update(repr(_text_of(entry)).encode("utf-8", "surrogatepass"))
            else:
                total.update(array.tobytes())
    return total.hexdigest()


def _text_of(entry: Any) -> str | bytes:
    if not isinstance(entry, str | bytes):
        raise InputError(
            f"A column of dtype object contains a {type(entry).__name__}; expected text, or numbers in an array of a "
            "numeric dtype."
        )
    return entry


class Dataset(abc.ABC):
    """A data set provides images, points, or arrays of any other shape, and the conditions of each example.

    To add a data set, define a subclass with `codec`, `source` and, if examples have conditions, `conditions`. A config
    names the subclass by its dotted path.

    Attributes:
        codec: conversion between the examples' values and the model's scale.
        conditions: conditions of each example by name, such as {'label': Label(10)}.
    """

    codec: Codec
    conditions: Mapping[str, Condition] = Conditions()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of an example's values; for an image (height, width, channels)."""
        return self.codec.data_shape

    @abc.abstractmethod
    def source(self, split: str) -> Source:
        """Return the examples of a split, 'train' or 'test', in a fixed order; prepare the data if necessary."""

    def count(self) -> int:
        """Return the number of examples; the default implementation counts the training examples only."""
        return len(self.source("train"))

    def lines(self) -> list[str]:
        """Return sentences with facts about the data that a config does not contain; empty by default."""
        return []


def folder_of(dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Return the folder of the data: `dir`, in which ~ is the user's home, or the user's cache for None and ''."""
    if dir is None or (isinstance(dir, str) and not dir):
        return cache_dir() / "data"
    if not isinstance(dir, str | os.PathLike):
        raise InputError(f"data.dir is {shown(dir)}; expected the path of a folder, or None for the user's cache.")
    try:
        return pathlib.Path(dir).expanduser()
    except RuntimeError as error:  # the user in ~user does not exist
        raise InputError(f"data.dir is {shown(dir)}: {error}") from error


def cache_dir() -> pathlib.Path:
    """Return the default folder of prepared data and compiled programs: score_sde in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base) / "score_sde"
