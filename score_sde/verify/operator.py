"""This module defines the checks of an operator of an inverse problem: linearity, adjoint, shapes and scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.errors import InputError
from score_sde.denoisers import Mixture
from score_sde.inverse import Operator
from score_sde.inverse.measurement import MASK
from score_sde.sde import SDE
from score_sde.verify.report import NotAsked, Question

SDES: dict[str, SDE] = {}  # an operator knows no SDE
_SHAPES = ((8, 8, 3), (8, 8, 1), (6,), (2,), (3,))
_DEFINED = "shapes that the operator measures"
_N = 5


def questions(operator: Operator, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """Return the questions about an operator."""

    def ask(what: str, measure: Callable[[], Any], bound: float, meaning: str, *needs: str) -> Question:
        return Question(what, "", measure, bound, meaning, needs=needs)

    return [
        Question(
            _DEFINED, "", lambda: (1, str(_shape(operator))), 1,
            "the operator measures no known shape: give it a field `shape`", at_least=True,
        ),
        ask("measurements keep dtype and batch", lambda: _interface(operator), 0, "wrong shape or dtype", _DEFINED),
        ask("measurements are finite", lambda: _infinite(operator), 0, "the operator divides by zero", _DEFINED),
        ask("example i does not depend on the batch", lambda: _batch(operator), 1e-6, "examples are mixed", _DEFINED),
        ask(
            "A is affine", lambda: _affine(operator), 1e-5,
            "A(2 x - z) + A(0) is not 2 A(x) - A(z) + A(0): let is_affine be False", _DEFINED,
        ),
        ask("<A x, y> is <x, A^T y>", lambda: _adjoint(operator), 1e-5, "adjoint is not the transpose of A", _DEFINED),
        ask("input_shape inverts measured_shape", lambda: _shapes(operator), 0, "define input_shape", _DEFINED),
        ask("A A^T is scale I", lambda: _scale(operator), 1e-5, "A A^T is not the stated multiple of I", _DEFINED),
        ask(
            "residual is y - A x where y is measured", lambda: _residual(operator), 1e-5,
            "residual and `measured` do not fit the operator", _DEFINED,
        ),
        ask("A x lies within range_of", lambda: _range(operator), 1e-5, "range_of is too narrow", _DEFINED),
    ]  # fmt: skip


def _shape(operator: Operator) -> tuple[int, ...]:
    """Return a shape of examples that the operator measures."""
    own = getattr(operator, "shape", None)
    for shape in [tuple(own)] if isinstance(own, tuple) else _SHAPES:
        try:
            operator.measured_shape(shape)
        except InputError as error:
            reason = error
            continue
        return shape
    raise reason


def _inputs(operator: Operator, seed: int = 0) -> tuple[jax.Array, Any]:
    """Return (examples in float64, conditions)."""
    shape, rng = _shape(operator), np.random.default_rng(seed)
    names = operator.reads(shape)
    other = [name for name in names if name != MASK]
    if other:
        raise NotAsked(f"the operator reads {other[0]!r}, which the check cannot make up")
    cond = {MASK: jnp.asarray(np.random.default_rng(7).random((_N, *shape)) < 0.6)} if MASK in names else None
    return jnp.asarray(rng.uniform(-1, 1, (_N, *shape)), float), cond


def _relative(error: Any, size: Any) -> float:
    return float(jnp.max(jnp.abs(error)) / jnp.maximum(jnp.max(jnp.abs(size)), 1e-12))


def _linear(operator: Operator) -> None:
    if not operator.is_affine:
        raise NotAsked("the operator is not affine")


def _interface(operator: Operator) -> tuple[float, str]:
    wrong = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            x, cond = _inputs(operator)
            y = operator(x, cond)
            expected = (_N, *operator.measured_shape(x.shape[1:]))
            if y.dtype != x.dtype or y.shape != expected:
                wrong.append(f"{y.dtype}{y.shape} from {x.dtype}{x.shape}, expected {expected}")
    return len(wrong), "; ".join(wrong)


def _infinite(operator: Operator) -> int:
    x, cond = _inputs(operator)
    return int(jnp.sum(~jnp.isfinite(operator(x, cond))))


def _batch(operator: Operator) -> float:
    with jax.enable_x64(True):
        x, cond = _inputs(operator)
        together = operator(x, cond)
        alone = [operator(x[i : i + 1], jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], cond)) for i in range(_N)]
        return _relative(jnp.concatenate(alone) - together, together)


def _affine(operator: Operator) -> float:
    _linear(operator)
    with jax.enable_x64(True):
        (x, cond), (z, _) = _inputs(operator), _inputs(operator, 1)
        constant = operator(jnp.zeros_like(x), cond)
        a, b = operator(x, cond) - constant, operator(z, cond) - constant
        return _relative(operator(2 * x - z, cond) - constant - (2 * a - b), a)


def _adjoint(operator: Operator) -> float:
    _linear(operator)
    with jax.enable_x64(True):
        x, cond = _inputs(operator)
        forth = operator(x, cond) - operator(jnp.zeros_like(x), cond)
        y = jnp.asarray(np.random.default_rng(2).standard_normal(forth.shape))
        back = operator.adjoint(y, cond)
        if back.shape != x.shape:
            return float("nan")
        axes_y, axes_x = tuple(range(1, y.ndim)), tuple(range(1, x.ndim))
        sizes = jnp.sqrt(jnp.sum(forth**2, axis=axes_y) * jnp.sum(y**2, axis=axes_y))
        return _relative(jnp.sum(forth * y, axis=axes_y) - jnp.sum(x * back, axis=axes_x), sizes)


def _shapes(operator: Operator) -> tuple[int, str]:
    shape = _shape(operator)
    back = operator.input_shape(operator.measured_shape(shape))
    return int(tuple(back) != tuple(shape)), f"{back} from measurements of {shape}"


def _scale(operator: Operator) -> float:
    _linear(operator)
    with jax.enable_x64(True):
        x, cond = _inputs(operator)
        scale = operator.scale(x.shape[1:])
        if scale is None:
            raise NotAsked("the operator states no scale")
        constant = operator(jnp.zeros_like(x), cond)
        y = jnp.asarray(np.random.default_rng(3).standard_normal(constant.shape))
        forth = operator(operator.adjoint(y, cond), cond) - constant
        return _relative(forth - scale * y * operator.measured(y, cond), y)


def _residual(operator: Operator) -> float:
    with jax.enable_x64(True):
        x, cond = _inputs(operator)
        mean = operator(x, cond)
        y = mean + jnp.asarray(np.random.default_rng(4).standard_normal(mean.shape))
        expected = operator.measured(y, cond) * (y - mean)
        return _relative(operator.residual(x, y, cond) - expected, y)


def _range(operator: Operator) -> float:
    possible = operator.range_of(-1.0, 1.0)
    if possible is None:
        raise NotAsked("the operator states no range")
    x, cond = _inputs(operator)
    ends = [operator(part, cond) for part in (x, jnp.sign(x), jnp.ones_like(x), -jnp.ones_like(x))]
    low, high = min(float(jnp.min(end)) for end in ends), max(float(jnp.max(end)) for end in ends)
    return max(possible[0] - low, high - possible[1], 0.0) / (possible[1] - possible[0])
