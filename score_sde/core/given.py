"""This module checks given conditions on the host against their declarations, and makes conditions from user input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import columns
from score_sde.core.arrays import is_concrete, same_structure
from score_sde.core.conditions import ABSENT, Cond, Condition, Conditions
from score_sde.core.errors import InputError


def checked(cond: Cond, reads: Conditions, batch: int) -> Cond:
    """Return `cond` in the dtypes that `reads` declares, after all checks of its names and values.

    Raises:
        InputError: for a name that is not declared, a required name that is missing, or values of another shape, dtype
            or range than declared.
    """
    if cond is not None and not isinstance(cond, Mapping):
        raise InputError(f"cond is a {type(cond).__name__}; expected None or a dictionary, such as dict(label=labels).")
    given = {name: value for name, value in (cond or {}).items() if name != ABSENT}
    for name in given:
        if name not in reads:
            known = ", ".join(reads) or "none"
            raise InputError(f"cond has {name!r}, which is not read; conditions read: {known}.")
    listed = (cond or {}).get(ABSENT) or {}
    if not isinstance(listed, Mapping):
        raise InputError(f"cond['absent'] is {listed!r}; expected a dictionary by name of bool ({batch},).")
    absent = dict(listed)
    for name, condition in reads.items():
        if condition.required and (name not in given or _any(absent.get(name))):
            raise InputError(
                f"cond has no {name!r}, which is required: give values of {condition!r} for {batch} examples."
            )
    result = {name: checked_values(name, value, reads[name], batch) for name, value in given.items()}
    if absent:
        result[ABSENT] = {name: _flags(name, flags, given, batch) for name, flags in absent.items()}
    return result or None


def _any(flags: Any) -> bool:
    """Return whether the flags are known on the host and at least one example has no value."""
    return flags is not None and is_concrete(flags) and bool(np.any(flags))


def checked_values(name: str, value: Any, condition: Condition, batch: int, absent: Any = None) -> Any:
    """Return the values of one condition in the declared dtypes; where `absent` is True, any value is valid.

    Raises:
        InputError: for values of another shape, dtype or range than declared.
    """
    value = condition.fitted(name, value)
    like = condition.like_of(value, batch)
    if not same_structure(value, like):
        raise InputError(f"cond[{name!r}] is {_shown(value)}; expected {_shown(like)}.")

    def fit(leaf: Any, wanted: jax.ShapeDtypeStruct) -> Any:
        # A traced value must stay a JAX array.
        leaf = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if leaf.shape[:1] != wanted.shape[:1]:
            raise InputError(f"cond[{name!r}] has shape {leaf.shape}; expected leading axis {batch}: {wanted.shape}.")
        kinds = {"i": "iu", "u": "iu", "b": "b", "f": "fiu"}.get(wanted.dtype.kind, wanted.dtype.kind)
        if leaf.shape != wanted.shape or not (leaf.dtype.kind in kinds or jnp.issubdtype(leaf.dtype, wanted.dtype)):
            raise InputError(
                f"cond[{name!r}] has shape {leaf.shape} and dtype {leaf.dtype}; expected {wanted.shape} and "
                f"{wanted.dtype}."
            )
        return leaf

    value = jax.tree.map(fit, value, like)
    if is_concrete(value):
        value = jax.tree.map(np.asarray, value)
        condition.check(name, value if absent is None else jax.tree.map(lambda leaf: leaf[~absent], value))
    # A value declared as float64 is float32 unless JAX has 64 bits.
    return jax.tree.map(lambda leaf, wanted: leaf.astype(jax.dtypes.canonicalize_dtype(wanted.dtype)), value, like)


def _flags(name: str, flags: Any, given: Mapping[str, Any], batch: int) -> Any:
    flags = flags if isinstance(flags, jax.Array) else np.asarray(flags)
    if name not in given or flags.shape != (batch,) or flags.dtype != bool:
        raise InputError(
            f"cond['absent'][{name!r}] has shape {flags.shape} and dtype {flags.dtype}; expected bool ({batch},), for "
            "a name that cond has."
        )
    return flags


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, jax.ShapeDtypeStruct):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}" + (f" of shape {value.shape}" if hasattr(value, "shape") else "")


def asked_for(
    given: Mapping[str, Any], reads: Conditions, numbers: np.ndarray, *, whole: bool = True, entry: str = "sample.cond"
) -> Cond:
    """Return the condition of the samples with numbers `numbers`: the values in `given`, and defaults for other names.

    There are no defaults if a condition such as a measurement is read (`excludes_defaults`): its samples must not have
    a class that nobody asked for.

    Args:
        given: {name: one value for all samples, or a list that the samples use in turn, or None for absent, or the name
            of a file whose rows the samples use in turn: 'PATH.npz', its array `name`, or 'PATH.npz:ARRAY', or
            'PATH.npy'}.
        reads: declarations of the conditions that are read.
        numbers: numbers of the samples, (batch,).
        whole: whether every required condition must have a value.
        entry: the entry of a config that states `given`, for messages.

    Raises:
        InputError: for a name that is not declared, a value that cannot be parsed, or a required value that is missing.
    """
    for name in given:
        if name not in reads:
            raise InputError(
                f"{entry} names {name!r}, which the model does not read; it reads {', '.join(reads) or 'none'}."
            )
    cond: dict[str, Any] = {}
    alone = any(condition.excludes_defaults for condition in reads.values())
    for name, condition in reads.items():
        if name in given:
            value = _repeated(name, given[name], condition, numbers, entry)
        else:
            value = None if alone else condition.default(numbers)
        if value is not None:
            cond[name] = value
        elif condition.required and whole:
            raise InputError(f'{entry} has no {name!r}, which the model requires: give --config.{entry}="{name}=...".')
    return cond or None


def _repeated(name: str, value: Any, condition: Condition, numbers: np.ndarray, entry: str) -> Any:
    if value is None:
        return None
    if columns.is_file(value) and not condition.is_text:
        listed = columns.rows(value, name)
        return np.asarray(listed[np.asarray(numbers, np.int64) % len(listed)])
    try:
        parsed = [condition.parse(each) for each in ([value] if condition.is_one(value) else value)]
    except InputError as error:
        raise InputError(f"{entry}, {name}: {error}") from error
    if not parsed:
        raise InputError(f"{entry} gives no value of {name!r}; expected at least one.")
    places = np.asarray(numbers, np.int64) % len(parsed)
    return jax.tree.map(lambda *leaves: np.stack(leaves)[places], *parsed)
