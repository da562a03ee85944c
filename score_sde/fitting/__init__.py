"""Training from Python: arrays, an SDE and a network to a model."""

from score_sde.fitting.fit import fit

__all__ = ["fit"]
