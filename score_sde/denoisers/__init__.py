"""This package defines denoisers, which predict x_0 and noise from x_t: networks, closed forms and guides."""

from score_sde.denoisers import guidance, parametrization
from score_sde.denoisers.analytic import GaussianMixture, Mixture
from score_sde.denoisers.base import Denoiser, Guide
from score_sde.denoisers.classifier import NetworkClassifier
from score_sde.denoisers.guidance import (
    Analytic,
    ClassifierFree,
    ClassifierGuided,
    Clipped,
    Guided,
    Mixing,
    Projected,
    Rescaled,
    Thresholded,
)
from score_sde.denoisers.moment_table import MomentTable
from score_sde.denoisers.network import Apply, NetworkDenoiser
from score_sde.denoisers.parametrization import (
    X0,
    Noise,
    Parametrization,
    Preconditioned,
    PreviousMean,
    Score,
    Velocity,
    VPrediction,
)
from score_sde.denoisers.prediction import Prediction, ReverseVariance

__all__ = [
    "X0",
    "Analytic",
    "Apply",
    "ClassifierFree",
    "ClassifierGuided",
    "Clipped",
    "Denoiser",
    "GaussianMixture",
    "Guide",
    "Guided",
    "Mixing",
    "Mixture",
    "MomentTable",
    "NetworkClassifier",
    "NetworkDenoiser",
    "Noise",
    "Parametrization",
    "Preconditioned",
    "Prediction",
    "PreviousMean",
    "Projected",
    "Rescaled",
    "ReverseVariance",
    "Score",
    "Thresholded",
    "VPrediction",
    "Velocity",
    "guidance",
    "parametrization",
]
