"""Save, restore, and load a trained model from its workdir."""

from score_sde.checkpoint.store import Checkpoints, Restored, TrainState, check_finite, describe, digest
from score_sde.checkpoint.workdir import load, read_config, write_config

__all__ = [
    "Checkpoints",
    "Restored",
    "TrainState",
    "check_finite",
    "describe",
    "digest",
    "load",
    "read_config",
    "write_config",
]
