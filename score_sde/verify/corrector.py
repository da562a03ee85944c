"""This module defines the checks of a corrector: noise, the marginal that it keeps, and convergence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.jit import module_jit
from score_sde.denoisers import GaussianMixture, Mixture
from score_sde.sampling import Corrector
from score_sde.sde import SDE, VE, VP, DiscreteVP, SubVP
from score_sde.verify import laws, steps
from score_sde.verify.report import NotAsked, Question

SDES: dict[str, SDE] = {"VP": VP(), "SubVP": SubVP(), "VE": VE(sigma_max=20.0), "DiscreteVP": DiscreteVP(250)}
_EVALUATIONS = 400
_LANGEVIN_BIAS = 0.03  # excess variance after unadjusted Langevin steps of snr = 0.176, in units of sigma^2
_FROZEN = "frozen and hashable"


def questions(corrector: Corrector, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """Return the questions about a corrector."""
    frozen = "declare the class with @dataclasses.dataclass(frozen=True)"
    found = [Question(_FROZEN, "", lambda: steps.unhashable(corrector), 0, frozen)]
    for name, sde in sdes.items():
        found += _on_one(corrector, name, sde, data)
    return found


def _on_one(corrector: Corrector, name: str, sde: SDE, data: Mixture) -> list[Question]:
    model = laws.model_of(sde, data)
    noisy, clean = laws.time_at(sde, -1.5), laws.time_at(sde, 2.0)

    def ask(what: str, measure: Callable[[], Any], bound: float, meaning: str) -> Question:
        return Question(what, name, measure, bound, meaning, needs=(_FROZEN,))

    def keeps(t: float) -> float:
        return laws.moments(_repeat(corrector, model, laws.exact(model, t, 1), t), model.marginal(t))

    def step(model: Any, keys: Any, x: Any, t: Any, s: Any) -> Any:
        return _correct(model, keys, x, t, corrector=corrector)[0]

    bound = laws.moments_bound(data) + _LANGEVIN_BIAS
    plane = laws.model_of(sde, laws.default_mixture())
    one = functools.cache(lambda: _one_step(corrector, step, plane, clean))
    other = "the marginal changes: e times the score needs noise of sqrt(2 e), and a large e causes a bias"
    noise = "a step of e times the score needs noise of standard deviation sqrt(2 e)"
    keys = "use the key of each example, as in jax.vmap(lambda key: jax.random.normal(key, shape))(keys)"
    shared = "samples or calls share noise: draw noise with the given keys"
    return [
        ask("a call keeps shape and dtype", lambda: _interface(corrector, sde), 0, "wrong shape or dtype of x or nfe"),
        ask(
            "sample i does not depend on the batch",
            lambda: steps.batch_dependence(step, plane, clean, clean),
            1e-6,
            keys,
        ),
        ask(
            "noise of different samples is independent",
            lambda: steps.shared_noise(step, plane, clean, clean),
            5.0,
            shared,
        ),
        ask("one call: factor on x_0", lambda: one()[0], 0.05, "a corrector must not change the factor on x_0"),
        ask("one call: factor on the noise", lambda: one()[1], 0.05, noise),
        ask("keeps the marginal, mostly noise: moments", lambda: keeps(noisy), bound, other),
        ask("keeps the marginal, mostly data: moments", lambda: keeps(clean), bound, other),
        ask(
            "converges from another distribution",
            lambda: _contraction(corrector, model, noisy),
            0.95,
            f"after {_EVALUATIONS} evaluations another distribution is no closer to the marginal",
        ),
        ask("nfe is the evaluation count", lambda: _miscount(corrector, model, clean), 0, "nfe is not correct"),
    ]


def _one_step(corrector: Corrector, step: steps.Step, model: GaussianMixture, t: float) -> tuple[float, float]:
    if _evaluations(corrector, model, t) != 1:
        raise NotAsked("a call does not have exactly one evaluation")
    return steps.halves(step, model, t, t, most_noise=np.inf)


def _evaluations(corrector: Corrector, model: GaussianMixture, t: float) -> int:
    x, keys = laws.exact(model, t, 6, 1), keys_.examples(keys_.stream(0, "verify"), jnp.arange(1))
    return int(_correct(model, keys, jnp.asarray(x), jnp.asarray(t, x.dtype), corrector=corrector)[1][0])


@functools.partial(module_jit, static_argnames=("corrector",))
def _correct(model: GaussianMixture, keys: Any, x: Any, t: Any, *, corrector: Corrector) -> Any:
    return corrector.correct(keys, model, x, t)


@functools.partial(module_jit, static_argnames=("corrector", "calls"))
def _calls(model: GaussianMixture, x: Any, t: Any, *, corrector: Corrector, calls: int) -> Any:
    keys = keys_.examples(keys_.stream(2, "verify"), jnp.arange(len(x)))

    def call(x: Any, k: Any) -> tuple[Any, None]:
        return corrector.correct(keys_.fold(keys, k), model, x, t)[0], None

    return jax.lax.scan(call, x, jnp.arange(calls))[0]


def _repeat(corrector: Corrector, model: GaussianMixture, x: np.ndarray, t: float) -> np.ndarray:
    """Return x after many evaluations, where each call has its own keys."""
    calls = max(5, _EVALUATIONS // max(_evaluations(corrector, model, t), 1))
    return np.asarray(_calls(model, jnp.asarray(x), jnp.asarray(t, x.dtype), corrector=corrector, calls=calls))


def _contraction(corrector: Corrector, model: GaussianMixture, t: float) -> float:
    """Return the energy distance after the calls divided by that before, for samples with 1.5 times the spread."""
    exact, mean = laws.exact(model, t, 3, laws.COMPARED), laws.exact(model, t, 4, laws.COMPARED)
    wide = mean + 0.5 * (mean - mean.mean(axis=0))
    return laws.energy(_repeat(corrector, model, wide, t), exact) / laws.energy(wide, exact)


def _interface(corrector: Corrector, sde: SDE) -> tuple[float, str]:
    wrong = []
    rng = np.random.default_rng(0)
    for wide in (False, True):
        with jax.enable_x64(wide):
            x = jnp.asarray(rng.standard_normal((5, 2, 3, 1)), float)
            model = GaussianMixture(sde, np.ones(2), rng.standard_normal((2, 2, 3, 1)), 0.5)
            t = jnp.asarray(laws.time_at(sde, 0.0))
            out, nfe = _correct(model, jax.random.split(jax.random.key(0), 5), x, t, corrector=corrector)
            if (out.shape, out.dtype) != (x.shape, x.dtype):
                wrong.append(f"x of {out.dtype}{out.shape} from {x.dtype}{x.shape}")
            if (nfe.shape, nfe.dtype) != ((5,), jnp.int32):
                wrong.append(f"nfe of {nfe.dtype}{nfe.shape}")
            if not bool(jnp.isfinite(out).all()):
                wrong.append("x is not finite")
    return len(wrong), "; ".join(wrong)


def _miscount(corrector: Corrector, model: GaussianMixture, t: float) -> tuple[float, str]:
    x = laws.exact(model, t, 5, 1)
    with steps.counting(model) as (counted, evaluations):
        keys = keys_.examples(keys_.stream(0, "verify"), jnp.arange(1))
        nfe = int(_correct(counted, keys, jnp.asarray(x), jnp.asarray(t, x.dtype), corrector=corrector)[1][0])
    return abs(nfe - evaluations()), f"nfe {nfe}, evaluated {evaluations()}"
