"""All checks of one thing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from score_sde.core.errors import InputError
from score_sde.denoisers import Mixture
from score_sde.sde import SDE
from score_sde.verify import corrector, laws, parametrization, sampler, sde, target
from score_sde.verify.report import Check, Report, ask

_ROOMS: dict[str, Any] = {"SDE": sde, "sampler": sampler, "corrector": corrector, "parametrization": parametrization}


def verify(
    thing: Any,
    *,
    mixture: Mixture | None = None,
    on: Sequence[str] | None = None,
    order: float | None = None,
    tell: Callable[[Check], None] | None = None,
) -> Report:
    """Check an SDE, a sampler, a corrector or a parametrisation against a mixture of Gaussians, in a minute or so.

    An SDE: alpha and variance, what is said to follow from them, marginals by simulation, time reversal, likelihood,
    order of convergence. A sampler or corrector: on several SDEs, interface, draws keyed by their example, the
    halves of one step, laws, order. A parametrisation: its two halves, labels, and what an ideal network under it
    gives. Figures of draws have bounds of 4 standard errors or more beside what fine steps may leave.

    Args:
        thing: what is to be checked, not a class.
        mixture: the data; None for two Gaussians in the plane.
        on: the SDEs on which a sampler, corrector or parametrisation is checked; None for all, such as VP, VE.
        order: the order of convergence that a sampler must have; None for its own `convergence_order`.
        tell: called with each check as it is made.

    Returns:
        Report; `passed`, `failed` and `str(report)` say how it went.

    Raises:
        InputError: for something of another kind, or an SDE that is not there, or an order of what has none.
    """
    kind, start = target.kind_of(thing), time.perf_counter()
    data = mixture if mixture is not None else laws.default_mixture()
    checks, options = [], claimed(kind, order)
    for check in ask(_ROOMS[kind].questions(thing, data, chosen(kind, on), **options)):
        checks.append(check)
        if tell is not None:
            tell(check)
    return Report(repr(thing), kind, tuple(checks), time.perf_counter() - start)


def chosen(kind: str, on: Sequence[str] | None) -> Mapping[str, SDE]:
    """The SDEs of these names; raises InputError for one that is not there."""
    known: Mapping[str, SDE] = _ROOMS[kind].SDES
    if on is None:
        return known
    missing = [name for name in on if name not in known]
    if missing or not on:
        what = f"expected some of {', '.join(known)}" if known else f"a {kind} is checked on itself alone"
        raise InputError(f"on is {', '.join(on)!r}; {what}.")
    return {name: known[name] for name in on}


def claimed(kind: str, order: float | None) -> Mapping[str, float]:
    """{'order': order}, empty where none is given; raises InputError for one that cannot be."""
    if order is None:
        return {}
    if kind != "sampler":
        raise InputError(f"order is {order!r}; expected none, for it is samplers that have one, not the kind {kind}.")
    if isinstance(order, bool) or not isinstance(order, int | float) or not 0 < order < math.inf:
        raise InputError(f"order is {order!r}; expected a positive number, such as 2.")
    return {"order": float(order)}
