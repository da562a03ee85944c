"""This package builds the parts of a config, and defines train states, optimizers, checkpoints, workdirs and models."""

from score_sde.experiment.averages import Average
from score_sde.experiment.checkpoint import Checkpoints, Restored, check_finite, describe, digest
from score_sde.experiment.classifier import Classifier
from score_sde.experiment.experiment import Experiment
from score_sde.experiment.model import Model, as_edit, check_same
from score_sde.experiment.optimizer import build_optimizer, build_optimizers, check_rates
from score_sde.experiment.start import started_from
from score_sde.experiment.state import TrainState, average_item, items_of, state_of
from score_sde.experiment.step import make_step
from score_sde.experiment.workdir import load, load_trained, made_of, opened, read_config, write_config

__all__ = [
    "Average",
    "Checkpoints",
    "Classifier",
    "Experiment",
    "Model",
    "Restored",
    "TrainState",
    "as_edit",
    "average_item",
    "build_optimizer",
    "build_optimizers",
    "check_finite",
    "check_rates",
    "check_same",
    "describe",
    "digest",
    "items_of",
    "load",
    "load_trained",
    "made_of",
    "make_step",
    "opened",
    "read_config",
    "started_from",
    "state_of",
    "write_config",
]
