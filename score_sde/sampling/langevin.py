"""This module defines correctors, which use Langevin dynamics at one time, and the predictor-corrector sampler."""

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
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.base import Sampler, State
from score_sde.sampling.checks import own_removed
from score_sde.sampling.counting import evaluations
from score_sde.sde import SDE

NORMS = ("expected", "batch", "sample")


class Corrector(abc.ABC):
    """A corrector moves x at time t closer to the marginal at time t, and keeps the time fixed.

    To add a corrector, subclass `Corrector` and define `correct`. Declare the parameters as fields of a frozen
    dataclass, so that two correctors with the same parameters are equal and share one compiled program.
    """

    def __post_init__(self) -> None:
        """Check the parameters of a dataclass; a subclass with more checks calls this method first."""
        check_types(self)

    @abc.abstractmethod
    def correct(self, keys: Array, denoiser: Denoiser, x: Array, t: Array, cond: Cond = None) -> tuple[Array, Array]:
        """Move x_t towards the marginal at the same time t.

        Args:
            keys: one random key per example for all noise of this call, shape (batch,).
            denoiser: the denoiser, which predicts x_0 and the noise from x_t.
            x: x_t, shape (batch, *shape).
            t: time of shape ().
            cond: None, or conditions by name with leading axis batch.

        Returns:
            (x_t, nfe): nfe is the number of network evaluations per example, int32 (batch,).
        """


@dataclasses.dataclass(frozen=True)
class _Langevin(Corrector):
    """`_Langevin` takes `steps` steps x <- x + e score + sqrt(2 e) z.

    e = 2 rho (snr q)^2, where q is the size of z divided by the size of the score.
    """

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
        """Return q, of shape () or (batch,)."""

    def correct(self, keys: Array, denoiser: Denoiser, x: Array, t: Array, cond: Cond = None) -> tuple[Array, Array]:
        rho = _shrinking(denoiser.sde, t)

        def once(j: Any, x: Array) -> Array:
            z = keys_.normal(keys_.fold(keys, j), x.shape[1:], x.dtype)
            score = denoiser.score(x, t, cond)
            e = 2 * rho * (self.snr * self._ratio(denoiser.sde, t, z, score)) ** 2
            return x + expand(e, x) * score + expand(jnp.sqrt(2 * e), x) * z

        return jax.lax.fori_loop(0, self.steps, once, x), self.steps * evaluations(denoiser, x, t)


def _shrinking(sde: SDE, t: Array) -> Array:
    """Return rho = r^2 of the forward kernel over one level of a chain, or over 1/1000 of the time range; shape ()."""
    width = 1 / sde.levels if sde.levels is not None else (sde.t_max - sde.t_min) / 1000
    r, _ = sde.transition(jnp.maximum(t - width, sde.t_min), t)
    return r**2


@dataclasses.dataclass(frozen=True)
class Langevin(_Langevin):
    """`Langevin` applies Langevin dynamics towards p_t (Song et al. 2021, Algorithms 4 and 5), for any SDE.

        x <- x + e score(x, t) + sqrt(2 e) z,  e = 2 rho (snr q)^2.

    rho = (alpha_t / alpha_u)^2, where u is one level below t on a chain, and (t_max - t_min) / 1000 below t otherwise.
    This is 1 - beta_i of the paper's code on VP, and 1 on VE. q is the size of z divided by the size of the score:

    * 'expected': sigma_t, which is this ratio if x_0 is known. Sample i is still a function of (seed, i). As snr goes
      to 0, the distribution converges to p_t. On N(0, v I) the variance is v / (1 - e / (2 v)).
    * 'batch': mean |z| divided by mean |score|, with means over the batch, as in the paper's code. A sample then
      depends on the other samples of the batch.
    * 'sample': |z| / |score| of each sample. The step depends on x, and the distribution is not p_t. On N(0, I_d), as
      snr goes to 0, the density is proportional to |x|^2 exp(-|x|^2 d / (2 (d + 2))), with variance (1 + 2 / d)^2
      (4 in the plane, 1.06 in 64 dimensions).

    Attributes:
        snr: the signal-to-noise ratio r of the paper: 0.16 on CIFAR-10, 0.075 on LSUN.
        steps: the number of Langevin steps in a call, with one evaluation each.
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
    """`AnnealedLangevin` is the Langevin dynamics of NCSN (Song & Ermon 2019, arXiv:1907.05600, Algorithm 1).

    NCSN are noise-conditional score networks. The step, e = 2 rho (snr sigma_t)^2, is that of
    Langevin(norms='expected'); the name and the defaults are those of the NCSN papers. With epsilon and sigma_1 of the
    papers, e = epsilon sigma_t^2 / sigma_1^2, so snr = sqrt(epsilon / 2) / sigma_1. This is 0.316 for the code of NCSN
    (100 steps per level), and 0.176 for NCSNv2 on CIFAR-10 (Song & Ermon 2020, arXiv:2006.09011).

    Attributes:
        snr: the size of a step relative to sigma_t.
        steps: the number of Langevin steps in a call, with one evaluation each.
    """

    snr: float = 0.176
    steps: int = 5

    def _ratio(self, sde: SDE, t: Array, z: Array, score: Array) -> Array:
        return sde.sigma(t)


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """`PredictorCorrector` applies the corrector at t, then the predictor from t to s (Song et al. 2021, Algorithm 1).

    The order is that of the paper's code. Without a predictor, x does not change between the times, which is annealed
    Langevin dynamics. For example, PredictorCorrector(None, AnnealedLangevin(0.316, 100)) on the levels N, ..., 1, 0 of
    a chain is the sampler of NCSN, whose samples keep the noise of level 1. The predictor may be any sampler, with its
    own state.

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

    @property
    def takes_temperature(self) -> bool:
        return self.predictor is None or self.predictor.takes_temperature

    @property
    def chooses_steps(self) -> bool:
        return self.predictor is not None and self.predictor.chooses_steps

    @property
    def computes_vjps(self) -> bool:
        return self.predictor is not None and self.predictor.computes_vjps

    def reads(self, shape: tuple[int, ...]) -> Conditions:
        return Conditions() if self.predictor is None else self.predictor.reads(shape)

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
            inner = own_removed(denoiser, self.reads(x.shape[1:]), cond)
            x, nfe = self.corrector.correct(keys_.fold(keys, 1), denoiser, x, t, inner)
        if self.predictor is None:
            return x, state, nfe
        x, state, used = self.predictor.step(keys_.fold(keys, 0), denoiser, x, t, s, state, cond)
        return x, state, nfe + used

    def finish(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, state: State, cond: Cond, denoise: bool
    ) -> tuple[Array, Array]:
        end = super().finish if self.predictor is None else self.predictor.finish
        return end(keys, denoiser, x, t, state, cond, denoise)
