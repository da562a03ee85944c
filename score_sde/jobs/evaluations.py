"""This module collects the evaluations that config.eval.what can name without a path."""

from score_sde.jobs.bound import NoiseMoments, VariationalBound
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.likelihood import Likelihood
from score_sde.jobs.losses import AccuracyPerLevel, HeldOutLoss, LossPerLevel
from score_sde.jobs.quality import (
    FID,
    SFID,
    DensityCoverage,
    Frechet,
    InceptionScore,
    Kernel,
    Memorisation,
    PrecisionRecall,
    Quality,
)
from score_sde.jobs.restoration import Restoration

__all__ = [
    "FID",
    "SFID",
    "AccuracyPerLevel",
    "Context",
    "DensityCoverage",
    "Evaluation",
    "Frechet",
    "HeldOutLoss",
    "InceptionScore",
    "Kernel",
    "Likelihood",
    "LossPerLevel",
    "Memorisation",
    "NoiseMoments",
    "PrecisionRecall",
    "Quality",
    "Restoration",
    "VariationalBound",
]
