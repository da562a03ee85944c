"""This module computes conditions from examples, and drops conditions at random in training."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.checks import shown
from score_sde.core.conditions import ABSENT, Cond, Condition, Conditions, is_absent
from score_sde.core.errors import InputError


class ComputedCondition(abc.ABC):
    """A computed condition is derived from an example, such as a low-resolution copy with noise.

    To add a computed condition, define a subclass with `conditions` and `make`; a config names the subclass in
    data.conditions. Declare settings as in a frozen dataclass.

    Attributes:
        needs: names of the data set's conditions that `make` reads.
    """

    needs: tuple[str, ...] = ()

    @property
    @abc.abstractmethod
    def conditions(self) -> Mapping[str, Condition]:
        """Return the conditions that `make` adds, by name."""

    @abc.abstractmethod
    def make(self, values: Array, cond: Cond, keys: Array) -> Cond:
        """Return `cond` with the computed conditions; `make` is called inside jit.

        Args:
            values: values on the data's scale, (batch, *shape).
            cond: conditions that are already known; None if there are none.
            keys: one random key per example, (batch,).
        """

    def augmented(self, values: Array, cond: Cond, keys: Array) -> tuple[Array, Cond]:
        """Return values and conditions for training; override to change values. Other uses call `make` alone."""
        return values, self.make(values, cond, keys)


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """`Conditioning` processes the conditions of a batch before an objective or an evaluation reads them.

    Attributes:
        reads: conditions that are kept; others are omitted.
        computed: computed conditions, in the order in which they are computed.
        drop: pairs (name, probability) of conditions that training drops at random, independently of each other.
    """

    reads: Conditions = Conditions()  # noqa: RUF009 (immutable)
    computed: tuple[ComputedCondition, ...] = ()
    drop: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.drop, tuple) or not all(isinstance(p, tuple) and len(p) == 2 for p in self.drop):
            raise InputError(f"drop of Conditioning is {shown(self.drop)}; expected pairs (name, probability).")
        for name, probability in self.drop:
            if name not in self.reads:
                known = ", ".join(self.reads) or "none"
                raise InputError(f"data.drop names {name!r}, which the model does not read; it reads: {known}.")
            if not (isinstance(probability, int | float) and 0 <= probability <= 1):
                raise InputError(f"data.drop.{name} is {probability!r}; expected a probability.")
            if probability > 0 and self.reads[name].required:
                raise InputError(f"data.drop.{name} is {probability}, and the model requires {name!r}: use 0.")

    def __call__(self, values: Array, cond: Cond, keys: Array, *, train: bool) -> tuple[Array, Cond]:
        """Return the values and the condition of each example; keys have shape (batch,)."""
        for place, condition in enumerate(self.computed):
            mine = keys_.fold(keys_.fold(keys, "condition"), place)
            if train:
                values, cond = condition.augmented(values, cond, mine)
            else:
                cond = condition.make(values, cond, mine)
            missing = [name for name in condition.conditions if name not in (cond or {})]
            if missing:
                raise InputError(
                    f"{type(condition).__name__}.make returns {', '.join(cond or {}) or 'nothing'}; expected also "
                    f"{missing[0]!r}, which its property `conditions` declares."
                )
        given = {name: value for name, value in (cond or {}).items() if name in self.reads}
        absent = dict((cond or {}).get(ABSENT) or {})
        for name, probability in self.drop if train else ():
            if name in given and probability > 0:
                drawn = keys_.draw(
                    jax.random.bernoulli, keys_.fold(keys_.fold(keys, "drop"), keys_.number(name)), (), p=probability
                )
                absent[name] = jnp.logical_or(is_absent(cond, name, len(values)), drawn)
        absent = {name: flags for name, flags in absent.items() if name in given}
        return values, (given | ({ABSENT: absent} if absent else {})) or None
