"""This module defines classifier-free guidance, with negative conditions and with several conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_float, is_concrete
from score_sde.core.checks import is_number, shown
from score_sde.core.conditions import ABSENT, Cond, Condition, Conditions, is_absent, only
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser
from score_sde.denoisers.guidance.mixing import Interval, Mixing, Pair, as_interval, mix
from score_sde.denoisers.prediction import Prediction

_ONE = ""  # the name of the only term, which has all conditions


class ClassifierFree(Mixing):
    """`ClassifierFree` applies classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, Eq. 6).

    Each prediction (x_0 and noise) is (1 - weight) unconditional + weight conditional. Weight 0 ignores the condition,
    weight 1 gives the conditional denoiser, and a weight above 1 exaggerates the condition. (The paper's w is
    weight - 1.) With several weights, the prediction is u + sum_i weight_i (c_i - u), where c_i has only the condition
    i of those that u lacks (Liu et al. 2022, arXiv:2206.01714). The variance is that of the conditional prediction.

    The denoiser must also predict without the condition: train the denoiser with conditions omitted at random
    (data.drop). All predictions are computed as one batch. One prediction costs two predictions of the denoiser (with n
    weights n + 1), and one where the weight is the number 1 or the noise level is outside the interval: there the
    prediction has all conditions. With `instead` no prediction has all conditions, and outside the interval each weight
    is 1.

    The law of guided samples is not p(x) p(c | x)^weight unless the weight is 0 or 1.

    Args:
        denoiser: a denoiser that reads a condition.
        weight: one number; or the name of a condition of the guide with one weight per example; or {name: such a
            weight} for several conditions, which are names of `drop` or of `instead`.
        interval: (lo, hi), the noise levels lo < sigma / alpha <= hi where the guide acts; None for all levels.
        drop: names that are absent in the unconditional prediction; None for all optional conditions of the denoiser.
        negative: the name of a condition of the guide, whose value takes the place of the dropped condition in the
            unconditional prediction; an example without this value keeps the condition absent.
        instead: {name: a name of `drop`}: a condition of the guide with this name is given to the denoiser as the
            dropped condition, so that two classes or two texts can each have a weight.
    """

    weight: Any
    interval: Interval = eqx.field(static=True)
    drop: tuple[str, ...] | None = eqx.field(static=True)
    negative: str | None = eqx.field(static=True)
    instead: tuple[tuple[str, str], ...] = eqx.field(static=True)

    def __init__(
        self,
        denoiser: Denoiser,
        weight: ArrayLike | str | Mapping[str, Any],
        *,
        interval: Sequence[float] | None = None,
        drop: Sequence[str] | None = None,
        negative: str | None = None,
        instead: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(denoiser)
        if not (drop is None or isinstance(drop, list | tuple)):
            raise InputError(f"drop of ClassifierFree is {shown(drop)}; expected names of conditions, or None.")
        self.drop = None if drop is None else tuple(drop)
        self.interval = as_interval("ClassifierFree", interval)
        _check_dropped(self.drop, denoiser.reads.optional)
        if not (
            instead is None or (isinstance(instead, Mapping) and all(map(_is_name, [*instead, *instead.values()])))
        ):
            raise InputError(
                f"instead of ClassifierFree is {shown(instead)}; expected {{own name: name of a dropped condition}}."
            )
        self.negative, self.instead = negative, tuple(sorted(dict(instead or {}).items()))
        self._check_own()
        self.weight = _as_weights(weight, (*self.dropped, *dict(self.instead)))
        self._check_names()

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return the names that are absent in the unconditional prediction."""
        return self.denoiser.reads.optional if self.drop is None else self.drop

    @property
    def has_one_weight(self) -> bool:
        return not isinstance(self.weight, dict) or len(self.weight) == 1

    @property
    def constant_weight(self) -> Any:
        return None if isinstance(self.weight, dict | str) else self.weight

    @property
    def reads(self) -> Conditions:
        inner = self.denoiser.reads
        own: dict[str, Condition] = {name: inner[of] for name, of in self.instead}
        if self.negative is not None:
            own[self.negative] = inner[self.dropped[0]]
        weights = self.weight.values() if isinstance(self.weight, dict) else (self.weight,)
        own |= {name: Condition(dtype="float64", required=True) for name in weights if isinstance(name, str)}
        return Conditions(dict(inner) | own)

    def good(self, x: Array, t: ArrayLike, cond: Cond, keys: Array | None) -> Prediction:
        if isinstance(self.weight, dict) and self.instead:  # no prediction has all conditions at once
            return mix(self._pair(x, t, cond, keys, dict.fromkeys(self.weight, 1.0)))
        return self.denoiser.predict(x, t, only(cond, self.denoiser.reads), keys=keys)

    def pair(self, x: Array, t: ArrayLike, cond: Cond, keys: Array | None) -> Pair:
        weights = self.weight if isinstance(self.weight, dict) else {_ONE: self.weight}
        return self._pair(x, t, cond, keys, weights)

    def _pair(self, x: Array, t: ArrayLike, cond: Cond, keys: Array | None, weights: Mapping[str, Any]) -> Pair:
        """Return (sum of the weighted differences as a good prediction of weight 1, unconditional prediction)."""
        batch = len(x)
        rows = [self._unconditional(cond, batch), *(self._only(name, cond, batch) for name in weights)]
        bad, *parts = _together(self.denoiser, x, t, rows, keys)
        values = [jnp.asarray((cond or {})[w] if isinstance(w, str) else w) for w in weights.values()]
        if len(parts) == 1:
            return Pair(parts[0], bad, values[0])
        total = mix(Pair(parts[0], bad, values[0]))
        for part, value in zip(parts[1:], values[1:], strict=True):
            more = mix(Pair(part, bad, value))
            total = Prediction(total.x0 + more.x0 - bad.x0, total.noise + more.noise - bad.noise, total.variance)
        return Pair(total, bad, jnp.asarray(1.0, x.dtype))

    def cost(self, count: Callable[[Denoiser], Array]) -> tuple[Array, Array]:
        one = count(self.denoiser)
        pair = (len(self.weight) + 1 if isinstance(self.weight, dict) else 2) * one
        return pair, pair if isinstance(self.weight, dict) and self.instead else one

    def _unconditional(self, cond: Cond, batch: int) -> Cond:
        """Return the conditions in which the dropped names are absent, or have the negative value."""
        stands = {} if self.negative is None else {self.dropped[0]: self.negative}
        return self._with(cond, batch, stands, ())

    def _only(self, name: str, cond: Cond, batch: int) -> Cond:
        """Return the conditions of one term: all (_ONE), or only one of the dropped names."""
        if name == _ONE:
            return self._with(cond, batch, {}, self.dropped)
        of = dict(self.instead).get(name, name)
        return self._with(cond, batch, {of: name}, ())

    def _with(self, cond: Cond, batch: int, stands: Mapping[str, str], kept: Sequence[str]) -> Cond:
        """Return the denoiser's conditions, in one structure for all terms; `stands` is {name: name of its value}."""
        given = only(cond, self.denoiser.reads)
        result: dict[str, Any] = {name: value for name, value in (given or {}).items() if name != ABSENT}
        absent = dict((given or {}).get(ABSENT) or {})
        for name in self.dropped:
            source = stands.get(name, name)
            flags = is_absent(cond, source, batch)
            if name not in kept and name not in stands:
                flags = jnp.ones(batch, bool)
            value = (cond or {}).get(source, result.get(name))
            value = self._anything(name, cond) if value is None else value
            if value is not None:
                result[name], absent[name] = value, flags
        return (result | ({ABSENT: absent} if absent else {})) or None

    def _anything(self, name: str, cond: Cond) -> Any:
        """Return a value of a name that `cond` lacks, from a condition that stands for it; it is marked as absent."""
        stand_ins = [own for own, of in self.instead if of == name]
        stand_ins += [self.negative] if self.negative is not None and name == self.dropped[0] else []
        return next((cond[own] for own in stand_ins if cond is not None and own in cond), None)

    def _check_own(self) -> None:
        """Raise InputError unless `negative` and `instead` name conditions of the guide's own for dropped names."""
        dropped, read = self.dropped, self.denoiser.reads
        if self.negative is not None and (not _is_name(self.negative) or len(dropped) != 1):
            raise InputError(
                f"negative of ClassifierFree is {shown(self.negative)}, and drop is {', '.join(dropped) or 'empty'}; "
                "expected the name of a condition, and one dropped condition in whose place it stands."
            )
        wrong = [of for _, of in self.instead if of not in dropped]
        if wrong:
            raise InputError(
                f"instead of ClassifierFree names {wrong[0]!r}; expected dropped conditions: {', '.join(dropped)}."
            )
        taken = [own for own in (self.negative, *dict(self.instead)) if own in read]
        if taken:
            raise InputError(
                f"ClassifierFree has a condition {taken[0]!r} of its own, which the denoiser reads too; expected "
                f"another name, such as 'other_{taken[0]}'."
            )

    def _check_names(self) -> None:
        names = self.weight.values() if isinstance(self.weight, dict) else (self.weight,)
        taken = [name for name in names if isinstance(name, str) and name in self.denoiser.reads]
        if taken:
            raise InputError(
                f"weight of ClassifierFree is {taken[0]!r}, a condition of the denoiser; expected a number, or another "
                "name for a condition with one weight per example, such as 'weight'."
            )


def _together(denoiser: Denoiser, x: Array, t: ArrayLike, rows: Sequence[Cond], keys: Array | None) -> list[Prediction]:
    """Return the predictions under several conditions of one structure, computed as one batch."""
    count, batch = len(rows), len(x)

    def repeated(leaf: Any) -> Any:
        return None if leaf is None else jnp.concatenate([leaf] * count)

    times = repeated(jnp.asarray(t)) if jnp.ndim(t) else t
    conditions = jax.tree.map(lambda *leaves: jnp.concatenate([jnp.asarray(leaf) for leaf in leaves]), *rows)
    whole = denoiser.predict(repeated(x), times, conditions, keys=repeated(keys))

    def part(number: int) -> Prediction:
        low = number * batch

        def cut(leaf: Any) -> Any:
            return leaf[low : low + batch] if jnp.ndim(leaf) and len(leaf) == count * batch else leaf

        return jax.tree.map(cut, whole)

    return [part(number) for number in range(count)]


def _check_dropped(drop: tuple[str, ...] | None, optional: tuple[str, ...]) -> None:
    wrong = [name for name in drop or () if name not in optional]
    if wrong or not optional:
        can = ", ".join(optional) or "none"
        raise InputError(
            f"ClassifierFree got drop={drop and list(drop)!r}; expected optional conditions of the denoiser, which "
            f"are: {can}. Train a conditional model (variant 'conditional'), or omit the guidance."
        )


def _as_weights(weight: Any, names: Sequence[str]) -> Any:
    """Return a weight, or the weights by name, with numbers as floats; raise InputError for anything else."""
    if isinstance(weight, Mapping):
        unknown = [name for name in weight if name not in names]
        if unknown or not weight:
            raise InputError(
                f"weight of ClassifierFree is {shown(dict(weight))}; expected a weight for each of some of the names "
                f"{', '.join(names)}."
            )
        return {name: _as_weight(value) for name, value in weight.items()}
    return _as_weight(weight)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier() and value != ABSENT


def _as_weight(weight: Any) -> Any:
    if _is_name(weight):
        return weight
    if not is_number(weight) or (is_concrete(weight) and not np.isfinite(weight)):
        raise InputError(
            f"weight of ClassifierFree is {shown(weight)}; expected one finite number for all examples, or the name of "
            "a condition with one weight per example."
        )
    return as_float(weight)


__all__ = ["ClassifierFree"]
