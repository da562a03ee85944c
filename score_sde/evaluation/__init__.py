"""Jobs on a trained model."""

from score_sde.evaluation.evaluate import evaluate
from score_sde.evaluation.samples import draw_samples

__all__ = ["draw_samples", "evaluate"]
