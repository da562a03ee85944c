"""This module builds the optax optimizer of each group of parameters from config.optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import optax

from score_sde import config as config_
from score_sde.core.errors import InputError

Schedule = Callable[[int], Any]


def build_optimizer(spec: Mapping[str, Any], decays: Any = None) -> tuple[optax.GradientTransformation, Schedule]:
    """Return an optax optimizer that first clips gradients by their global norm, and its learning-rate schedule.

    Args:
        spec: the optimizer's name and arguments, `schedule` (an optax schedule, or 'constant_schedule' with value), and
            `clip`, the largest global norm of the gradient, or None for no clipping.
        decays: a pytree of booleans, true for the parameters with weight decay; None for all parameters.
    """
    spec = config_.to_dict(spec)
    arguments = {name: value for name, value in spec.items() if name not in ("schedule", "clip", "groups")}
    clip = spec.get("clip")
    if clip is not None and not clip > 0:
        raise InputError(f"optimizer.clip is {clip}; expected a positive norm, or None for no clipping.")
    schedule = config_.build(optax.schedules, spec["schedule"])
    masked = {}
    if decays is not None and "mask" not in arguments:
        masks = "mask" in inspect.signature(config_.lookup(optax, arguments.get("name", ""))).parameters
        masked = {"mask": decays} if masks else {}
    optimizer = config_.build(optax, arguments, learning_rate=schedule, **masked)
    if clip is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer)
    return optimizer, schedule


def check_rates(schedules: Mapping[str, Schedule], steps: int) -> None:
    """Raise InputError for learning rates that cannot train the parameters.

    Args:
        schedules: the learning rate as a function of the step, for each group.
        steps: the number of training steps.

    Raises:
        InputError: if a rate is negative or not finite at one of the checked steps, or 0 at all of them.
    """
    for group, schedule in schedules.items():
        looked_at = sorted({int(step) for step in np.linspace(0, steps - 1, 9)})
        try:
            rates = {step: float(schedule(step)) for step in looked_at}
        except (TypeError, ValueError) as error:  # optax raises them for arguments that are not numbers
            raise InputError(
                f"The learning rate of {group} cannot be computed ({error}); expected numbers in optimizer.schedule."
            ) from error
        for step, rate in rates.items():
            if not (rate >= 0 and np.isfinite(rate)):
                raise InputError(
                    f"The learning rate of {group} is {rate:g} at step {step}; expected a positive number: change "
                    "optimizer.schedule."
                )
        if len(rates) > 1 and not any(rates.values()):
            raise InputError(
                f"The learning rate of {group} is 0 at every step, so nothing is learned; expected a positive number: "
                "change optimizer.schedule."
            )


def build_optimizers(
    spec: Mapping[str, Any], groups: Iterable[str], decays: Mapping[str, Any], frozen: Iterable[str] = ()
) -> tuple[dict[str, optax.GradientTransformation], dict[str, Schedule]]:
    """Return (optimizers, schedules) by group from config.optimizer; its `groups` holds changed entries by group.

    A frozen group has no learning rate, and an optimizer without a state that changes nothing.
    """
    spec, groups = config_.to_dict(spec), list(groups)
    unknown = [name for name in spec.get("groups", {}) if name not in groups]
    if unknown:
        raise InputError(f"optimizer.groups has {unknown[0]!r}; expected groups of the objective: {', '.join(groups)}.")
    optimizers, schedules = {}, {}
    for group in groups:
        if group in frozen:
            optimizers[group] = optax.set_to_zero()
            continue
        own = spec | spec.get("groups", {}).get(group, {})
        optimizers[group], schedules[group] = build_optimizer(own, decays.get(group))
    return optimizers, schedules
