"""This module checks numbers, truth values, text and shapes that a user gives; every package uses these checks."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from score_sde.core.errors import InputError

AUTO = "auto"  # the data or the platform determine an entry or argument with this value
_SHOWN = 60  # characters of a wrong value in a message


def is_whole(value: Any, least: int) -> bool:
    """Return whether a value is a whole number of at least `least`: NumPy integers are, the float 2.0 is not."""
    try:
        return operator.index(value) >= least
    except TypeError:
        return False


def require_whole(name: str, value: Any, least: int) -> None:
    """Raise InputError, with the value in the message, if the value is not a whole number of at least `least`."""
    if not is_whole(value, least):
        raise InputError(f"{name} is {value!r}; expected a whole number, at least {least}.")


def is_number(value: Any) -> bool:
    """Return whether a value is one real number that is not NaN.

    A Python number, an array of shape () and a traced value of shape () may be a number; a truth value is not.
    """
    if isinstance(value, jax.core.Tracer):
        return value.shape == ()
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number | np.ndarray | jax.Array):
        return False
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return False
    array = np.asarray(value)
    return array.shape == () and (array.dtype.kind in "iuf" or array.dtype.name == "bfloat16") and bool(array == array)


def require_number(name: str, value: Any) -> None:
    """Raise InputError, with the value in the message, if the value is not one real number."""
    if not is_number(value):
        raise InputError(f"{name} is {shown(value)}; expected a number.")


def shown(value: Any) -> str:
    """Return a wrong value as text for a message: the whole value if it is short, otherwise its type and beginning."""
    text = repr(value)
    return text if len(text) <= _SHOWN and "\n" not in text else f"a {type(value).__name__} ({text[:_SHOWN]}...)"


def as_shape(name: str, value: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of Python integers; raise InputError if the value is not a shape."""
    if not _is_whole_numbers(value):
        raise InputError(f"{name} is {shown(value)}; expected whole numbers, such as (8, 8, 1).")
    return tuple(int(side) for side in value)


def _is_whole_numbers(value: Any) -> bool:
    listed = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return listed and all(is_whole(side, 0) and not isinstance(side, bool) for side in value)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda value: is_whole(value, -(2**63)) and not isinstance(value, bool), "a whole number"),
    "float": (is_number, "a number"),
    "bool": (lambda value: isinstance(value, bool | np.bool_), "True or False"),
    "str": (lambda value: isinstance(value, str), "text"),
    "tuple[int,...]": (_is_whole_numbers, "whole numbers in a tuple"),
    "tuple[int,int,int]": (_is_whole_numbers, "whole numbers in a tuple"),
}


def check_types(thing: Any) -> None:
    """Raise InputError if a field of a dataclass has a value of another type than the declared type.

    The checked fields are declared int, float, bool, str or tuple[int, ...], or a union of these types and None. If a
    base class calls this function, its subclasses need no type check of their own. A non-dataclass passes the check.

    Raises:
        InputError: for the first wrong field; the message states what was expected.
    """
    for field in dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ():
        declared = getattr(field.type, "__name__", str(field.type)).replace(" ", "").split("|")
        kinds = [kind for kind in declared if kind != "None"]
        value = getattr(thing, field.name, None)
        if (value is None and "None" in declared) or not all(kind in _KINDS for kind in kinds):
            continue
        if not any(_KINDS[kind][0](value) for kind in kinds):
            expected = " or ".join([_KINDS[kind][1] for kind in kinds] + ["None"] * ("None" in declared))
            raise InputError(f"{type(thing).__name__} got {field.name}={shown(value)}; expected {expected}.")
