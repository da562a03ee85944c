"""This package defines guides, which are denoisers that change the x_0 and the noise predicted by another denoiser.

`mixing` combines two predictions, `limits` and `reshaping` change one prediction, `gradient` adds the gradient of a
log-probability, and `variance` adds the variance of reverse steps.
"""

from score_sde.denoisers.guidance.classifier_free import ClassifierFree
from score_sde.denoisers.guidance.gradient import ClassifierGuided, along_gradient
from score_sde.denoisers.guidance.limits import Clipped, Thresholded
from score_sde.denoisers.guidance.mixing import Guided, Mixing
from score_sde.denoisers.guidance.reshaping import Projected, Rescaled
from score_sde.denoisers.guidance.variance import Analytic

__all__ = [
    "Analytic",
    "ClassifierFree",
    "ClassifierGuided",
    "Clipped",
    "Guided",
    "Mixing",
    "Projected",
    "Rescaled",
    "Thresholded",
    "along_gradient",
]
