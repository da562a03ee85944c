"""This module checks the numbers of config.train before anything is built from them."""

from __future__ import annotations

from typing import Any

from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError

_EVERY = ("log_every", "eval_every", "sample_every", "measure_every", "checkpoint_every")


def check_train(config: Any) -> None:
    """Raise InputError for numbers that no run can use; called before anything is written."""
    numbers = {"train.steps": 1, "data.batch_size": 1, "train.keep.last": 1, "train.checkpoint_every": 1}
    numbers |= {
        f"train.{name}": 0 for name in ("log_every", "eval_every", "sample_every", "measure_every", "keep.every")
    }
    numbers |= {f"train.{name}": 1 for name in ("fused", "microbatches")}
    for name, least in numbers.items():
        value: Any = config
        for part in name.split("."):
            value = value[part]
        require_whole(name, value, least)
    fused = config.train.fused
    for name in ("steps", *_EVERY):
        if config.train[name] % fused:
            raise InputError(
                f"train.fused is {fused}, and train.{name} = {config.train[name]} is not a multiple of train.fused: "
                "periodic actions run only between calls of train.fused steps; use another train.fused, or 1."
            )
