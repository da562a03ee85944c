"""This module separates the parameters of the variance, which a network declares, from the other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from score_sde.networks.base import Network, Params
from score_sde.networks.layers import Trait


def parted(params: Params, network: Network) -> tuple[Params, Params]:
    """Return (the parameters without the head, those of the head), two dicts without empty branches."""
    traits = network.traits(params)
    return _kept(params, traits, lambda trait: not trait.head), _kept(params, traits, lambda trait: trait.head)


def joined(a: Params, b: Params) -> Params:
    """Return the union of two nested dicts that share no array; the inverse of `parted`."""
    return {
        name: joined(a[name], b[name]) if name in a and name in b else a.get(name, b.get(name))
        for name in sorted({*a, *b}, key=str)
    }


def _kept(params: Any, traits: Any, keeps: Callable[[Trait], bool]) -> Any:
    kept = {}
    for name, value in params.items():
        if isinstance(value, dict):
            inner = _kept(value, traits[name], keeps)
            if inner:
                kept[name] = inner
        elif keeps(traits[name]):
            kept[name] = value
    return kept
