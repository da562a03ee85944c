"""Weights published elsewhere: read without executing anything of them, matched tensor by tensor, made a workdir."""

from score_sde.published.importing import import_weights, run
from score_sde.published.names import Tensor, tensors
from score_sde.published.report import Difference, Report
from score_sde.published.weights import Weights, read_weights

__all__ = ["Difference", "Report", "Tensor", "Weights", "import_weights", "read_weights", "run", "tensors"]
