"""This module defines multistep methods that solve the linear part of the reverse process exactly, in log-SNR.

With lambda = log(alpha / sigma), h = lambda_s - lambda_t > 0, z = (1 + tau^2) h and D = E[x_0 | x],

    x_s = (sigma_s / sigma_t) e^(-tau^2 h) x_t + alpha_s (integral over [0, 1] of z e^(z (v - 1)) D dv)
          + sigma_s sqrt(1 - e^(-2 tau^2 h)) noise,

where v is the relative position in lambda. tau = 0 is the probability-flow ODE (Lu et al. 2022, arXiv:2211.01095,
Eq. 9), and tau = 1 is the reverse-time SDE (Xue et al. 2023, arXiv:2309.05019, Eq. 11). The methods differ in the D
that they integrate. All are defined at alpha = 0, from where the first two steps are of order 1, and for a step to
sigma = 0, which is of order 1.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.sampling.in_noise_level import noise_level
from score_sde.sampling.interpolation import exponential_moments
from score_sde.sampling.multistep import Multistep, Step
from score_sde.sde import SDE

RULES = ("midpoint", "exact", "published")


class _Exponential(Multistep):
    """`_Exponential` is the base of multistep methods in log-SNR."""

    def tau_squared(self, sde: SDE, t: Array) -> Array | float:
        """Return tau^2 of a step from t; the float 0 if the method never draws noise."""
        return 0.0

    def node(self, sde: SDE, t: Array) -> Array:
        return sde.log_snr(t) / 2

    def prediction(self, denoiser: Denoiser, x: Array, t: Array, cond: Cond) -> Array:
        return denoiser.denoise(x, t, cond)

    def between(self, sde: SDE, t: Array, s: Array) -> Step:
        first, last = self.node(sde, t), self.node(sde, s)
        tau2 = self.tau_squared(sde, t)
        keep, std = sde.sigma(s) / sde.sigma(t), None
        if not (isinstance(tau2, float) and tau2 == 0):
            # At alpha = 0 the step h is infinite, and 0 times infinity is not a number.
            passed = jnp.where(jnp.asarray(tau2) > 0, tau2 * (last - first), 0)
            keep, std = keep * jnp.exp(-passed), sde.sigma(s) * jnp.sqrt(-jnp.expm1(-2 * passed))
        return Step(first, last, keep, sde.alpha(s), std)

    def moments(self, sde: SDE, t: Array, s: Array, number: int) -> list[Array]:
        z = (1 + self.tau_squared(sde, t)) * (self.node(sde, s) - self.node(sde, t))
        return self.rule(z, number)

    def rule(self, z: Array, number: int) -> list[Array]:
        """Return the moments W_k of a polynomial through `number` predictions; a published method may change them."""
        return exponential_moments(z, number)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP(_Exponential):
    """`DPMSolverPP` is the multistep method DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), as an ODE or as an SDE.

    Order 2 is 2M (Algorithm 2), which extrapolates x_0 linearly: x_0 + (h / 2 h_last) (x_0 - x_0_last). Order 3 is 3M.
    With eta = 1 the methods are 2M SDE and 3M SDE of k-diffusion. A step takes one evaluation.

    Attributes:
        order: 1 (DDIM(0) if eta = 0, Ancestral() if eta = 1), 2 or 3.
        eta: tau^2; 0 is the ODE, 1 the reverse-time SDE.
        weights: 'midpoint' is the published rule of two predictions, W_1 = W_0 / 2, with the exact W_k of three;
            'exact' has the exact W_k of two predictions as well ('heun' of 2M SDE); 'published' is 'exact' with half
            of W_2, as in the published code of 3M and 3M SDE, which makes them methods of order 2.
        start: as in `Multistep`; an SDE always begins with 'ramp'.
    """

    order: int = 2
    eta: float = 0.0
    weights: str = "midpoint"
    start: str = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3):
            raise InputError(f"DPMSolverPP got order={self.order!r}; expected 1, 2 or 3.")
        if not 0 <= self.eta < math.inf:
            raise InputError(f"DPMSolverPP got eta={self.eta!r}; expected a number of at least 0, such as 1.")
        if self.weights not in RULES:
            raise InputError(f"DPMSolverPP got weights={self.weights!r}; expected one of {', '.join(RULES)}.")
        self._check_start()

    @property
    def convergence_order(self) -> float:
        """Return the order: at most 2 with the published weights or after a ramp, and 1 as an SDE.

        As an SDE the variance of Gaussian data converges with order 2, if the order is 2 or 3.
        """
        if self.eta > 0:
            return 1
        return min(self.order, 2 if self.weights == "published" or self.start == "ramp" else 3)

    @property
    def _joint(self) -> bool:
        return super()._joint and self.eta == 0

    def tau_squared(self, sde: SDE, t: Array) -> Array | float:
        return self.eta

    def rule(self, z: Array, number: int) -> list[Array]:
        moments = exponential_moments(z, number)
        if self.weights == "midpoint" and number == 2:
            return [moments[0], moments[0] / 2]
        if self.weights == "published" and number == 3:
            return [*moments[:2], moments[2] / 2]
        return moments


@dataclasses.dataclass(frozen=True)
class UniPC(_Exponential):
    """`UniPC` is the predictor-corrector method UniPC-p in x_0 (Zhao et al. 2023, arXiv:2302.04867).

    The predictor UniP-p integrates the polynomial through the last p predictions. When the prediction at the end of a
    step is known, the corrector UniC-p repeats the integral of that step with it, without another evaluation; the last
    step of a walk has no corrector. UniP-2 with B(h) = e^h - 1 is DPMSolverPP(2). A step takes one evaluation.

    Attributes:
        order: p, 1, 2 or 3.
        variant: B(h) of the published rule of two predictions (a_1 = 1/2): 'bh2' is W_1 = W_0 / 2, and 'bh1' is
            W_1 = h / 2. Three and more predictions have the exact weights in both variants.
        corrects: whether there is a corrector; False is UniP-p.
        start: as in `Multistep`, for the predictor.
    """

    order: int = 3
    variant: str = "bh2"
    corrects: bool = True
    start: str = "ramp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3):
            raise InputError(f"UniPC got order={self.order!r}; expected 1, 2 or 3.")
        if self.variant not in ("bh1", "bh2"):
            raise InputError(f"UniPC got variant={self.variant!r}; expected 'bh1' or 'bh2'.")
        self._check_start()
        if self.start == "joint" and self.corrects:
            raise InputError("UniPC got start='joint' with a corrector; expected 'ramp', or corrects=False.")

    @property
    def corrector(self) -> int:  # type: ignore[override]
        """Return the number of earlier predictions that the corrector uses."""
        return self.order if self.corrects else 0

    @property
    def convergence_order(self) -> float:
        """Return p + 1 with the corrector, at most 3; p without; at most 2 after a ramp without a corrector."""
        if self.corrects:
            return min(self.order + 1, 3)
        return min(self.order, 3 if self.start == "joint" else 2)

    def rule(self, z: Array, number: int) -> list[Array]:
        moments = exponential_moments(z, number)
        if number == 2:
            # At alpha = 0 the step is infinite, and the method of one prediction is used.
            moments[1] = z / 2 if self.variant == "bh1" else moments[0] / 2
        return moments


@dataclasses.dataclass(frozen=True)
class SASolver(_Exponential):
    """`SASolver` is the stochastic Adams method of Xue et al. 2023 (arXiv:2309.05019, Algorithm 1).

    The predictor integrates the polynomial through the last `order` predictions along the reverse process with noise
    tau. The corrector repeats the integral of the last step with the prediction at its end and the same noise, without
    another evaluation. SASolver(1, 1) is Ancestral(), and SASolver(order, 0) solves the probability-flow ODE. A step
    takes one evaluation. The method needs steps that are even in log-SNR, more or less.

    Attributes:
        order: 1 to 4.
        tau: the noise; 0 is the ODE and 1 the reverse-time SDE.
        corrector: number of earlier predictions of the corrector, 0 to 4; 0 for no corrector. The paper uses order 3
            with corrector 3 for unguided models, which the paper calls orders 3 and 4.
        s_min, s_max: the noise levels sigma / alpha between which tau applies; elsewhere tau is 0. The paper uses 0.05
            to 1 on pictures.
    """

    order: int = 3
    tau: float = 1.0
    corrector: int = 0
    s_min: float = 0.0
    s_max: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3, 4):
            raise InputError(f"SASolver got order={self.order!r}; expected 1, 2, 3 or 4.")
        if self.corrector not in (0, 1, 2, 3, 4):
            raise InputError(f"SASolver got corrector={self.corrector!r}; expected 0 to 4.")
        if not 0 <= self.tau < math.inf:
            raise InputError(f"SASolver got tau={self.tau!r}; expected a number of at least 0, such as 1.")
        if not 0 <= self.s_min <= self.s_max:
            raise InputError(
                f"SASolver got s_min={self.s_min!r} and s_max={self.s_max!r}; expected 0 <= s_min <= s_max."
            )

    @property
    def convergence_order(self) -> float:
        """Return 1 with noise, where the variance of Gaussian data converges with order 2; otherwise at most 2."""
        if self.tau > 0:
            return 1
        return min(max(self.order, self.corrector + 1 if self.corrector else 0), 2)

    def tau_squared(self, sde: SDE, t: Array) -> Array | float:
        if self.tau == 0 or (self.s_min, self.s_max) == (0, math.inf):
            return float(self.tau**2)
        level = noise_level(sde, t)
        return jnp.where((level >= self.s_min) & (level <= self.s_max), self.tau**2, 0.0)
