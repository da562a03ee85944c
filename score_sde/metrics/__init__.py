"""This package measures sample quality from features of two sets of examples, and compares pairs of images."""

from score_sde.metrics.classes import inception_score
from score_sde.metrics.estimate import Estimate
from score_sde.metrics.features import (
    Classifier,
    EfficientNetLite0,
    FeatureNetwork,
    Inception,
    OfFunction,
    Values,
    extract,
)
from score_sde.metrics.frechet import (
    Frechet,
    Moments,
    frechet_bias,
    frechet_distance,
    frechet_jackknife,
    frechet_of_moments,
)
from score_sde.metrics.kernel import kernel_distance, kernel_subsets
from score_sde.metrics.neighbours import (
    DensityCoverage,
    Nearest,
    PrecisionRecall,
    authenticity,
    density_coverage,
    nearest,
    precision_recall,
)
from score_sde.metrics.pairs import psnr, ssim
from score_sde.metrics.perceptual import LPIPS

__all__ = [
    "LPIPS",
    "Classifier",
    "DensityCoverage",
    "EfficientNetLite0",
    "Estimate",
    "FeatureNetwork",
    "Frechet",
    "Inception",
    "Moments",
    "Nearest",
    "OfFunction",
    "PrecisionRecall",
    "Values",
    "authenticity",
    "density_coverage",
    "extract",
    "frechet_bias",
    "frechet_distance",
    "frechet_jackknife",
    "frechet_of_moments",
    "inception_score",
    "kernel_distance",
    "kernel_subsets",
    "nearest",
    "precision_recall",
    "psnr",
    "ssim",
]
