"""This module defines the default config of `fit`, which works for most data; callers can override entries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from score_sde import config as config_
from score_sde import networks, sde
from score_sde.core.errors import InputError
from score_sde.denoisers import Parametrization, parametrization
from score_sde.networks.fitting import fitted

_CONTEXT = ("shape", "conditions", "levels")  # arguments of a network that come from the data and the SDE
_SMALL = 16  # the largest number of values in a small vector


def config_of(
    data: Mapping[str, Any],
    shape: tuple[int, ...],
    size: float,
    the_sde: sde.SDE | None,
    network: networks.Network | None,
    meaning: Parametrization | None,
    given: tuple[str, ...],
    settings: Mapping[str, Any],
) -> ml_collections.ConfigDict:
    """Return a complete config.

    The default for any SDE is the preconditioning of Karras et al. 2022 with log-normal times. With s the standard
    deviation of the data, log(sigma / (alpha s)) ~ N(-0.5, 1.2^2), which is their distribution for s = 0.5. For small
    vectors, which have finer structures, the distribution is N(-0.9, 1.2^2).

    Args:
        data: the spec of the data set.
        shape: the shape of one example.
        size: the standard deviation s of the data on the model's scale.
        the_sde: the SDE; None for EDM, whose noise levels are scaled to the data for small vectors.
        network: the network; None for an MLP for vectors, and DDPMpp for images.
        meaning: the parametrisation; None for Preconditioned.
        given: the names of the conditions that the network reads.
        settings: sections of a config, in the form of a config file; they override all other entries.
    """
    the_sde = _edm(shape, size) if the_sde is None else the_sde
    sde_spec = config_.spec_of(the_sde, sde, sde.SDE)
    if network is None:
        network_spec = fitted(shape)
    else:
        network_spec = config_.spec_of(network, networks, networks.Network, skip=_CONTEXT)
        own = getattr(network, "shape", shape)
        if tuple(own) != shape:
            raise InputError(f"The network has shape {own}, but the examples have {shape}; expected equal shapes.")
    if meaning is None:
        meaning_spec = {"name": "Preconditioned", "data_std": size, "time_label": _label(the_sde)}
    else:
        meaning_spec = config_.spec_of(meaning, parametrization, Parametrization, skip=("data_range",))
    preconditioned = meaning is None or type(meaning) is parametrization.Preconditioned
    defaults = dict(
        data=dict(data) | dict(batch_size=_batch(shape), given=given, drop=dict.fromkeys(given, 0.1)),
        sde=sde_spec,
        parametrization=meaning_spec,
        network=network_spec,
        objective=_objective(the_sde, preconditioned, size, math.prod(shape) <= _SMALL),
        optimizer=_optimizer(shape, 2000),
        averages=dict(ema=dict(name="WarmedUp", decay=0.995)),
        train=dict(steps=2000),
        sample=dict(sampler=dict(name="Heun"), grid=dict(name="default", n=40)),
        eval=dict(what="Likelihood(probes=2, rtol=1e-4, atol=1e-4)"),
    )
    return config_.complete(_over(defaults, settings))


def _edm(shape: tuple[int, ...], size: float) -> sde.EDM:
    """Return EDM; for small vectors its noise levels end at 20 times the standard deviation of the data.

    Training reaches no larger noise level, but a density would use larger noise levels.
    """
    if math.prod(shape) > _SMALL:
        return sde.EDM()
    return sde.EDM(sigma_min=0.004 * size, sigma_max=20 * size)


def _objective(the_sde: sde.SDE, preconditioned: bool, size: float, small: bool) -> dict[str, Any]:
    shift = -0.9 if small else -0.5
    times: Any = dict(name="LogNormal", mean=math.log(size) + shift, std=1.2)
    entry: dict[str, Any] = dict(name="Denoising", times="knots" if the_sde.levels is not None else times)
    entry["stratified"] = True
    if preconditioned:
        entry |= dict(target="x0", weight=dict(name="Karras", data_std=size))
    return entry


def _label(the_sde: sde.SDE) -> str:
    """Return the name of a time label with values from 0 to 999, which every time embedding can distinguish."""
    if the_sde.levels is not None:
        return "index"
    return "scaled_time" if float(the_sde.alpha(the_sde.t_max)) == 0 else "scaled_log_snr"


def _batch(shape: tuple[int, ...]) -> int:
    return 256 if math.prod(shape) <= _SMALL else 32 if math.prod(shape) <= 1024 else 64


def _optimizer(shape: tuple[int, ...], steps: int) -> dict[str, Any]:
    peak = 1e-2 if math.prod(shape) <= _SMALL else 2e-3
    warmup = min(100, steps // 10)
    schedule = dict(
        name="warmup_cosine_decay_schedule", init_value=0.0, peak_value=peak, warmup_steps=warmup, decay_steps=steps
    )
    return dict(name="adam", schedule=schedule, clip=1.0)


def _over(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` merged over `defaults`; a spec with another name replaces the default spec completely."""
    merged = dict(defaults)
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            replaced = "name" in value and value["name"] != default.get("name")
            merged[name] = value if replaced else _over(default, value)
        else:
            merged[name] = value
    return merged
