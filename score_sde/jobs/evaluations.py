"""This module collects the evaluations that config.eval.what can name without a path."""

from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.likelihood import Likelihood
from score_sde.jobs.losses import HeldOutLoss, LossPerLevel

__all__ = ["Context", "Evaluation", "HeldOutLoss", "Likelihood", "LossPerLevel"]
