"""The training job."""

from score_sde.training.loop import train

__all__ = ["train"]
