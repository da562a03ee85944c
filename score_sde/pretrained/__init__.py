"""Weights published elsewhere: read without executing anything of them, matched tensor by tensor, made a workdir."""

from score_sde.pretrained.importing import import_weights
from score_sde.pretrained.names import Tensor, tensors
from score_sde.pretrained.report import Difference, Report
from score_sde.pretrained.weights import Weights, read_weights

__all__ = ["Difference", "Report", "Tensor", "Weights", "import_weights", "read_weights", "tensors"]
