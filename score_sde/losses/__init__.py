"""This package defines the objectives of training, their weights over time, and the rules that draw times."""

from score_sde.losses import time_sampling, weighting
from score_sde.losses.classification import Classification
from score_sde.losses.denoising import Denoising, denoising_loss
from score_sde.losses.heads import PixelVariance, SecondMoment
from score_sde.losses.heldout import HeldOut
from score_sde.losses.objective import Across, Losses, Objective, Parts, Trained, WholeBatch
from score_sde.losses.previous import PreviousSample
from score_sde.losses.schedule import LearnedSchedule
from score_sde.losses.uncertainty import LevelUncertainty
from score_sde.losses.variational import Hybrid, Variational

__all__ = [
    "Across",
    "Classification",
    "Denoising",
    "HeldOut",
    "Hybrid",
    "LearnedSchedule",
    "LevelUncertainty",
    "Losses",
    "Objective",
    "Parts",
    "PixelVariance",
    "PreviousSample",
    "SecondMoment",
    "Trained",
    "Variational",
    "WholeBatch",
    "denoising_loss",
    "time_sampling",
    "weighting",
]
