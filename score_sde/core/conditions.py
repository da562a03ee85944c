"""Conditions of a prediction: values by name, declared by those who read them, and absent explicitly.

`cond` is None or a dictionary by name. cond[name] is an array with leading axis batch, or a dictionary of such
arrays that belong together. cond['absent'], optional, is {name: bool (batch,)}: True means that this example lacks
this condition. A name that is not listed there is present; a name that `cond` does not have is absent for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, is_concrete, same_structure
from score_sde.core.checks import is_whole
from score_sde.core.errors import InputError

Cond = Mapping[str, Any] | None
ABSENT = "absent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """The declaration of one condition. Subclass it to parse text, to check values, or to join several arrays.

    Attributes:
        shape: the shape of one example's value.
        dtype: the dtype of the values.
        required: whether the reader refuses to do without it.
    """

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    required: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))

    def like(self, batch: int) -> Any:
        """The shapes and dtypes of a batch of values: a jax.ShapeDtypeStruct, or a dictionary of them."""
        return jax.ShapeDtypeStruct((batch, *self.shape), np.dtype(self.dtype))

    def parse(self, value: Any) -> Any:
        """One example's value from what a person writes, such as a number or text; raises InputError."""
        array = np.asarray(value)
        if array.shape != self.shape or array.dtype.kind not in "biuf":
            raise InputError(f"a condition is {value!r}; expected numbers of shape {self.shape}.")
        return array.astype(self.dtype)

    def is_one(self, value: Any) -> bool:
        """Whether what a person writes is one example's value, and not a list of them."""
        return np.ndim(value) <= len(self.shape)

    def default(self, numbers: np.ndarray) -> Any:
        """The values of samples number `numbers` where nobody gives any; None where there is no default."""
        return None

    def check(self, name: str, value: Any) -> None:
        """Raise InputError for values, known on the host and of the right shape, that cannot be meant."""
        for leaf in jax.tree.leaves(value):
            if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                raise InputError(f"cond[{name!r}] contains NaN or infinity; expected finite values.")


@dataclasses.dataclass(frozen=True)
class Label(Condition):
    """A class: a whole number from 0 to classes - 1.

    Attributes:
        classes: the number of classes.
    """

    classes: int
    dtype: str = dataclasses.field(default="int32", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.classes, 1):
            raise InputError(f"Label got classes={self.classes!r}; expected a whole number, at least 1.")

    def parse(self, value: Any) -> np.ndarray:
        if not is_whole(value, 0) or not value < self.classes:
            raise InputError(f"a label is {value!r}; expected a whole number from 0 to {self.classes - 1}.")
        return np.asarray(value, self.dtype)

    def default(self, numbers: np.ndarray) -> np.ndarray:
        """Each class in turn: number i has class i modulo the number of classes."""
        return (np.asarray(numbers) % self.classes).astype(self.dtype)

    def check(self, name: str, value: Any) -> None:
        outside = value[(value < 0) | (value >= self.classes)]
        if outside.size:
            raise InputError(
                f"cond[{name!r}] contains {outside.flat[0]}; expected classes from 0 to {self.classes - 1} (to leave "
                f"the class out, set cond['absent'][{name!r}])."
            )


@dataclasses.dataclass(frozen=True)
class Text(Condition):
    """Text as bytes of UTF-8: {'tokens': int32 (batch, length), 'mask': bool (batch, length)}; longer text is cut.

    Attributes:
        length: the number of bytes that are kept.
    """

    length: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.length, 1):
            raise InputError(f"Text got length={self.length!r}; expected a whole number, at least 1.")

    def like(self, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (batch, self.length)
        return {"tokens": jax.ShapeDtypeStruct(shape, np.int32), "mask": jax.ShapeDtypeStruct(shape, np.bool_)}

    def parse(self, value: Any) -> dict[str, np.ndarray]:
        if not isinstance(value, str):
            raise InputError(f"a text is {value!r}; expected text.")
        raw = np.frombuffer(value.encode("utf-8", "surrogatepass")[: self.length], np.uint8).astype(np.int32)
        tokens = np.zeros(self.length, np.int32)
        tokens[: len(raw)] = raw
        return {"tokens": tokens, "mask": np.arange(self.length) < len(raw)}

    def is_one(self, value: Any) -> bool:
        return not isinstance(value, list | tuple)


class Conditions(Mapping[str, Condition]):
    """Declarations by name: a dictionary that cannot be changed, so that a network that holds one is hashable."""

    def __init__(self, declared: Mapping[str, Condition] | None = None, /, **more: Condition) -> None:
        merged = dict(declared or {}, **more)
        for name, condition in merged.items():
            if not isinstance(condition, Condition) or name == ABSENT or not name.isidentifier():
                raise InputError(
                    f"conditions has {name!r}: {condition!r}; expected names other than 'absent', each with a "
                    "Condition, such as dict(label=Label(10))."
                )
        self._items = tuple(sorted(merged.items()))

    def __getitem__(self, name: str) -> Condition:
        return dict(self._items)[name]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._items])

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self._items) == dict(other)

    def __repr__(self) -> str:
        return f"Conditions({', '.join(f'{name}={condition!r}' for name, condition in self._items)})"

    @property
    def optional(self) -> tuple[str, ...]:
        """The names that may be absent."""
        return tuple(name for name, condition in self._items if not condition.required)

    def only(self, names: Iterable[str]) -> Conditions:
        """The declarations of these names."""
        wanted = set(names)
        return Conditions({name: condition for name, condition in self._items if name in wanted})


def is_absent(cond: Cond, name: str, batch: int) -> Array:
    """Which examples lack a condition: bool (batch,)."""
    if cond is None or name not in cond:
        return jnp.ones(batch, bool)
    listed = (cond.get(ABSENT) or {}).get(name)
    return jnp.zeros(batch, bool) if listed is None else listed


def without(cond: Cond, names: Iterable[str]) -> Cond:
    """A condition whose entries of these names are absent for all."""
    if cond is None:
        return None
    left_out = set(names)
    kept = {name: value for name, value in cond.items() if name not in left_out and name != ABSENT}
    absent = {name: flags for name, flags in (cond.get(ABSENT) or {}).items() if name in kept}
    return (kept | ({ABSENT: absent} if absent else {})) or None


def only(cond: Cond, names: Iterable[str]) -> Cond:
    """A condition without the entries that are not among these names."""
    wanted = set(names)
    return without(cond, [name for name in cond or {} if name not in wanted])


def checked(cond: Cond, reads: Conditions, batch: int) -> Cond:
    """A condition in the dtypes that its readers declare, once it is known to be one that they can read.

    Raises:
        InputError: for a name that nobody reads, a required name that is missing, or values of another shape, dtype or
            range than declared.
    """
    if cond is not None and not isinstance(cond, Mapping):
        raise InputError(f"cond is a {type(cond).__name__}; expected None or a dictionary, such as dict(label=labels).")
    given = {name: value for name, value in (cond or {}).items() if name != ABSENT}
    for name in given:
        if name not in reads:
            known = ", ".join(reads) or "no condition at all"
            raise InputError(f"cond has {name!r}, which nothing here reads; what is read: {known}.")
    absent = dict((cond or {}).get(ABSENT) or {})
    for name, condition in reads.items():
        if condition.required and (name not in given or name in absent):
            raise InputError(
                f"cond lacks {name!r}, which is required: give values of {condition!r} for {batch} examples."
            )
    result = {name: _checked(name, value, reads[name], batch) for name, value in given.items()}
    if absent:
        result[ABSENT] = {name: _flags(name, flags, given, batch) for name, flags in absent.items()}
    return result or None


def _checked(name: str, value: Any, condition: Condition, batch: int) -> Any:
    like = condition.like(batch)
    if not same_structure(value, like):
        raise InputError(f"cond[{name!r}] is {_shown(value)}; expected {_shown(like)}.")

    def fit(leaf: Any, wanted: jax.ShapeDtypeStruct) -> Any:
        # Values that are being traced keep their place in the trace.
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
        condition.check(name, value)
    return jax.tree.map(lambda leaf, wanted: leaf.astype(wanted.dtype), value, like)


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


def asked_for(given: Mapping[str, Any], reads: Conditions, numbers: np.ndarray) -> Cond:
    """The condition of samples number `numbers`: what a person asks for, and defaults for what nobody mentions.

    Args:
        given: {name: one value for all samples, or a list that is gone through again and again, or None for absent}.
        reads: what is read.
        numbers: the samples' numbers, (batch,).

    Raises:
        InputError: for a name that nobody reads, or a value that cannot be parsed.
    """
    for name in given:
        if name not in reads:
            raise InputError(
                f"sample.cond names {name!r}, which the model does not read; it reads {', '.join(reads) or 'none'}."
            )
    cond: dict[str, Any] = {}
    for name, condition in reads.items():
        value = condition.default(numbers) if name not in given else _repeated(name, given[name], condition, numbers)
        if value is not None:
            cond[name] = value
        elif condition.required:
            raise InputError(
                f'sample.cond lacks {name!r}, which the model requires: give --config.sample.cond="{name}=...".'
            )
    return cond or None


def _repeated(name: str, value: Any, condition: Condition, numbers: np.ndarray) -> Any:
    if value is None:
        return None
    try:
        parsed = [condition.parse(each) for each in ([value] if condition.is_one(value) else value)]
    except InputError as error:
        raise InputError(f"sample.cond, {name}: {error}") from error
    if not parsed:
        raise InputError(f"sample.cond gives no value of {name!r}; expected at least one.")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[parsed[int(i) % len(parsed)] for i in numbers])
