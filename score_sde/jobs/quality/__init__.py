"""This package measures the quality of samples: metrics of features of samples and of real examples."""

from score_sde.jobs.quality.base import Compared, Quality, network_of
from score_sde.jobs.quality.distances import FID, SFID, Frechet, InceptionScore, Kernel
from score_sde.jobs.quality.neighbours import DensityCoverage, Memorisation, PrecisionRecall

__all__ = [
    "FID",
    "SFID",
    "Compared",
    "DensityCoverage",
    "Frechet",
    "InceptionScore",
    "Kernel",
    "Memorisation",
    "PrecisionRecall",
    "Quality",
    "network_of",
]
