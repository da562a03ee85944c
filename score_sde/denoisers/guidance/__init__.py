"""This package defines guides, which are denoisers that change the x_0 and the noise predicted by another denoiser.

`mixing` combines two predictions, `limits` and `reshaping` change one prediction, and `gradient` adds the gradient of a
log-probability.
"""

from score_sde.denoisers.guidance.classifier_free import ClassifierFree
from score_sde.denoisers.guidance.gradient import ClassifierGuided, along_gradient
from score_sde.denoisers.guidance.limits import Clipped, Thresholded
from score_sde.denoisers.guidance.mixing import Guided, Mixing
from score_sde.denoisers.guidance.reshaping import Projected, Rescaled

__all__ = [
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
