"""This module defines guides that mix the predictions of a good and a bad denoiser, within an interval of noise."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, as_float, expand, is_concrete, to_time
from score_sde.core.checks import is_number, shown
from score_sde.core.conditions import Cond, Conditions, only
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser, Guide
from score_sde.denoisers.prediction import Prediction
from score_sde.sde import SDE

Interval = tuple[float, float] | None


class Pair(NamedTuple):
    """`Pair` holds the two predictions of a `Mixing` guide, and the weight of the good one, () or (batch,)."""

    good: Prediction
    bad: Prediction
    weight: Array


class Mixing(Guide):
    """`Mixing` is the base class of guides that predict bad + weight (good - bad) in both halves.

    The weights of the two predictions add up to 1, so alpha x_0 + sigma noise = x_t still holds. The good prediction
    alone is returned where the noise level rho = sigma / alpha is outside the interval lo < rho <= hi (Kynkaanniemi et
    al. 2024, arXiv:2404.07724), and where the weight is the number 1; only the good prediction is then evaluated, if t
    has shape (). The variance is that of the good prediction.

    A subclass defines `pair`, `good`, and `evaluations_of`; `Projected` and `Rescaled` wrap any `Mixing`.

    Attributes:
        interval: (lo, hi), noise levels sigma / alpha; None for all levels.
    """

    interval: eqx.AbstractVar[Interval]

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)

    @abc.abstractmethod
    def good(self, x: Array, t: ArrayLike, cond: Cond, keys: Array | None) -> Prediction:
        """Return the good prediction alone."""

    @abc.abstractmethod
    def pair(self, x: Array, t: ArrayLike, cond: Cond, keys: Array | None) -> Pair:
        """Return both predictions, with the weight of the good one."""

    @property
    def has_one_weight(self) -> bool:
        """Return whether there is one good prediction, with one weight."""
        return True

    @property
    def constant_weight(self) -> Any:
        """Return the weight if it is one number for all examples, otherwise None."""
        return None

    def active(self, t: ArrayLike) -> Array:
        """Return where the guide acts: bool in the shape of t."""
        inside = in_interval(self.sde, t, self.interval)
        return inside if self.constant_weight is None else inside & (jnp.asarray(self.constant_weight) != 1)

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        return self.mixed(mix, x, t, cond, keys)

    def mixed(
        self, how: Callable[[Pair], Prediction], x: Array, t: ArrayLike, cond: Cond, keys: Array | None
    ) -> Prediction:
        """Return how(pair) where the guide acts, and the good prediction elsewhere."""
        return where_active(
            self.active(t), lambda: how(self.pair(x, t, cond, keys)), lambda: self.good(x, t, cond, keys)
        )

    @abc.abstractmethod
    def cost(self, count: Callable[[Denoiser], Array]) -> tuple[Array, Array]:
        """Return (cost of `pair`, cost of `good`), where `count` returns the cost of one prediction of a denoiser."""

    def evaluations(self, t: ArrayLike) -> Array:
        return jnp.where(self.active(t), *self.cost(lambda denoiser: denoiser.evaluations(t)))

    def vjps(self, t: ArrayLike) -> Array:
        return jnp.where(self.active(t), *self.cost(lambda denoiser: denoiser.vjps(t)))


class Guided(Mixing):
    """`Guided` predicts bad + weight (good - bad) from two denoisers (autoguidance, Karras et al. 2024).

    The source is arXiv:2406.02507, Eq. 5: the bad denoiser has the task of the good one, and is smaller or trained for
    a shorter time. Both denoisers have the same SDE, and each one receives the conditions that it reads. Weight 0 gives
    the bad denoiser, weight 1 the good one. One prediction costs one of each denoiser, and outside the interval one of
    the good denoiser.

    Args:
        denoiser: the good denoiser.
        bad: the bad denoiser.
        weight: guidance weight, one number.
        interval: (lo, hi), the noise levels lo < sigma / alpha <= hi where the guide acts; None for all levels.
    """

    bad: Denoiser
    weight: Any
    interval: Interval = eqx.field(static=True)

    def __init__(
        self, denoiser: Denoiser, bad: Denoiser, weight: ArrayLike, interval: Sequence[float] | None = None
    ) -> None:
        super().__init__(denoiser)
        if not isinstance(bad, Denoiser):
            raise InputError(f"bad of Guided is {shown(bad)}; expected a denoiser, such as model.denoiser.")
        check_same_sde("bad of Guided", bad.sde, denoiser.sde)
        different = [name for name in bad.reads if denoiser.reads.get(name, bad.reads[name]) != bad.reads[name]]
        if different:
            raise InputError(
                f"bad of Guided reads {different[0]!r} as {bad.reads[different[0]]}; expected the declaration of the "
                f"good denoiser, {denoiser.reads[different[0]]}."
            )
        if None not in (bad.shape, denoiser.shape) and tuple(bad.shape or ()) != tuple(denoiser.shape or ()):
            raise InputError(f"bad of Guided has the shape {bad.shape}; expected {denoiser.shape}, as the good one.")
        self.bad, self.weight = bad, as_weight("Guided", weight)
        self.interval = as_interval("Guided", interval)

    @property
    def constant_weight(self) -> Any:
        return self.weight

    @property
    def reads(self) -> Conditions:
        return Conditions(dict(self.bad.reads) | dict(self.denoiser.reads))

    def good(self, x: Array, t: ArrayLike, cond: Cond, keys: Array | None) -> Prediction:
        return self.denoiser.predict(x, t, only(cond, self.denoiser.reads), keys=keys)

    def pair(self, x: Array, t: ArrayLike, cond: Cond, keys: Array | None) -> Pair:
        bad = self.bad.predict(x, t, only(cond, self.bad.reads), keys=keys)
        return Pair(self.good(x, t, cond, keys), bad, jnp.asarray(self.weight))

    def check_cond(self, cond: Cond) -> None:
        super().check_cond(cond)
        self.bad.check_cond(only(cond, self.bad.reads))

    def cost(self, count: Callable[[Denoiser], Array]) -> tuple[Array, Array]:
        good = count(self.denoiser)
        return good + count(self.bad), good

    def smooth(self) -> Denoiser:
        return eqx.tree_at(lambda guide: guide.bad, super().smooth(), self.bad.smooth())


def mix(pair: Pair) -> Prediction:
    """Return (1 - weight) bad + weight good in both halves, with the variance of the good prediction."""
    good, bad, weight = pair
    w = expand(weight, good.x0)
    return Prediction((1 - w) * bad.x0 + w * good.x0, (1 - w) * bad.noise + w * good.noise, good.variance)


def with_x0(prediction: Prediction, sde: SDE, t: ArrayLike, x0: Array) -> Prediction:
    """Return the prediction with another x_0, and noise' = noise + (alpha / sigma) (x_0 - x_0'), so that x_t stays."""
    t = to_time(t)
    noise = prediction.noise + expand(sde.alpha(t) / sde.sigma(t), x0) * (prediction.x0 - x0)
    return Prediction(x0, noise, prediction.variance)


def where_active(active: Array, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """Return then() where `active` is True and otherwise() elsewhere; only one is evaluated if `active` is one value.

    If the values of `active` are known on the host, the chosen function is called by itself.
    """
    if is_concrete(active):
        known = np.asarray(active)
        if known.all() or not known.any():
            return then() if known.all() else otherwise()
    if jnp.ndim(active) == 0:
        return jax.lax.cond(active, then, otherwise)
    return jax.tree.map(lambda a, b: jnp.where(expand(active, a), a, b), then(), otherwise())


def in_interval(sde: SDE, t: ArrayLike, interval: Interval) -> Array:
    """Return whether lo < sigma / alpha <= hi at times t: bool in the shape of t."""
    t = to_time(t)
    if interval is None:
        return jnp.ones(t.shape, bool)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    low, high = interval
    return (sigma > low * alpha) & ((sigma <= high * alpha) | (high == math.inf))


def as_interval(name: str, interval: Any) -> Interval:
    """Return an interval of noise levels as a pair of floats; raise InputError if it is not one."""
    if interval is None:
        return None
    listed = isinstance(interval, list | tuple) and len(interval) == 2 and all(map(is_number, interval))
    low, high = map(float, interval) if listed else (math.nan, math.nan)
    if not 0 <= low < high:
        raise InputError(
            f"interval of {name} is {shown(interval)}; expected (low, high), noise levels sigma / alpha with "
            "0 <= low < high, such as (0.2, 1.6), or None."
        )
    return low, high


def as_weight(name: str, weight: Any) -> Any:
    """Return a weight as a float; raise InputError if it is not one number."""
    if not is_number(weight) or (is_concrete(weight) and not np.isfinite(weight)):
        raise InputError(f"weight of {name} is {shown(weight)}; expected one finite number for all examples.")
    return as_float(weight)


def check_same_sde(what: str, sde: SDE, expected: SDE) -> None:
    """Raise InputError if two SDEs differ, as far as their parameters are known on the host."""
    if type(sde) is type(expected) and (not is_concrete(sde, expected) or bool(eqx.tree_equal(sde, expected))):
        return
    raise InputError(f"{what} is on {shown(sde)}; expected the SDE of the guided denoiser, {shown(expected)}.")


__all__ = ["Guided", "Mixing"]
