"""From an example to what its prediction is conditioned on: computed conditions, and leaving out at random."""

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
    """Conditions that are computed from an example, such as a low-resolution copy with noise.

    To add one, subclass and define `conditions` and `make`; a config names it in data.conditions. Declare settings as a
    frozen dataclass does.

    Attributes:
        needs: the data set's conditions that `make` reads.
    """

    needs: tuple[str, ...] = ()

    @property
    @abc.abstractmethod
    def conditions(self) -> Mapping[str, Condition]:
        """What `make` adds, by name."""

    @abc.abstractmethod
    def make(self, values: Array, cond: Cond, keys: Array) -> Cond:
        """`cond` with the computed conditions; called inside jit.

        Args:
            values: on the data's own scale, (batch, *shape).
            cond: what is known already; None where nothing is.
            keys: one key per example, (batch,).
        """

    def augmented(self, values: Array, cond: Cond, keys: Array) -> tuple[Array, Cond]:
        """The values and the conditions of training, where `make` is of all else; override it to change the values."""
        return values, self.make(values, cond, keys)


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What is done with the conditions of a batch before an objective or an evaluation sees them.

    Attributes:
        reads: the conditions that are wanted; others are left out.
        computed: what is computed, in order.
        drop: (name, probability) of the conditions that training leaves out at random, each by itself.
    """

    reads: Conditions = Conditions()  # noqa: RUF009 (it cannot be changed)
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
        """The values and the condition of each example; keys of shape (batch,)."""
        for place, condition in enumerate(self.computed):
            mine = keys_.fold(keys_.fold(keys, "condition"), place)
            if train:
                values, cond = condition.augmented(values, cond, mine)
            else:
                cond = condition.make(values, cond, mine)
            missing = [name for name in condition.conditions if name not in (cond or {})]
            if missing:
                raise InputError(
                    f"{type(condition).__name__}.make returns no {missing[0]!r}, which it declares; expected "
                    f"it beside {', '.join(cond or {}) or 'nothing'}."
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
