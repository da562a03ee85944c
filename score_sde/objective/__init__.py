"""What training minimises and evaluation measures: a batch's loss, and its mean over unseen data."""

from score_sde.objective.heldout import HeldOut
from score_sde.objective.loss_of_batch import Batch, Objective, step_key

__all__ = ["Batch", "HeldOut", "Objective", "step_key"]
