"""score_sde: score-based diffusion models in JAX. `import score_sde as ss`."""

from score_sde import data, networks, parametrization, time_grid
from score_sde.analytic import GaussianMixture, Mixture
from score_sde.checkpoint import load
from score_sde.core.errors import DivergenceError, InputError
from score_sde.data import QuantizedTransform, UniformDequantization
from score_sde.denoiser import Denoiser, NetworkDenoiser
from score_sde.guidance import ClassifierFree, drop_labels
from score_sde.likelihood import (
    BitsPerDim,
    LogProb,
    bits_per_dim,
    decode,
    encode,
    interpolate,
    log_prob,
)
from score_sde.loss import denoising_loss
from score_sde.model import Model
from score_sde.parametrization import Noise, Parametrization, Prediction, Score
from score_sde.sampling import Ancestral, EulerMaruyama, Heun, ProbabilityFlow, Sampler, Samples, sample
from score_sde.sde import SDE, VE, VP, SubVP

__version__ = "0.1.0"

__all__ = [
    "SDE",
    "VE",
    "VP",
    "Ancestral",
    "BitsPerDim",
    "ClassifierFree",
    "Denoiser",
    "DivergenceError",
    "EulerMaruyama",
    "GaussianMixture",
    "Heun",
    "InputError",
    "LogProb",
    "Mixture",
    "Model",
    "NetworkDenoiser",
    "Noise",
    "Parametrization",
    "Prediction",
    "ProbabilityFlow",
    "QuantizedTransform",
    "Sampler",
    "Samples",
    "Score",
    "SubVP",
    "UniformDequantization",
    "bits_per_dim",
    "data",
    "decode",
    "denoising_loss",
    "drop_labels",
    "encode",
    "interpolate",
    "load",
    "log_prob",
    "networks",
    "parametrization",
    "sample",
    "time_grid",
]
