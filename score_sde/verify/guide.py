"""This module defines the checks of a guide: both halves, batch, conditions, counts; and of a posterior: its law."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, expand
from score_sde.core.conditions import ABSENT, Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Guide, Mixture, Prediction
from score_sde.inverse import Posterior
from score_sde.inverse.measurement import MASK, MEASURED
from score_sde.sde import SDE, VE, VP, RectifiedFlow
from score_sde.verify import laws, posterior, steps
from score_sde.verify.report import NotAsked, Question

SDES: dict[str, SDE] = {"VP": VP(), "VE": VE(sigma_max=20.0), "RectifiedFlow": RectifiedFlow()}
_N = 6
_KEEPS, _FINITE = "a prediction keeps shape and dtype", "a prediction of finite x is finite"


def questions(guide: Guide, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """Return the questions about a guide, which is put around the exact denoiser of the data on each SDE."""
    found: list[Question] = []
    for name, sde in sdes.items():
        found += _on_one(guide, name, sde, data)
        if isinstance(guide, Posterior):
            found += posterior.on_one(guide, name, sde, (_KEEPS, _FINITE))
    return found


def _on_one(guide: Guide, name: str, sde: SDE, data: Mixture) -> list[Question]:
    moved = functools.cache(lambda: around(guide, laws.model_of(sde, data)))

    def ask(what: str, measure: Callable[[], Any], bound: float, meaning: str, *needs: str) -> Question:
        return Question(what, name, measure, bound, meaning, needs=needs)

    halves = "the guide changes one half: alpha x_0 + sigma noise must stay x_t, so that all samplers agree"
    removed = "remove the guide's own conditions before the inner call: score_sde.without(cond, names)"
    return [
        ask(_KEEPS, lambda: _interface(moved()), 0, "wrong shape or dtype of x0 or noise"),
        ask(_FINITE, lambda: _infinite(moved()), 0, "the guide divides by zero, such as where alpha is 0", _KEEPS),
        ask("alpha x_0 + sigma noise is x_t", lambda: _halves(moved()), 1e-5, halves, _FINITE),
        ask("example i does not depend on the batch", lambda: _batch(moved()), 1e-5, "examples are mixed", _FINITE),
        ask("its own conditions are removed", lambda: _passed_on(moved()), 0, removed, _KEEPS),
        ask("evaluations is the evaluation count", lambda: _miscount(moved()), 0, "define `evaluations`", _KEEPS),
    ]


def around(guide: Guide, model: Any) -> Any:
    """Return the guide around another denoiser, with the SDE of that denoiser."""
    where = [lambda one: one.sde, lambda one: one.denoiser]
    values: list[Any] = [model.sde, model]
    if hasattr(guide, "bad"):  # a second denoiser of the same SDE
        where.append(lambda one: one.bad)
        values.append(laws.model_of(model.sde, Mixture(model.data.weights, model.data.means, 1.5 * model.data.stds)))
    inner = guide.denoiser
    if isinstance(inner, Guide):  # such as Rescaled(ClassifierFree(...))
        values[1] = around(inner, model)
    return eqx.tree_at(lambda one: [pick(one) for pick in where], guide, values)


def _inside(guide: Any) -> Any:
    """Return the denoiser inside all guides."""
    return _inside(guide.denoiser) if isinstance(guide, Guide) else guide


def _inputs(guide: Guide, n: int = _N) -> tuple[Array, Any]:
    """Return (x, conditions) with a value of each condition that the guide reads."""
    rng = np.random.default_rng(0)
    shape = tuple(_inside(guide).data.means.shape[1:])
    cond: dict[str, Any] = {}
    for name, condition in guide.reads.items():
        value = condition.default(np.arange(n))
        if value is not None:
            cond[name] = jnp.asarray(value)
        elif name == MASK:
            cond[name] = jnp.asarray(rng.random((n, *shape)) < 0.7).at[:, 0].set(True)
        elif name == MEASURED or all(leaf.dtype.kind == "f" for leaf in jax.tree.leaves(condition.like(n))):
            cond[name] = jax.tree.map(lambda leaf: jnp.asarray(rng.random(leaf.shape), float), condition.like(n))
        else:
            raise NotAsked(f"the guide reads {name!r}, which the check cannot make up")
    return jnp.asarray(rng.standard_normal((n, *shape)), float), cond or None


def _times(sde: SDE) -> list[float]:
    return [laws.time_at(sde, level) for level in (4.0, 0.0, -3.0)]


def _at(guide: Guide, t: Any, rows: slice = slice(None)) -> tuple[Array, Prediction]:
    x, cond = _inputs(guide)
    part = jax.tree.map(lambda leaf: leaf[rows], cond)
    return x[rows], guide.predict(x[rows], jnp.asarray(t, x.dtype), part)


def _interface(guide: Guide) -> tuple[float, str]:
    wrong = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            x, predicted = _at(guide, _times(guide.sde)[1])
            for name, half in (("x0", predicted.x0), ("noise", predicted.noise)):
                if (half.shape, half.dtype) != (x.shape, x.dtype):
                    wrong.append(f"{name} of {half.dtype}{half.shape} from {x.dtype}{x.shape}")
    return len(wrong), "; ".join(wrong)


def _infinite(guide: Guide) -> tuple[int, str]:
    times = [*_times(guide.sde), float(guide.sde.t_max)]
    for t in times:
        _, predicted = _at(guide, t)
        count = sum(int(jnp.sum(~jnp.isfinite(half))) for half in (predicted.x0, predicted.noise))
        if count:
            return count, f"at t = {t:g}"
    return 0, ""


def _halves(guide: Guide) -> float:
    worst = 0.0
    with jax.enable_x64(True):
        for t in _times(guide.sde):
            x, predicted = _at(guide, t)
            alpha, sigma = expand(guide.sde.alpha(t), x), expand(guide.sde.sigma(t), x)
            worst = max(
                worst, float(jnp.max(jnp.abs(alpha * predicted.x0 + sigma * predicted.noise - x)) / sigma.max())
            )
    return worst


def _batch(guide: Guide) -> float:
    with jax.enable_x64(True):
        t = _times(guide.sde)[1]
        _, together = _at(guide, t)
        worst = 0.0
        for i in range(_N):
            _, alone = _at(guide, t, slice(i, i + 1))
            worst = max(worst, float(jnp.max(jnp.abs(alone.x0[0] - together.x0[i]))))
        return worst / float(jnp.max(jnp.abs(together.x0)))


class _Strict(Guide):
    """`_Strict` raises InputError for a condition that the denoiser does not read."""

    def __init__(self, denoiser: Any) -> None:
        super().__init__(denoiser)

    def predict(self, x: Array, t: Any, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        extra = [name for name in cond or {} if name != ABSENT and name not in self.reads]
        if extra:
            raise InputError(f"the inner denoiser receives {extra[0]!r}, which it does not read.")
        return self.denoiser.predict(x, t, cond, keys=keys)


def _innermost(guide: Guide, wrap: Callable[[Any], Any]) -> Any:
    """Return the guide with the denoiser inside all guides wrapped."""
    inner = guide.denoiser
    return eqx.tree_at(
        lambda one: one.denoiser, guide, _innermost(inner, wrap) if isinstance(inner, Guide) else wrap(inner)
    )


def _replace(counted: Any, inner: Any) -> Any:
    return counted


def _passed_on(guide: Guide) -> tuple[int, str]:
    try:
        _at(_innermost(guide, _Strict), _times(guide.sde)[1])
    except InputError as error:
        return 1, str(error)
    return 0, ""


def _miscount(guide: Guide) -> tuple[float, str]:
    """Return the difference of the stated and the counted evaluations of one example, where two rows count as two."""
    worst, where = 0, ""
    inner = _inside(guide)
    for t in _times(guide.sde):
        with steps.counting(inner) as (counted, evaluations):
            _at(_innermost(guide, functools.partial(_replace, counted)), t, slice(0, 1))
            count = evaluations()
        bad = int(hasattr(guide, "bad")) * int(guide.evaluations(t) > 1)  # the second denoiser is not counted
        difference = abs(int(guide.evaluations(t)) - count - bad)
        if difference > worst:
            worst, where = difference, f"stated {int(guide.evaluations(t))}, evaluated {count + bad}, at t = {t:g}"
    return worst, where
