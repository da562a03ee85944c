"""Is a corrector one: its draws, the law that it keeps, and that it goes there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.analytic import GaussianMixture, Mixture
from score_sde.core import keys as keys_
from score_sde.core.jit import module_jit
from score_sde.sampling import Corrector
from score_sde.sde import SDE, VE, VP, DiscreteVP, SubVP
from score_sde.verify import laws, steps
from score_sde.verify.report import Question

SDES: dict[str, SDE] = {"VP": VP(), "SubVP": SubVP(), "VE": VE(sigma_max=20.0), "DiscreteVP": DiscreteVP(250)}
_CALLS = 200
# An unadjusted Langevin step of snr = 0.176 leaves 3 % of sigma^2 too much.
_BOUND = laws.MOMENTS_BOUND + 0.03
_FROZEN = "frozen and hashable"


def questions(corrector: Corrector, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """What is asked of a corrector."""
    frozen = "declare it with @dataclasses.dataclass(frozen=True)"
    found = [Question(_FROZEN, "", lambda: _unhashable(corrector), 0, frozen)]
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

    other = "exact draws do not stay what they are: noise of sqrt(2 e) belongs to a step of e times the score"
    keys = "draw by each example's own key: jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)"
    shared = "samples, or all calls, share their noise: draw with the keys that are given"
    return [
        ask("a call keeps shape and dtype", lambda: _interface(corrector, sde), 0, "x or nfe changes its kind"),
        ask(
            "sample i does not depend on the batch",
            lambda: steps.batch_dependence(step, model, clean, clean),
            1e-6,
            keys,
        ),
        ask(
            "draws of different samples are independent",
            lambda: steps.shared_noise(step, model, clean, clean),
            5.0,
            shared,
        ),
        ask("the law is kept, mostly noise: moments", lambda: keeps(noisy), _BOUND, other),
        ask("the law is kept, mostly data: moments", lambda: keeps(clean), _BOUND, other),
        ask(
            "another law is drawn nearer",
            lambda: _contraction(corrector, model, noisy),
            0.95,
            f"{_CALLS} calls leave draws of another law as far away as they were: a step that is too small, or none",
        ),
        ask("nfe is what was evaluated", lambda: _miscount(corrector, model, clean), 0, "nfe is not its evaluations"),
    ]


def _unhashable(corrector: Corrector) -> int:
    try:
        return int(hash(corrector) != hash(corrector))
    except TypeError:
        return 1


@functools.partial(module_jit, static_argnames=("corrector",))
def _correct(model: GaussianMixture, keys: Any, x: Any, t: Any, *, corrector: Corrector) -> Any:
    return corrector.correct(keys, model, x, t)


@functools.partial(module_jit, static_argnames=("corrector",))
def _calls(model: GaussianMixture, x: Any, t: Any, *, corrector: Corrector) -> Any:
    keys = keys_.examples(keys_.root(2), jnp.arange(len(x)))

    def call(x: Any, k: Any) -> tuple[Any, None]:
        return corrector.correct(keys_.fold(keys, k), model, x, t)[0], None

    return jax.lax.scan(call, x, jnp.arange(_CALLS))[0]


def _repeat(corrector: Corrector, model: GaussianMixture, x: np.ndarray, t: float) -> np.ndarray:
    """x after many calls, each with its own keys."""
    return np.asarray(_calls(model, jnp.asarray(x), jnp.asarray(t, x.dtype), corrector=corrector))


def _contraction(corrector: Corrector, model: GaussianMixture, t: float) -> float:
    """The energy distance of draws half as far again from their mean, after calls and before."""
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
        keys = keys_.examples(keys_.root(0), jnp.arange(1))
        nfe = int(_correct(counted, keys, jnp.asarray(x), jnp.asarray(t, x.dtype), corrector=corrector)[1][0])
    return abs(nfe - evaluations()), f"nfe {nfe}, evaluated {evaluations()}"
