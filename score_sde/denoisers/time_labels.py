"""This module defines the time labels that networks receive."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.sde import SDE


def scaled_time(sde: SDE, t: Array) -> Array:
    """Return 999 t / t_max, the time label of continuous VP and sub-VP networks since Song et al. 2021."""
    return 999 * t / sde.t_max


def sigma(sde: SDE, t: Array) -> Array:
    """Return sigma(t), the time label of the VE networks of Song et al. 2021, which compute log sigma themselves."""
    return sde.sigma(t)


def log_sigma(sde: SDE, t: Array) -> Array:
    """Return log sigma(t), the time label of a VE network that embeds the label without a logarithm."""
    return jnp.log(sde.variance(t)) / 2


def quarter_log_sigma(sde: SDE, t: Array) -> Array:
    """Return log(sigma / alpha) / 4, the time label of Karras et al. 2022 (arXiv:2206.00364, Table 1)."""
    return -sde.log_snr(t) / 8


def scaled_log_snr(sde: SDE, t: Array) -> Array:
    """Return a time label that is linear in the log signal-to-noise ratio, from 0 at t_max to 999 at t_min.

    The label suits any SDE with some signal left at t_max.
    """
    low, high = sde.log_snr(jnp.asarray(sde.t_max, t.dtype)), sde.log_snr(jnp.asarray(sde.t_min, t.dtype))
    return 999 * (sde.log_snr(t) - low) / (high - low)


def index(sde: SDE, t: Array) -> Array:
    """Return the label of a chain's level in the networks of its paper, also between the levels of a smoothed chain."""
    return sde.label(t)


TimeLabel = Callable[[SDE, Array], Array]
TIME_LABELS: dict[str, TimeLabel] = {
    "scaled_time": scaled_time,
    "sigma": sigma,
    "log_sigma": log_sigma,
    "quarter_log_sigma": quarter_log_sigma,
    "scaled_log_snr": scaled_log_snr,
    "index": index,
}
