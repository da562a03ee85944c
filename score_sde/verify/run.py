"""This module runs all checks of one object."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.denoisers import Mixture
from score_sde.inverse import Linear, Posterior, Variance
from score_sde.sde import SDE, VP
from score_sde.verify import corrector, guide, laws, operator, parametrization, sampler, sde, target
from score_sde.verify.report import Check, Report, ask

_ROOMS: dict[str, Any] = {
    "SDE": sde,
    "sampler": sampler,
    "corrector": corrector,
    "parametrization": parametrization,
    "operator": operator,
    "guide": guide,
    "variance": guide,
}


def verify(
    thing: Any,
    *,
    mixture: Mixture | None = None,
    on: Sequence[str] | None = None,
    order: float | None = None,
    tell: Callable[[Check], None] | None = None,
) -> Report:
    """Check an SDE, a sampler, a corrector or a parametrisation against a mixture of Gaussians, in about a minute.

    An SDE: alpha and variance, the functions that depend on them, simulated marginals, time reversal, likelihood, order
    of convergence. A sampler or corrector: on several SDEs, interface, noise keyed by example, the factors on x_0 and
    noise in one step, distributions, order of convergence. A parametrisation: x_0 and noise, labels, and the results of
    an ideal network. An operator: linearity, adjoint, shapes, scale, range. A guide: both halves, conditions, counts; a
    `Posterior`, or a `Variance` of one: the guided x_0 and samples against posteriors of Gaussian data, and the
    probability of a mode. Bounds of random figures are at least 4 standard errors plus the allowed bias of fine steps.

    Args:
        thing: the object to check, not a class.
        mixture: the data; None selects two Gaussians in the plane.
        on: names of the SDEs on which a sampler, corrector, parametrisation or guide is checked, such as VP; None for
            all.
        order: the order of convergence that a sampler must have; None selects its own `convergence_order`.
        tell: a function that is called with each check after its measurement.

    Returns:
        Report; `passed`, `failed` and `str(report)` give the result.

    Raises:
        InputError: for an object of another kind, an unknown SDE, an order that is not valid, or an order of an object
            that is not a sampler.
    """
    kind, start = target.kind_of(thing), time.perf_counter()
    data = mixture if mixture is not None else laws.default_mixture()
    checked = thing
    if isinstance(thing, Variance):
        checked = Posterior(laws.model_of(VP(), data), Linear(np.array([[1.0, 0.5]])), 0.3, thing)
    checks, options = [], claimed(kind, order)
    for check in ask(_ROOMS[kind].questions(checked, data, chosen(kind, on), **options)):
        checks.append(check)
        if tell is not None:
            tell(check)
    return Report(repr(thing), kind, tuple(checks), time.perf_counter() - start)


def chosen(kind: str, on: Sequence[str] | None) -> Mapping[str, SDE]:
    """Return the SDEs with these names; raise InputError for an unknown name."""
    known: Mapping[str, SDE] = _ROOMS[kind].SDES
    if on is None:
        return known
    missing = [name for name in on if name not in known]
    if missing or not on:
        what = f"expected some of {', '.join(known)}" if known else f"expected none: {kind}s are checked alone"
        raise InputError(f"on is {', '.join(on)!r}; {what}.")
    return {name: known[name] for name in on}


def claimed(kind: str, order: float | None) -> Mapping[str, float]:
    """Return {'order': order}, or {} if order is None; raise InputError for an order that is not valid."""
    if order is None:
        return {}
    if kind != "sampler":
        raise InputError(f"order is {order!r}; expected none: only samplers have an order, not the kind {kind}.")
    if isinstance(order, bool) or not isinstance(order, int | float) or not 0 < order < math.inf:
        raise InputError(f"order is {order!r}; expected a positive number, such as 2.")
    return {"order": float(order)}
