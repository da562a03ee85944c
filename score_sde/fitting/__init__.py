"""This package trains a model from Python, from arrays, an SDE and a network."""

from score_sde.fitting.fit import fit

__all__ = ["fit"]
