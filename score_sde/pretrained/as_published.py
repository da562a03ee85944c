"""This module computes a network as the published code does: with centred images and division by sigma inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from score_sde.core.arrays import Array, expand, to_time
from score_sde.core.errors import InputError
from score_sde.denoisers import Parametrization
from score_sde.networks import Network
from score_sde.sde import SDE
from score_sde.sde.base import time_at_log_snr


def as_published(sde: SDE, meaning: Parametrization, network: Network) -> Callable[[Any, Array, Array], Array]:
    """Return a function (params, x, time_label) -> output of the published network.

    In this library the parametrisation centres the images and divides by sigma, from the SDE and the time. A published
    network receives only a label, so the function computes the time from the label.
    """

    def apply(params: Any, x: Array, label: Array) -> Array:
        t = time_of_label(sde, str(meaning.time_label), label)
        output = network.apply(params, meaning.network_input(sde, x, t), label)
        return expand(meaning.output_scale(sde, t), output) * output

    return apply


def time_of_label(sde: SDE, kind: str, label: Array) -> Array:
    """Return the time at which a parametrisation with time_label `kind` gives this label."""
    label = to_time(label)
    if sde.levels is not None:
        times = jnp.arange(1, sde.levels + 1) / sde.levels
        return times[jnp.argmin(jnp.abs(sde.label(times) - label[:, None]), axis=1)]
    if kind == "scaled_time":
        return label * sde.t_max / 999
    if kind == "sigma":
        # Labels of published networks go down to sigma_min, which is sigma at time 0, before t_min.
        log_snr = 2 * (sde.log_alpha(sde.t_max * jnp.ones_like(label)) - jnp.log(label))
        return time_at_log_snr(sde, log_snr, 0.0, sde.t_max)
    raise InputError(
        f"parametrization.time_label is {kind!r}; expected 'index', 'sigma' or 'scaled_time' for published weights."
    )
