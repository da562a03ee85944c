"""This module reads the name of a method for an inverse problem, which is a guide or a sampler of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from score_sde import config as config_
from score_sde import inverse, sampling
from score_sde.core.checks import shown
from score_sde.core.errors import InputError
from score_sde.denoisers import guidance
from score_sde.inverse.operators import Operator
from score_sde.sampling import Sampler

Spec = str | Mapping[str, Any]
SPACES = (guidance, inverse, sampling)


def one_spec(what: str, given: Spec) -> dict[str, Any]:
    """Return the only spec in a text or a mapping; `what` names the argument in messages."""
    specs = config_.read_specs(what, given)
    if len(specs) != 1:
        raise InputError(f"{what} is {shown(given)}; expected one name with arguments.")
    return dict(specs[0])


def with_problem(method: Mapping[str, Any], operator: Operator, noise_std: float) -> dict[str, Any]:
    """Return the spec of a method with the operator and the standard deviation of the noise, if it takes them."""
    known = {"operator": operator, "noise_std": noise_std}
    more = {name: value for name, value in known.items() if name not in method}
    return dict(method) | {name: value for name, value in more.items() if config_.takes(SPACES, method, name)}


def is_sampler(method: Mapping[str, Any]) -> bool:
    """Return whether a spec names a sampler, and not a guide."""
    return method["name"] in config_.names((sampling, inverse), Sampler)


__all__ = ["SPACES", "Spec", "is_sampler", "one_spec", "with_problem"]
