"""This module defines guides that change how a `Mixing` guide combines its two predictions."""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, expand, per_example_sum, to_time
from score_sde.core.checks import is_number, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser, Guide
from score_sde.denoisers.guidance.mixing import Mixing, Pair, mix, with_x0
from score_sde.denoisers.prediction import Prediction

HALVES = ("x0", "noise")


class _OfMixing(Guide):
    """`_OfMixing` is the base of guides around a `Mixing` guide, such as ClassifierFree or Guided."""

    denoiser: Mixing

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        if not isinstance(denoiser, Mixing):
            raise InputError(
                f"{type(self).__name__} got a {type(denoiser).__name__}; expected it right after a guide with two "
                "predictions: ClassifierFree or Guided."
            )
        if not denoiser.has_one_weight:
            raise InputError(
                f"{type(self).__name__} got a guide with several weights; expected one weight, for one good prediction."
            )

    def vjps(self, t: ArrayLike) -> Array:
        return self.denoiser.vjps(t)


class Rescaled(_OfMixing):
    """`Rescaled` brings the guided prediction back to the spread of the good one (Lin et al. 2023, Sec. 3.4).

    The source is arXiv:2305.08891, Eq. 15 and 16. With p the guided and c the good prediction of one half,

        p' = p (amount std(c) / std(p) + 1 - amount),

    where std is over all numbers of one example. The other half is adapted, so that alpha x_0 + sigma noise = x_t. The
    paper rescales the network's output, which is v; here `half` names the half that is rescaled. Outside the interval
    of the inner guide, and at weight 1, p is c and does not change. The rescaling is a heuristic.

    Args:
        denoiser: a `Mixing` guide.
        amount: 0 leaves p unchanged, 1 gives p the spread of c; the paper's is 0.7.
        half: 'x0' or 'noise'.
    """

    amount: float = eqx.field(static=True)
    half: str = eqx.field(static=True)

    def __init__(self, denoiser: Denoiser, amount: float = 0.7, half: str = "x0") -> None:
        super().__init__(denoiser)
        if not is_number(amount) or not 0 <= amount <= 1:
            raise InputError(f"amount of Rescaled is {shown(amount)}; expected a number from 0 to 1.")
        if half not in HALVES:
            raise InputError(f"half of Rescaled is {shown(half)}; expected one of {', '.join(HALVES)}.")
        self.amount, self.half = float(amount), half

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        def rescaled(pair: Pair) -> Prediction:
            guided = mix(pair)
            p, c = getattr(guided, self.half), getattr(pair.good, self.half)
            axes = tuple(range(1, p.ndim))
            spread_c, spread_p = (jnp.std(part, axis=axes) for part in (c, p))
            ratio = jnp.where(spread_p > 0, spread_c / jnp.where(spread_p > 0, spread_p, 1), 1)
            p = p * expand(self.amount * ratio + 1 - self.amount, p)
            if self.half == "x0":
                return with_x0(guided, self.sde, t, p)
            times = to_time(t)
            change = expand(self.sde.sigma(times) / self.sde.alpha(times), p) * (guided.noise - p)
            return Prediction(guided.x0 + change, p, guided.variance)

        return self.denoiser.mixed(rescaled, x, t, cond, keys)


class Projected(_OfMixing):
    """`Projected` is adaptive projected guidance without momentum (Sadat et al. 2024, arXiv:2410.02416, Alg. 1).

    With c the good and u the bad x_0, the difference d = c - u is shortened to the length `norm` if it is longer, and
    split along c:

        x_0' = c + (weight - 1) (d_orthogonal + eta d_parallel).

    The noise is adapted: noise' = noise + (alpha / sigma) (x_0 - x_0'), from the good prediction. eta = 1 with an
    infinite norm is the inner guide itself; weight 1 is the good prediction. Norms are over all numbers of one example,
    and act on x_0. The paper's eta is 0, and its norm is 2.5 to 15 on latents. The paper's momentum is a memory from
    step to step, which a denoiser does not have.

    Args:
        denoiser: a `Mixing` guide.
        eta: the share of the part of the difference that is parallel to c.
        norm: the largest length of the difference.
    """

    eta: float = eqx.field(static=True)
    norm: float = eqx.field(static=True)

    def __init__(self, denoiser: Denoiser, eta: float = 0.0, norm: float = math.inf) -> None:
        super().__init__(denoiser)
        if not is_number(eta) or not math.isfinite(eta):
            raise InputError(f"eta of Projected is {shown(eta)}; expected a number, 0 in the paper.")
        if not is_number(norm) or not norm > 0:
            raise InputError(f"norm of Projected is {shown(norm)}; expected a positive number.")
        self.eta, self.norm = float(eta), float(norm)

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        def projected(pair: Pair) -> Prediction:
            c, d = pair.good.x0, pair.good.x0 - pair.bad.x0
            length = jnp.sqrt(per_example_sum(d**2))
            d = d * expand(jnp.minimum(1, self.norm / jnp.where(length > 0, length, 1)), d)
            square = per_example_sum(c**2)
            along = per_example_sum(d * c) / jnp.where(square > 0, square, 1)
            parallel = expand(along, c) * c
            x0 = c + expand(pair.weight - 1, c) * (d - parallel + self.eta * parallel)
            return with_x0(pair.good, self.sde, t, x0)

        return self.denoiser.mixed(projected, x, t, cond, keys)


__all__ = ["Projected", "Rescaled"]
