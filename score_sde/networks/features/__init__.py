"""This package holds networks that turn images into features: functions of weights, without training."""

from score_sde.networks.features import classifier, efficientnet, inception, perceptual
from score_sde.networks.features.units import Params, folded

__all__ = ["Params", "classifier", "efficientnet", "folded", "inception", "perceptual"]
