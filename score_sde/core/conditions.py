"""This module declares the conditions of a prediction: values by name, which may be absent.

`cond` is None or a dictionary by name. cond[name] is an array with leading axis batch, or a dictionary of several
arrays with leading axis batch. The optional entry cond['absent'] is {name: bool (batch,)}: True means that the example
has no value of this condition. A condition that cond['absent'] does not list is present for all examples. A condition
that `cond` does not have is absent for all examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array
from score_sde.core.checks import as_shape, is_whole, shown
from score_sde.core.errors import InputError

Cond = Mapping[str, Any] | None
ABSENT = "absent"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """`Condition` declares one condition; a subclass can parse text, check values, or join several arrays.

    Attributes:
        shape: shape of the value of one example.
        dtype: dtype of the values.
        required: whether a missing or absent value raises InputError.
    """

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    required: bool = False

    is_text: ClassVar[bool] = False  # True if text is a value, and never the name of a file with values
    excludes_defaults: ClassVar[bool] = False  # True if other conditions have no default values beside this one

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_shape(f"shape of {type(self).__name__}", self.shape))

    def like(self, batch: int) -> Any:
        """Return the shapes and dtypes of a batch of values: a jax.ShapeDtypeStruct, or a dictionary of several."""
        return jax.ShapeDtypeStruct((batch, *self.shape), np.dtype(self.dtype))

    def like_of(self, value: Any, batch: int) -> Any:
        """Return the shapes and dtypes that a given batch of values must have: `like(batch)`, unless overridden."""
        return self.like(batch)

    def fitted(self, name: str, value: Any) -> Any:
        """Return given values in another form, such as numbers as truth values, before the checks."""
        return value

    def parse(self, value: Any) -> Any:
        """Return the value of one example from user input, such as a number or text; raise InputError if not valid."""
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            array = np.asarray(None)
        cast = array.astype(self.dtype) if array.shape == self.shape and array.dtype.kind in "biuf" else None
        if cast is None or (cast.dtype.kind != "f" and not np.array_equal(cast, array)):
            raise InputError(f"a condition is {shown(value)}; expected {self.dtype} of shape {self.shape}.")
        return cast

    def is_one(self, value: Any) -> bool:
        """Return whether user input is the value of one example, and not a list of values."""
        try:
            return np.ndim(value) <= len(self.shape)
        except ValueError:  # lists of different lengths are several values
            return False

    def default(self, numbers: np.ndarray) -> Any:
        """Return the default values of the samples with numbers `numbers`, or None if there is no default."""
        return None

    def mirrored(self, values: Any) -> Any:
        """Return a batch of values for images that are mirrored left to right.

        A value that is an image, (height, width, channels), is mirrored too. Numbers and vectors do not change. Values
        of other shapes raise InputError: override this method for them.
        """

        def turn(leaf: np.ndarray) -> np.ndarray:
            if leaf.ndim == 4:
                return leaf[:, :, ::-1]
            if leaf.ndim < 3:
                return leaf
            raise InputError(
                f"data.flip is True, but a condition has values of shape {leaf.shape[1:]}, which is not an image: use "
                f"data.flip=False, or define {type(self).__name__}.mirrored."
            )

        return jax.tree.map(turn, values)

    def check(self, name: str, value: Any) -> None:
        """Raise InputError for invalid values, here NaN and infinity; all values are on the host in the right shape."""
        for leaf in jax.tree.leaves(value):
            if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                raise InputError(f"cond[{name!r}] contains NaN or infinity; expected finite values.")


@dataclasses.dataclass(frozen=True)
class Label(Condition):
    """`Label` declares a class: a whole number from 0 to classes - 1.

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
        """Return the classes in turn: sample number i has class i modulo the number of classes."""
        return (np.asarray(numbers) % self.classes).astype(self.dtype)

    def check(self, name: str, value: Any) -> None:
        outside = value[(value < 0) | (value >= self.classes)]
        if outside.size:
            raise InputError(
                f"cond[{name!r}] contains {outside.flat[0]}; expected classes from 0 to {self.classes - 1} (to omit "
                f"the class, set cond['absent'][{name!r}])."
            )


@dataclasses.dataclass(frozen=True)
class Text(Condition):
    """`Text` declares text as UTF-8 bytes: {'tokens': int32 (batch, length), 'mask': bool (batch, length)}.

    Attributes:
        length: number of bytes that are kept; longer text is cut.
    """

    length: int

    is_text: ClassVar[bool] = True

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
    """`Conditions` is an immutable dictionary of declarations by name, so that a network that holds it is hashable."""

    def __init__(self, declared: Mapping[str, Condition] | None = None, /, **more: Condition) -> None:
        if not (declared is None or isinstance(declared, Mapping)):
            raise InputError(f"conditions are {shown(declared)}; expected a dictionary, such as dict(label=Label(10)).")
        merged = dict(declared or {}, **more)
        for name, condition in merged.items():
            is_name = isinstance(name, str) and name.isidentifier() and name != ABSENT
            if not isinstance(condition, Condition) or not is_name:
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
        """Return the names of the conditions that may be absent."""
        return tuple(name for name, condition in self._items if not condition.required)

    def only(self, names: Iterable[str]) -> Conditions:
        """Return the declarations of the given names."""
        wanted = set(names)
        return Conditions({name: condition for name, condition in self._items if name in wanted})


def is_absent(cond: Cond, name: str, batch: int) -> Array:
    """Return which examples have no value of a condition: bool (batch,)."""
    if cond is None or name not in cond:
        return jnp.ones(batch, bool)
    listed = (cond.get(ABSENT) or {}).get(name)
    return jnp.zeros(batch, bool) if listed is None else listed


def without(cond: Cond, names: Iterable[str]) -> Cond:
    """Return `cond` without the entries of the given names, which are then absent for all examples."""
    if cond is None:
        return None
    left_out = set(names)
    kept = {name: value for name, value in cond.items() if name not in left_out and name != ABSENT}
    absent = {name: flags for name, flags in (cond.get(ABSENT) or {}).items() if name in kept}
    return (kept | ({ABSENT: absent} if absent else {})) or None


def only(cond: Cond, names: Iterable[str]) -> Cond:
    """Return `cond` with only the entries of the given names."""
    wanted = set(names)
    return without(cond, [name for name in cond or {} if name not in wanted])
