"""This module defines the checks of a sampler: noise, factors of one step, marginal, order of convergence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import ode
from score_sde.core.errors import InputError
from score_sde.core.jit import module_jit
from score_sde.denoisers import GaussianMixture, Mixture
from score_sde.sampling import Sampler, sample
from score_sde.sde import SDE, VE, VP, DiscreteVP, RectifiedFlow, SubVP
from score_sde.verify import laws, steps
from score_sde.verify.report import NotAsked, Question

SDES: dict[str, SDE] = {
    "VP": VP(),
    "SubVP": SubVP(),
    "VE": VE(sigma_max=20.0),
    "RectifiedFlow": RectifiedFlow(),
    "DiscreteVP": DiscreteVP(250),
}
_STEPS = 400
_FROZEN, _DEFINED = "frozen and hashable", "SDEs on which the sampler is defined"
_BATCH, _APART = "sample i does not depend on the batch", "noise of different samples is independent"
_KINDS, _FINITE = "a step keeps shape and dtype", "a step of finite x is finite"
_TOLERANCE = 0.3  # error of a measured order of convergence, which is less exact for few or many steps
_KEYS = "use the key of each example: jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)"


def questions(sampler: Sampler, data: Mixture, sdes: Mapping[str, SDE], order: float | None = None) -> list[Question]:
    """Return the questions about a sampler; `order` None selects the convergence_order of the sampler."""
    defined = {name: sde for name, sde in sdes.items() if _is_defined(sampler, sde)}
    lacking = ", ".join(name for name in sdes if name not in defined)
    frozen = "declare the class with @dataclasses.dataclass(frozen=True)"
    where = f"not on {lacking}" if lacking else ""
    found = [
        Question(_FROZEN, "", lambda: steps.unhashable(sampler), 0, frozen),
        Question(
            _DEFINED, "", lambda: (len(defined), where), 1, "check() or step() rejects all the SDEs", at_least=True
        ),
    ]
    for name, sde in defined.items():
        found += _on_one(sampler, name, sde, data, sampler.convergence_order if order is None else order)
    return found


def _on_one(sampler: Sampler, name: str, sde: SDE, data: Mixture, claimed: float) -> list[Question]:
    model = laws.model_of(sde, data)
    # For a single Gaussian the predicted x_0 determines the noise, so one step is checked on a mixture of two.
    plane = laws.model_of(sde, laws.default_mixture())
    one = functools.cache(lambda: steps.halves(_stepper(sampler), plane, *_two_times(sde)))

    def ask(what: str, measure: Callable[[], Any], bound: float, meaning: str, *needs: str) -> Question:
        return Question(what, name, measure, bound, meaning, needs=(_FROZEN, _DEFINED, *needs))

    found = [
        ask(_KINDS, lambda: _interface(sampler, sde), 0, "x, state or nfe has a wrong shape or dtype"),
        ask(_FINITE, lambda: _infinite(sampler, sde), 0, "a step divides by zero, or overflows"),
        ask(
            _BATCH,
            lambda: steps.batch_dependence(_stepper(sampler), plane, *_two_times(sde)),
            1e-6,
            _KEYS,
            _FINITE,
        ),
        ask(
            _APART,
            lambda: steps.shared_noise(_stepper(sampler), plane, *_two_times(sde)),
            5.0,
            "samples or calls share noise: draw noise with the given keys",
            _FINITE,
        ),
        ask(
            "one step: factor on x_0",
            lambda: one()[0],
            0.05,
            "the factor on x_0 does not go from alpha(t) to alpha(s)",
            _BATCH,
            _APART,
        ),
        ask(
            "one step: factor on the noise",
            lambda: one()[1],
            0.05,
            "kept noise and fresh noise (standard deviation ~ sqrt(dt)) do not add up to sigma(s)",
            _BATCH,
            _APART,
        ),
    ]
    if data.weights.size > 1:
        found.append(ask("cond reaches the denoiser", lambda: _condition(sampler, model), 1e-6, "", _FINITE))
    return found + _of_walks(sampler, sde, model, data, ask, claimed if name in ("VP", "VE") else None)


def _of_walks(
    sampler: Sampler,
    sde: SDE,
    model: GaussianMixture,
    data: Mixture,
    ask: Callable[..., Question],
    claimed: float | None,
) -> list[Question]:
    """Return the questions about whole sampling loops, which need valid steps; `claimed` None omits the order."""
    own = functools.cache(lambda: _has_own_steps(sampler, model))
    walked = functools.cache(lambda: _walk(sampler, model, own()))
    try:
        bound = laws.moments_bound(data, _draws(own()))
    except Exception:  # the questions below report this error
        bound = laws.moments_bound(data)

    def of_sound(*args: Any) -> Question:
        return ask(*args, _KINDS, _FINITE)

    lost = "the samples do not have the SDE's marginal at the last time"
    miscounted = "nfe of a step is not correct"
    found = [
        of_sound("marginal: moments", lambda: laws.moments(*walked()[:2]), bound, lost),
        of_sound("marginal: energy distance", lambda: laws.energy(walked()[0], walked()[2]), laws.ENERGY_BOUND, lost),
        of_sound("nfe is the evaluation count", lambda: _miscount(sampler, model), 0, miscounted),
    ]
    if claimed is not None:
        meaning = f"the error does not fall as steps^-{claimed:g}: the method does not have the claimed order"
        order = of_sound(
            "order of convergence", lambda: _order(sampler, sde, data, own()), claimed - _TOLERANCE, meaning
        )
        found.append(order._replace(at_least=True))
    return found


def _condition(sampler: Sampler, model: GaussianMixture) -> float:
    def conditional(*args: Any) -> Any:
        return _first_step(*args, {"label": jnp.zeros(len(args[1]), jnp.int32)}, sampler=sampler)[0]

    times = _two_times(model.sde)
    error = steps.ignored_condition(_stepper(sampler), conditional, model, *times)
    if error > 1e-6:  # correct for a model without conditions, so this is no failure
        raise NotAsked("a step ignores cond: a conditional model is sampled as if it had no condition")
    return error


def _is_defined(sampler: Sampler, sde: SDE) -> bool:
    """Return whether neither check nor step raises InputError; the questions report any other error."""
    try:
        sampler.check(sde, laws.fine_grid(sde, 2))
        _step_of_pictures(sampler, sde)
    except InputError:
        return False
    except Exception:
        return True
    return True


def _two_times(sde: SDE) -> tuple[float, float]:
    """Return the times (t, s) of a short step, or of one level of a chain, from t where log-SNR is 0."""
    t = laws.time_at(sde, 0.0)
    return t, t - 1 / sde.levels if sde.levels is not None else laws.time_at(sde, 0.02)


def _stepper(sampler: Sampler) -> steps.Step:
    """Return a compiled step as a function of (model, keys, x, t, s)."""
    return lambda *args: _first_step(*args, sampler=sampler)[0]


@functools.partial(module_jit, static_argnames=("sampler",))
def _first_step(
    model: GaussianMixture, keys: Any, x: Any, t: Any, s: Any, cond: Any = None, *, sampler: Sampler
) -> tuple[Any, ...]:
    state = sampler.init(x)
    return *sampler.step(keys, model, x, t, s, state, cond), state


def _step_of_pictures(sampler: Sampler, sde: SDE) -> tuple[Any, ...]:
    """Return (x before, x after, state after, nfe, state before) of a step on 5 pictures of 2 x 3 x 1."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((5, 2, 3, 1)), float)
    model = GaussianMixture(sde, np.ones(2), rng.standard_normal((2, 2, 3, 1)), 0.5)
    t, s = (jnp.asarray(time) for time in _two_times(sde))
    return x, *_first_step(model, jax.random.split(jax.random.key(0), 5), x, t, s, sampler=sampler)


def _interface(sampler: Sampler, sde: SDE) -> tuple[float, str]:
    """Return the number of shapes and dtypes that a step does not keep, in both precisions, and their list."""
    wrong = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            x, out, kept, nfe, state = _step_of_pictures(sampler, sde)
            kinds = [[f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(each)] for each in (state, kept)]
            for what, good in (
                (f"x of {out.dtype}{out.shape} from {x.dtype}{x.shape}", (out.shape, out.dtype) == (x.shape, x.dtype)),
                (f"nfe of {nfe.dtype}{nfe.shape}", (nfe.shape, nfe.dtype) == ((5,), jnp.int32)),
                (f"state of {kinds[1]} from {kinds[0]}", kinds[0] == kinds[1]),
            ):
                wrong += [] if good else [what]
    return len(wrong), "; ".join(wrong)


def _infinite(sampler: Sampler, sde: SDE) -> tuple[int, str]:
    """Return the number of values of a step that are not finite, in both precisions, and where."""
    total, where = 0, ""
    for wide in (False, True):
        with jax.enable_x64(wide):
            _, out, *_ = _step_of_pictures(sampler, sde)
            count = int(jnp.sum(~jnp.isfinite(out)))
            total, where = total + count, where or (f"{count} of {out.size} in {out.dtype}" if count else "")
    return total, where


def _has_own_steps(sampler: Sampler, model: GaussianMixture) -> bool:
    """Return whether the sampler chooses its own steps: nfe differs between examples, or grows with the interval.

    A sampler with further steps at one noise level, such as `Restart`, has a larger nfe in the whole interval alone.
    """
    grid = laws.fine_grid(model.sde, _STEPS)
    x, keys = jnp.asarray(laws.exact(model, grid[0], 6, 32)), jax.random.split(jax.random.key(1), 32)
    whole, half, short = (
        np.asarray(
            _first_step(model, keys, x, jnp.asarray(grid[0], x.dtype), jnp.asarray(s, x.dtype), sampler=sampler)[2]
        )
        for s in (grid[-1], grid[len(grid) // 2], grid[1])
    )
    return bool(np.ptp(whole) > 0 or (np.all(whole > 3 * short) and np.all(half > 3 * short)))


def _draws(own: bool) -> int:
    """Return the number of samples, which is smaller if the slowest sample determines the time."""
    return laws.COMPARED if own else laws.N


def _walk(sampler: Sampler, model: GaussianMixture, own: bool) -> tuple[np.ndarray, Mixture, np.ndarray]:
    """Return (x, marginal, exact samples) at the end of a fine grid, from exact samples at the start."""
    grid = laws.fine_grid(model.sde, _STEPS)
    grid = grid[[0, -1]] if own else grid
    n = _draws(own)
    start = laws.exact(model, grid[0], 1, n)
    x = sample(model, sampler, grid, start.shape[1:], n=n, seed=0, x=start, denoise=False, batch_size=n).x
    return x, model.marginal(grid[-1]), laws.exact(model, grid[-1], 2)


def _miscount(sampler: Sampler, model: GaussianMixture) -> tuple[float, str]:
    grid = laws.fine_grid(model.sde, 3)[:4]
    start = laws.exact(model, grid[0], 3, 1)
    with steps.counting(model) as (counted, evaluations):
        nfe = int(sample(counted, sampler, grid, start.shape[1:], n=1, seed=0, x=start, denoise=False).nfe[0])
    return abs(nfe - evaluations()), f"nfe {nfe}, evaluated {evaluations()} in {len(grid) - 1} steps"


def _order(sampler: Sampler, sde: SDE, data: Mixture, own: bool) -> tuple[float, str]:
    """Return the order of convergence from errors with several numbers of steps, over the middle of the time range.

    The error of a deterministic sampler is the distance from the solution of the probability-flow ODE. The error of a
    stochastic sampler is the relative error of the variance of Gaussian data, where it is above the Monte Carlo noise.
    """
    model = laws.model_of(sde, data)
    ends = laws.part_of(sde)
    if own:
        raise NotAsked("the sampler chooses its own steps")
    deterministic = steps.spread(_stepper(sampler), model, *_two_times(sde)) == 0
    found = _distances(sampler, model, ends) if deterministic else _variance_errors(sampler, sde, ends)
    floor = 1e-6 if deterministic else 0.02
    shown = "error by steps " + ", ".join(f"{n}: {error:.2g}" for n, error in found.items())
    if not np.all(np.isfinite(list(found.values()))):
        return float("nan"), shown
    above = [n for n, error in found.items() if error > floor]
    if len(above) < 2 or max(found.values()) < 3 * floor:
        raise NotAsked(f"{shown}, too close to the resolution {floor:g}")
    n, m = above[-3:][0], above[-1]  # with few steps the error may still rise
    return float(np.log(found[n] / found[m]) / np.log(m / n)), shown


def _distances(sampler: Sampler, model: GaussianMixture, ends: tuple[float, float]) -> dict[int, float]:
    """Return the root mean square distance of 64 points from the probability-flow ODE, by the number of steps."""
    with jax.enable_x64(True):
        x = jnp.asarray(laws.exact(model, ends[0], 4, 64), float)
        exact = ode.flow(model, x, *ends, rtol=1e-9, atol=1e-9).y
        return {
            n: float(jnp.sqrt(jnp.mean((steps.walk(sampler, model, x, ends, n) - exact) ** 2))) for n in (64, 128, 256)
        }


def _variance_errors(sampler: Sampler, sde: SDE, ends: tuple[float, float]) -> dict[int, float]:
    """Return the relative error of the variance of Gaussian data, by the number of steps."""
    shape = (16,)
    model = GaussianMixture(sde, np.ones(1), np.zeros((1, *shape)), 0.5)
    x = jnp.asarray(laws.exact(model, ends[0], 5))
    exact = float(np.asarray(model.marginal(ends[1]).stds).ravel()[0]) ** 2
    found = {}
    for n in (4, 8, 16, 32, 64):
        end = np.asarray(steps.walk(sampler, model, x, ends, n), np.float64)
        found[n] = abs(float(np.mean(end**2)) / exact - 1)
    return found
