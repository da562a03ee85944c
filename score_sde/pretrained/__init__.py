"""This package turns published weights into a workdir, without executing any code in their files."""

from score_sde.pretrained.importing import import_weights
from score_sde.pretrained.names import Tensor, tensors
from score_sde.pretrained.report import Difference, Report
from score_sde.pretrained.weights import Weights, read_weights

__all__ = ["Difference", "Report", "Tensor", "Weights", "import_weights", "read_weights", "tensors"]
