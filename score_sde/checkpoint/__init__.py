"""Save, restore, and load a trained model from its workdir."""

from score_sde.checkpoint.store import Checkpoints, Restored, TrainState, describe, digest
from score_sde.checkpoint.workdir import load, read_config, write_config

__all__ = ["Checkpoints", "Restored", "TrainState", "describe", "digest", "load", "read_config", "write_config"]
