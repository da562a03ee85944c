"""This module defines `Multistep`, the base of samplers that integrate a polynomial through the last predictions.

The solution of a linear SDE between two times is

    x_s = keep x_t + scale (integral of w(v) D(v) over the step) + std z,

where D is a prediction of the denoiser as a function of a node (log-SNR, or noise level), v is the relative position
of a node in the step, and w is a known function. A multistep method replaces D by the polynomial through the last
predictions and integrates it against w. A corrector repeats the integral of the last step when the prediction at its
end is known, without another evaluation (UniPC, Zhao et al. 2023, arXiv:2302.04867; SA-Solver, Xue et al. 2023,
arXiv:2309.05019).
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax.numpy as jnp

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler
from score_sde.sampling.counting import evaluations
from score_sde.sampling.interpolation import weights
from score_sde.sde import SDE

STARTS = ("joint", "ramp")


class Memory(NamedTuple):
    """`Memory` is what a multistep method remembers.

    Attributes:
        values: the last predictions, (m, *x.shape), the newest first.
        nodes: their nodes, (m,).
        known: how many of them there are, int32 ().
        steps: the number of steps before this one, int32 ().
        added: what the last step added to x by its integral, for the corrector; otherwise ().
        times: the times of the last step, (2,), for the corrector; otherwise ().
        start: the x at which the walk started, and its time, for a joint start; otherwise ().
    """

    values: Array
    nodes: Array
    known: Array
    steps: Array
    added: Any
    times: Any
    start: Any


class Step(NamedTuple):
    """`Step` has the functions of a step from t to s.

    Attributes:
        first, last: the nodes between which the integral runs.
        keep: the factor on x_t.
        scale: the factor on the integral.
        std: standard deviation of fresh noise; None if the method draws none.
    """

    first: Array
    last: Array
    keep: Array
    scale: Array
    std: Array | None


class Multistep(Sampler):
    """`Multistep` is the base of methods of one evaluation for each step.

    A subclass defines `node`, `prediction`, `between` and `moments`. The first steps have fewer predictions.

    Attributes:
        order: number of predictions that a step uses.
        corrector: number of earlier predictions that a corrector uses besides the one at the end of the step; 0 for no
            corrector.
        start: 'ramp' begins with methods of order 1, 2, ..., as published: the first step limits the order to 2.
            'joint' computes each of the first order - 1 steps again from the start of the walk, as the stages of one
            Runge-Kutta step, with as many evaluations; then the first steps do not limit the order. Where a walk
            starts at alpha = 0, both are equal.
    """

    order: int
    corrector: int = 0
    start: str = "ramp"

    def _check_start(self) -> None:
        if self.start not in STARTS:
            raise InputError(f"{type(self).__name__} got start={self.start!r}; expected one of {', '.join(STARTS)}.")

    @abc.abstractmethod
    def node(self, sde: SDE, t: Array) -> Array:
        """Return the variable in which predictions are interpolated, at a time of shape ()."""

    @abc.abstractmethod
    def prediction(self, denoiser: Denoiser, x: Array, t: Array, cond: Cond) -> Array:
        """Return the prediction that is interpolated."""

    @abc.abstractmethod
    def between(self, sde: SDE, t: Array, s: Array) -> Step:
        """Return the functions of the step from t to s."""

    @abc.abstractmethod
    def moments(self, sde: SDE, t: Array, s: Array, number: int) -> list[Array]:
        """Return the moments of w(v) for a polynomial through `number` predictions."""

    @property
    def _joint(self) -> bool:
        return self.start == "joint" and self.order > 2

    def init(self, x: Array) -> Memory:
        """Return an empty memory."""
        m, zero = max(self.order - 1, self.corrector), jnp.zeros((), jnp.int32)
        return Memory(
            values=jnp.zeros((m, *x.shape), x.dtype),
            nodes=jnp.zeros(m, x.dtype),
            known=zero,
            steps=zero,
            added=jnp.zeros_like(x) if self.corrector else (),
            times=jnp.zeros(2, x.dtype) if self.corrector else (),
            start=(jnp.zeros_like(x), jnp.zeros((), x.dtype)) if self._joint else (),
        )

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: Memory, cond: Cond = None
    ) -> tuple[Array, Memory, Array]:
        value = self.prediction(denoiser, x, t, cond)
        x, std, memory = self.advance(denoiser.sde, x, value, t, s, state)
        if std is not None:
            x = x + expand(std.astype(x.dtype), x) * keys_.normal(keys, x.shape[1:], x.dtype)
        return x, memory, evaluations(denoiser, x, t)

    def advance(
        self, sde: SDE, x: Array, value: Array, t: Array, s: Array, state: Memory
    ) -> tuple[Array, Array | None, Memory]:
        """Return (x_s without noise, standard deviation of the noise or None, memory) from the prediction at x_t."""
        if self.corrector:
            x = self._corrected(sde, x, value, state)
        values = jnp.concatenate([value[None], state.values])
        nodes = jnp.concatenate([self.node(sde, t).astype(x.dtype)[None], state.nodes])
        known = state.known + 1
        begin, x_begin, start = t, x, state.start
        if start:
            begin, x_begin, start = self._beginning(sde, x, t, start, state.steps)
            values, nodes, known = self._without_second(values, nodes, known, state.steps)
        step = self.between(sde, begin, s)
        added = self._integral(sde, step, begin, s, values[: self.order], nodes[: self.order], known)
        x_s = expand(step.keep.astype(x.dtype), x) * x_begin + added
        m = len(state.nodes)
        memory = Memory(
            values=values[:m],
            nodes=nodes[:m],
            known=jnp.minimum(known, m),
            steps=state.steps + 1,
            added=added if self.corrector else (),
            times=jnp.stack([t, s]).astype(x.dtype) if self.corrector else (),
            start=start,
        )
        return x_s, step.std, memory

    def _integral(self, sde: SDE, step: Step, t: Array, s: Array, values: Array, nodes: Array, usable: Array) -> Array:
        """Return scale times the integral of the polynomial through the first usable values, of order 1 at an end.

        At alpha = 0 or sigma = 0 a node is infinite, and the polynomial is the constant through the first value.
        """
        positions = (nodes - step.first) / (step.last - step.first)
        finite = jnp.isfinite(step.last - step.first) & jnp.isfinite(nodes)
        usable = jnp.clip(jnp.minimum(usable, jnp.sum(jnp.cumprod(finite.astype(jnp.int32)))), 1, len(nodes))
        by = weights(positions, usable, lambda number: self.moments(sde, t, s, number)).astype(values.dtype)
        return jnp.tensordot(step.scale.astype(values.dtype) * by, values, 1)

    def _corrected(self, sde: SDE, x: Array, value: Array, state: Memory) -> Array:
        """Return x after the integral of the last step is repeated with the prediction at its end."""
        before, t = state.times
        step = self.between(sde, before, t)
        values = jnp.concatenate([value[None], state.values[: self.corrector]])
        nodes = jnp.concatenate([step.last.astype(x.dtype)[None], state.nodes[: self.corrector]])
        known = jnp.minimum(state.known, self.corrector)
        added = self._integral(sde, step, before, t, values, nodes, known + 1)
        possible = (state.steps > 0) & jnp.isfinite(step.last - step.first)
        return jnp.where(possible, x - state.added + added, x)

    def _beginning(
        self, sde: SDE, x: Array, t: Array, start: tuple[Array, Array], steps: Array
    ) -> tuple[Array, Array, tuple[Array, Array]]:
        """Return (the time from which the step integrates, x there, the start of the walk)."""
        x_0, t_0 = (jnp.where(steps == 0, now, then) for now, then in zip((x, t), start, strict=True))
        again = (steps < self.order - 1) & jnp.isfinite(self.node(sde, t_0))
        return jnp.where(again, t_0, t), jnp.where(again, x_0, x), (x_0, t_0.astype(x.dtype))

    def _without_second(self, values: Array, nodes: Array, known: Array, steps: Array) -> tuple[Array, Array, Array]:
        """Return the memory without the second prediction of the walk, in the third step of a joint start.

        The second prediction is made at an x of order 1, and the third at an x of order 2. On a grid of smooth steps
        the first and the third, at 0 and 2/3 of three steps, have the nodes of Radau's quadrature, which integrates
        polynomials of degree 2. Then the three steps are Heun's Runge-Kutta method of order 3.
        """
        if self.order < 4:
            return values, nodes, known
        third = steps == 2
        values = jnp.where(third, jnp.concatenate([values[:1], values[2:], values[-1:]]), values)
        nodes = jnp.where(third, jnp.concatenate([nodes[:1], nodes[2:], nodes[-1:]]), nodes)
        return values, nodes, known - third.astype(known.dtype)
