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

from score_sde.core.arrays import Array
from score_sde.core.checks import as_shape, is_whole, shown
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
        object.__setattr__(self, "shape", as_shape(f"shape of {type(self).__name__}", self.shape))

    def like(self, batch: int) -> Any:
        """The shapes and dtypes of a batch of values: a jax.ShapeDtypeStruct, or a dictionary of them."""
        return jax.ShapeDtypeStruct((batch, *self.shape), np.dtype(self.dtype))

    def parse(self, value: Any) -> Any:
        """One example's value from what a person writes, such as a number or text; raises InputError."""
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            array = np.asarray(None)
        cast = array.astype(self.dtype) if array.shape == self.shape and array.dtype.kind in "biuf" else None
        if cast is None or (cast.dtype.kind != "f" and not np.array_equal(cast, array)):
            raise InputError(f"a condition is {value!r}; expected {self.dtype} of shape {self.shape}.")
        return cast

    def is_one(self, value: Any) -> bool:
        """Whether what a person writes is one example's value, and not a list of them."""
        try:
            return np.ndim(value) <= len(self.shape)
        except ValueError:  # lists of several lengths are several values
            return False

    def default(self, numbers: np.ndarray) -> Any:
        """The values of samples number `numbers` where nobody gives any; None where there is no default."""
        return None

    def mirrored(self, values: Any) -> Any:
        """A batch of values of images that are mirrored left to right.

        An image, (height, width, channels), is mirrored too; numbers and vectors stay. Override it for what is neither.
        """

        def turn(leaf: np.ndarray) -> np.ndarray:
            if leaf.ndim == 4:
                return leaf[:, :, ::-1]
            if leaf.ndim < 3:
                return leaf
            raise InputError(
                f"data.flip is True, and a condition has values of shape {leaf.shape[1:]}, which is no image: use "
                f"data.flip=False, or define {type(self).__name__}.mirrored."
            )

        return jax.tree.map(turn, values)

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
