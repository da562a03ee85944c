"""Correctors: Langevin dynamics at one time, and the sampler that alternates a predictor and a corrector."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, per_example_sum
from score_sde.core.checks import check_types, require_whole
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State, evaluations
from score_sde.sde import SDE

NORMS = ("expected", "batch", "sample")


class Corrector(abc.ABC):
    """Brings x nearer to the marginal of its time without leaving that time.

    To add one, subclass and define `correct`. Declare parameters as a frozen dataclass does, so that two correctors
    with the same parameters are equal and share one compiled program.
    """

    def __post_init__(self) -> None:
        """Check the parameters of a dataclass; a subclass with checks of its own calls this first."""
        check_types(self)

    @abc.abstractmethod
    def correct(self, keys: Array, denoiser: Denoiser, x: Array, t: Array, cond: Cond = None) -> tuple[Array, Array]:
        """From x_t to x_t at the same time.

        Args:
            keys: one key per example for all draws of this call, shape (batch,).
            denoiser: what knows how to undo the noise.
            x: x_t, shape (batch, *shape).
            t: time of shape ().
            cond: None, or conditions by name with leading axis batch.

        Returns:
            (x_t, nfe): nfe is the number of network evaluations per example, int32 (batch,).
        """


@dataclasses.dataclass(frozen=True)
class _Langevin(Corrector):
    """x + e score + sqrt(2 e) z with e = 2 rho (snr q)^2, q the size of z over that of the score, `steps` times."""

    snr: float
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require_whole(f"steps of {name}", self.steps, 1)
        if not 0 < self.snr < math.inf:
            raise InputError(f"{name} got snr={self.snr!r}; expected a positive number, such as 0.16.")

    @abc.abstractmethod
    def _ratio(self, sde: SDE, t: Array, z: Array, score: Array) -> Array:
        """q, of shape () or (batch,)."""

    def correct(self, keys: Array, denoiser: Denoiser, x: Array, t: Array, cond: Cond = None) -> tuple[Array, Array]:
        rho = _shrinking(denoiser.sde, t)

        def once(j: Any, x: Array) -> Array:
            z = keys_.normal(keys_.fold(keys, j), x.shape[1:], x.dtype)
            score = denoiser.score(x, t, cond)
            e = 2 * rho * (self.snr * self._ratio(denoiser.sde, t, z, score)) ** 2
            return x + expand(e, x) * score + expand(jnp.sqrt(2 * e), x) * z

        return jax.lax.fori_loop(0, self.steps, once, x), self.steps * evaluations(denoiser, x, t)


def _shrinking(sde: SDE, t: Array) -> Array:
    """rho = r^2 of the forward kernel over one level of a chain, or over a thousandth of the SDE's time; shape ()."""
    width = 1 / sde.levels if sde.levels is not None else (sde.t_max - sde.t_min) / 1000
    r, _ = sde.transition(jnp.maximum(t - width, sde.t_min), t)
    return r**2


@dataclasses.dataclass(frozen=True)
class Langevin(_Langevin):
    """Langevin dynamics towards p_t (Song et al. 2021, Algorithms 4 and 5), for any SDE.

        x <- x + e score(x, t) + sqrt(2 e) z,  e = 2 rho (snr q)^2.

    rho = (alpha_t / alpha_u)^2 with u one level below t on a chain, or (t_max - t_min) / 1000 below it: 1 - beta_i of
    the original's VP, and 1 on VE. q is the size of z over that of the score:

    * 'expected': sigma_t, what it would be were x_0 known. Sample i stays a function of (seed, i), and the law is
      that of p_t as snr goes to 0; on N(0, v I) its variance is v / (1 - e / (2 v)).
    * 'batch': mean |z| over mean |score|, means over the batch, as in the original. A sample then depends on those
      that are drawn beside it.
    * 'sample': |z| / |score| of each sample. The step depends on the state, and the law is another one: on N(0, I_d),
      as snr goes to 0, the density |x|^2 exp(-|x|^2 d / (2 (d + 2))) up to a factor, whose variance is (1 + 2 / d)^2
      (4 in the plane, 1.06 in 64 dimensions).

    Attributes:
        snr: the signal-to-noise ratio r of the paper: 0.16 on CIFAR-10, 0.075 on LSUN.
        steps: Langevin steps a call, one evaluation each.
        norms: 'expected', 'batch' or 'sample'.
    """

    snr: float = 0.16
    steps: int = 1
    norms: str = "expected"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norms not in NORMS:
            raise InputError(f"Langevin got norms={self.norms!r}; expected one of {', '.join(NORMS)}.")

    def _ratio(self, sde: SDE, t: Array, z: Array, score: Array) -> Array:
        if self.norms == "expected":
            return sde.sigma(t)
        size_z, size_score = (jnp.sqrt(per_example_sum(part**2)) for part in (z, score))
        return jnp.mean(size_z) / jnp.mean(size_score) if self.norms == "batch" else size_z / size_score


@dataclasses.dataclass(frozen=True)
class AnnealedLangevin(_Langevin):
    """The Langevin dynamics of noise-conditional score networks (Song & Ermon 2019, arXiv:1907.05600, Algorithm 1).

    The step of Langevin('expected'), e = 2 rho (snr sigma_t)^2, under the name and with the defaults it has there. With
    the papers' epsilon and sigma_1, e = epsilon sigma_t^2 / sigma_1^2, so snr = sqrt(epsilon / 2) / sigma_1: 0.316 for
    the code of NCSN (100 steps a level), 0.176 for NCSNv2 on CIFAR-10 (Song & Ermon 2020, arXiv:2006.09011).

    Attributes:
        snr: the step's size relative to sigma_t.
        steps: Langevin steps a call, one evaluation each.
    """

    snr: float = 0.176
    steps: int = 5

    def _ratio(self, sde: SDE, t: Array, z: Array, score: Array) -> Array:
        return sde.sigma(t)


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """The corrector at t, then the predictor from t to s (Song et al. 2021, Algorithm 1, in the order of their code).

    With no predictor x stays as it is between the times, which is annealed Langevin dynamics: on a chain,
    PredictorCorrector(None, AnnealedLangevin(0.316, 100)) over the levels N, ..., 1, 0 is NCSN's, whose samples keep
    the noise of level 1. Any sampler will do as predictor, with its own state.

    Attributes:
        predictor: a sampler, or None.
        corrector: a corrector, or None.
    """

    predictor: Sampler | None
    corrector: Corrector | None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, part, kind in (("predictor", self.predictor, Sampler), ("corrector", self.corrector, Corrector)):
            if not (part is None or isinstance(part, kind)):
                raise InputError(f"PredictorCorrector got {name}={part!r}; expected a {kind.__name__}, or None.")
        if self.predictor is None and self.corrector is None:
            raise InputError("PredictorCorrector got neither predictor nor corrector; expected at least one of them.")

    def init(self, x: Array) -> State:
        return () if self.predictor is None else self.predictor.init(x)

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        if self.predictor is not None:
            self.predictor.check(sde, grid)

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        nfe = evaluations(denoiser, x)
        if self.corrector is not None:
            x, nfe = self.corrector.correct(keys_.fold(keys, 1), denoiser, x, t, cond)
        if self.predictor is None:
            return x, state, nfe
        x, state, used = self.predictor.step(keys_.fold(keys, 0), denoiser, x, t, s, state, cond)
        return x, state, nfe + used
