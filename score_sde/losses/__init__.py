"""This package defines the objectives of training, their weights over time, and the rules that draw times."""

from score_sde.losses import time_sampling, weighting
from score_sde.losses.classification import Classification
from score_sde.losses.denoising import Denoising, denoising_loss
from score_sde.losses.heldout import HeldOut
from score_sde.losses.objective import Across, Losses, Objective, Parts, Trained, WholeBatch

__all__ = [
    "Across",
    "Classification",
    "Denoising",
    "HeldOut",
    "Losses",
    "Objective",
    "Parts",
    "Trained",
    "WholeBatch",
    "denoising_loss",
    "time_sampling",
    "weighting",
]
