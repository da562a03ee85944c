"""This module defines the rules that draw the times of training.

A rule maps u, uniform on [0, 1), to a time and the factor that importance sampling puts on its loss (1 for
most rules), each in the shape of u. All rules are quantile functions, so all can be stratified: u = (i + v) / n
for example i of n spreads a batch's times evenly. An `Adaptive` rule also has a state, which the losses change.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.checks import check_types, require_whole
from score_sde.core.errors import InputError
from score_sde.sde import SDE

Times = Callable[[SDE, Array], tuple[Array, Array]]
_LAST = 1.0 - 2.0**-24  # the largest float32 number below 1


class TimeSampling(abc.ABC):
    """A `TimeSampling` is a rule of times with settings; a config names a class of the user by its dotted path."""

    @abc.abstractmethod
    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        """Return a time and the factor of its loss, both in the shape of u, for u uniform on [0, 1)."""


class Adaptive(TimeSampling):
    """An `Adaptive` rule has a state that follows the losses: a part of the objective's state, kept in checkpoints.

    `__call__` is the rule without a state, for held-out losses.
    """

    @abc.abstractmethod
    def start(self, sde: SDE) -> Any:
        """Return the state before the first step, a pytree of arrays."""

    @abc.abstractmethod
    def drawn(self, state: Any, sde: SDE, u: Array) -> tuple[Array, Array]:
        """Return a time and the factor of its loss, both in the shape of u, for u uniform on [0, 1)."""

    @abc.abstractmethod
    def observed(self, state: Any, sde: SDE, t: Array, losses: Array) -> Any:
        """Return the state after the losses of a whole batch at times t, without their factors; both (batch,)."""


def start(rule: Times, sde: SDE) -> Any:
    """Return the first state of a rule; () for a rule without a state."""
    return rule.start(sde) if isinstance(rule, Adaptive) else ()


def drawn(rule: Times, state: Any, sde: SDE, u: Array) -> tuple[Array, Array]:
    """Return the times and the factors of a rule with its state."""
    return rule.drawn(state, sde, u) if isinstance(rule, Adaptive) else rule(sde, u)


def draws(keys: Array, index: Array, batch_size: int | None) -> Array:
    """Return u of each example, uniform on [0, 1), (batch,), from one key per example.

    Args:
        keys: random keys of the examples, shape (batch,).
        index: the place of each example in the whole batch.
        batch_size: size of the whole batch, over which the numbers are spread evenly; None for independent numbers.
    """
    u = keys_.draw(jax.random.uniform, keys, ())
    return u if batch_size is None else jnp.minimum((index % batch_size + u) / batch_size, _LAST)


def uniform(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Return times that are uniform on [t_min, t_max] (Song et al. 2021, Eq. 7)."""
    return sde.t_min + (sde.t_max - sde.t_min) * u, jnp.ones_like(u)


def knots(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Return times of the levels 1..N of a chain, all with equal probability."""
    levels = sde.levels
    if levels is None:
        raise InputError(f"{type(sde).__name__} has no levels: draw times by 'uniform'.")
    return (jnp.minimum(jnp.floor(u * levels), levels - 1) + 1) / levels, jnp.ones_like(u)


def importance(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Return times and factors of importance sampling for the likelihood weighting (Song et al. 2021b, Sec. 5).

    The source is arXiv:2101.09258. The times have density p proportional to g^2 / sigma^2, and the factor is
    1 / (p (t_max - t_min)), so the mean loss is that of uniform times, with a smaller variance. As
    g^2 / sigma^2 = -log_snr', these times are uniform in log-SNR, for any SDE.
    """
    high, low = sde.log_snr(jnp.asarray(sde.t_min, u.dtype)), sde.log_snr(jnp.asarray(sde.t_max, u.dtype))
    t = sde.time_of(high + (low - high) * u)
    rate = sde.diffusion_squared(t) / sde.variance(t)
    return t, (high - low) / ((sde.t_max - sde.t_min) * rate)


@dataclasses.dataclass(frozen=True)
class LogNormal(TimeSampling):
    """`LogNormal` draws times with log(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, Table 1).

    Noise levels outside the range of the SDE give t_min or t_max.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        check_types(self)
        _check_std(self.std)

    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        return sde.time_of(-2 * (self.mean + self.std * _normal(u))), jnp.ones_like(u)


@dataclasses.dataclass(frozen=True)
class LogitNormal(TimeSampling):
    """`LogitNormal` draws times with logit((t - t_min) / (t_max - t_min)) ~ N(mean, std^2).

    The source is Esser et al. 2024, arXiv:2403.03206, Eq. 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        _check_std(self.std)

    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        part = jax.nn.sigmoid(self.mean + self.std * _normal(u))
        return sde.t_min + (sde.t_max - sde.t_min) * part, jnp.ones_like(u)


class History(NamedTuple):
    """`History` holds the last losses at each of n levels.

    Attributes:
        losses: shape (n, history).
        counts: number of losses of each level so far, int32 (n,).
    """

    losses: Array
    counts: Array


@dataclasses.dataclass(frozen=True)
class LossAware(Adaptive):
    """`LossAware` draws a level with a probability proportional to the root mean square of its last losses.

    The source is Nichol & Dhariwal 2021 (arXiv:2102.09672, Eq. 18). With n levels and p mixed with a small uniform
    part, the factor is 1 / (n p), so the mean loss does not change, and its variance is smaller. The levels are drawn
    evenly until each has `history` losses. The state depends on the losses of the whole batch in their order, and not
    on the devices.

    Attributes:
        history: losses that are kept for each level.
        uniform: share of times that are drawn evenly, in (0, 1].
        bins: number of levels if the SDE has none: equal parts of [t_min, t_max], each with uniform times.
    """

    history: int = 10
    uniform: float = 0.001
    bins: int = 100

    def __post_init__(self) -> None:
        check_types(self)
        require_whole("history of LossAware", self.history, 1)
        require_whole("bins of LossAware", self.bins, 1)
        if not 0 < self.uniform <= 1:
            raise InputError(f"uniform of LossAware is {self.uniform!r}; expected a share in (0, 1], such as 0.001.")

    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        return knots(sde, u) if sde.levels is not None else uniform(sde, u)

    def start(self, sde: SDE) -> History:
        return self.empty(sde.levels or self.bins)

    def drawn(self, state: History, sde: SDE, u: Array) -> tuple[Array, Array]:
        level, rest, factor = self.pick(state, u)
        if sde.levels is not None:
            return (level + 1) / sde.levels, factor
        return sde.t_min + (sde.t_max - sde.t_min) * (level + rest) / self.bins, factor

    def observed(self, state: History, sde: SDE, t: Array, losses: Array) -> History:
        if sde.levels is not None:
            level = jnp.round(t * sde.levels).astype(jnp.int32) - 1
        else:
            level = jnp.floor((t - sde.t_min) / (sde.t_max - sde.t_min) * self.bins).astype(jnp.int32)
        return self.push(state, jnp.clip(level, 0, len(state.counts) - 1), losses)

    def empty(self, levels: int) -> History:
        """Return the history of `levels` levels before the first loss."""
        return History(jnp.zeros((levels, self.history)), jnp.zeros(levels, jnp.int32))

    def probabilities(self, state: History) -> Array:
        """Return the probability of each level, (n,)."""
        n = len(state.counts)
        size = jnp.sqrt(jnp.mean(state.losses**2, axis=1))
        total = jnp.sum(size)
        known = jnp.all(state.counts >= self.history) & (total > 0) & jnp.isfinite(total)
        share = jnp.where(known, size / jnp.where(total > 0, total, 1), 1 / n)
        return (1 - self.uniform) * share + self.uniform / n

    def pick(self, state: History, u: Array) -> tuple[Array, Array, Array]:
        """Return (level from 0, rest, factor), each in the shape of u; the rest is uniform on [0, 1) in the level."""
        p = self.probabilities(state)
        ends = jnp.cumsum(p)
        place = u * ends[-1]
        level = jnp.minimum(jnp.searchsorted(ends, place, side="right"), len(p) - 1)
        rest = jnp.clip((place - (ends[level] - p[level])) / p[level], 0, _LAST)
        return level, rest, 1 / (len(p) * p[level])

    def push(self, state: History, level: Array, losses: Array) -> History:
        """Return the history after losses (batch,) at levels (batch,), in the order of the batch."""
        n, kept = state.losses.shape
        same = level[:, None] == level[None, :]
        before = jnp.sum(jnp.tril(same, -1), axis=1)  # earlier losses of the batch at the same level
        after = jnp.sum(jnp.triu(same, 1), axis=1)
        place = (state.counts[level] + before) % kept
        # A level with more than `kept` losses keeps the last ones; the others go to a row that does not exist.
        row = jnp.where(after < kept, level, n)
        written = state.losses.at[row, place].set(losses.astype(state.losses.dtype), mode="drop")
        return History(written, state.counts.at[level].add(1))


def _normal(u: Array) -> Array:
    """Return the normal quantile of u, which is always finite."""
    tiny = jnp.finfo(u.dtype).eps
    return jax.scipy.special.ndtri(jnp.clip(u, tiny, 1 - tiny))


def _check_std(std: float) -> None:
    if not std > 0:
        raise InputError(f"std is {std!r}; expected a positive number.")


__all__ = ["Adaptive", "LogNormal", "LogitNormal", "LossAware", "TimeSampling", "importance", "knots", "uniform"]
