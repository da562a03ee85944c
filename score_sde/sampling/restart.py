"""This module defines `Restart`, which repeats an interval of noise levels with fresh noise (Xu et al. 2023)."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import check_continuous
from score_sde.sampling.deterministic import Heun
from score_sde.sampling.in_noise_level import noise_level
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class Restart(Sampler):
    """`Restart` adds noise from n_min back to n_max, and walks down again, several times (arXiv:2306.14878, Alg. 1).

    Noise levels are n = sigma / alpha. When a step of the sampler ends at or below n_min, at a time s,

        x at n_max = the forward kernel of the SDE from s, with noise times s_noise,
        x_s = `steps` steps of the sampler from n_max to s, even in n^(1/7),

    `repeats` times. The fresh noise contracts the error that the walk made before. Several intervals are a Restart in a
    Restart: Restart(Restart(Heun(), n_min=0.05, n_max=0.3), n_min=1.0, n_max=10.0); the walks down of each take the
    innermost sampler. After the repeats a multistep method begins anew.

    Attributes:
        sampler: the sampler of all steps; the paper uses Heun() for the whole walk.
        n_min, n_max: the interval, 0 < n_min < n_max.
        steps: steps of each walk down, N of the paper minus 1.
        repeats: K of the paper.
        s_noise: factor on the fresh noise; the published settings have 1.003.
    """

    sampler: Sampler = dataclasses.field(default_factory=Heun)
    n_min: float = 0.06
    n_max: float = 0.3
    steps: int = 4
    repeats: int = 1
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.sampler, Sampler):
            raise InputError(f"Restart got sampler={self.sampler!r}; expected a Sampler, such as Heun().")
        if not 0 < self.n_min < self.n_max < math.inf:
            raise InputError(f"Restart got n_min={self.n_min!r} and n_max={self.n_max!r}; expected 0 < n_min < n_max.")
        require_whole("steps of Restart", self.steps, 1)
        require_whole("repeats of Restart", self.repeats, 1)
        if not 0 <= self.s_noise < math.inf:
            raise InputError(f"Restart got s_noise={self.s_noise!r}; expected a number of at least 0, such as 1.")

    @property
    def convergence_order(self) -> float:
        """Return 1: the noise has no order, and the walks down have a fixed number of steps."""
        return 1

    @property
    def takes_temperature(self) -> bool:
        return self.sampler.takes_temperature

    @property
    def chooses_steps(self) -> bool:
        return self.sampler.chooses_steps

    @property
    def computes_vjps(self) -> bool:
        return self.sampler.computes_vjps

    def reads(self, shape: tuple[int, ...]) -> Conditions:
        return self.sampler.reads(shape)

    def check_cond(self, cond: Cond) -> None:
        self.sampler.check_cond(cond)

    def init(self, x: Array) -> State:
        return self.sampler.init(x)

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        check_continuous(self, sde)
        self.sampler.check(sde, grid)
        with jax.enable_x64(True):
            levels = np.exp(-np.asarray(sde.log_snr(np.asarray(grid, np.float64))) / 2)
        if not levels[-1] <= self.n_min < self.n_max <= levels[0]:
            raise InputError(
                f"Restart goes from noise level {self.n_min:g} back to {self.n_max:g}, and the grid has levels sigma / "
                f"alpha from {levels[0]:.4g} to {levels[-1]:.4g}; expected an interval inside them."
            )

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        sde = denoiser.sde
        x, state, nfe = self.sampler.step(keys_.fold(keys, "step"), denoiser, x, t, s, state, cond)
        n_t, n_s = (noise_level(sde, u) for u in (t, s))
        top = sde.time_of(-2 * jnp.log(jnp.asarray(self.n_max, x.dtype)))
        path = self._times(sde, n_s, s)

        def restarted() -> tuple[Array, State, Array]:
            return self._repeat(keys, denoiser, x, top, s, path, nfe, cond)

        lands = (n_s <= self.n_min) & (self.n_min < n_t)
        return jax.lax.cond(lands, restarted, lambda: (x, state, nfe))

    def _times(self, sde: SDE, n_s: Array, s: Array) -> Array:
        """Return the times of a walk down, (steps + 1,), from n_max to s."""
        rho = 7.0
        way = jnp.arange(self.steps + 1) / self.steps
        levels = (self.n_max ** (1 / rho) * (1 - way) + n_s ** (1 / rho) * way) ** rho
        return jnp.concatenate([sde.time_of(-2 * jnp.log(levels[:-1])).astype(s.dtype), s[None]])

    def _repeat(
        self, keys: Array, denoiser: Denoiser, x: Array, top: Array, s: Array, path: Array, nfe: Array, cond: Cond
    ) -> tuple[Array, State, Array]:
        sde, inner = denoiser.sde, self._innermost
        r, v = sde.transition(s, top)
        own = keys_.fold(keys, "restart")

        def once(carry: tuple[Array, State, Array], k: Array) -> tuple[tuple[Array, State, Array], None]:
            x, _, nfe = carry
            keys_k = keys_.fold(own, k)
            z = keys_.normal(keys_.fold(keys_k, 0), x.shape[1:], x.dtype)
            up = expand(r, x) * x + expand(self.s_noise * jnp.sqrt(v), x) * z

            def down(
                carry: tuple[Array, State, Array], at: tuple[Array, ...]
            ) -> tuple[tuple[Array, State, Array], None]:
                x, state, nfe = carry
                x, state, used = inner.step(keys_.fold(keys_k, at[0] + 1), denoiser, x, at[1], at[2], state, cond)
                return (x, state, nfe + used), None

            steps = (jnp.arange(self.steps), path[:-1], path[1:])
            return jax.lax.scan(down, (up, inner.init(x), nfe), steps)[0], None

        (x, _, nfe), _ = jax.lax.scan(once, (x, inner.init(x), nfe), jnp.arange(self.repeats))
        return x, self.sampler.init(x), nfe

    @property
    def _innermost(self) -> Sampler:
        return self.sampler._innermost if isinstance(self.sampler, Restart) else self.sampler

    def finish(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, state: State, cond: Cond, denoise: bool
    ) -> tuple[Array, Array]:
        return self.sampler.finish(keys, denoiser, x, t, state, cond, denoise)
