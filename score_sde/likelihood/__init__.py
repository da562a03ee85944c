"""This package computes exact likelihoods, and maps between data and latents, along the probability flow."""

from score_sde.likelihood.bits import BitsPerDim, Summary, bits_per_dim
from score_sde.likelihood.bound import Bound, variational_bound
from score_sde.likelihood.density import LogProb, Prior, log_prob
from score_sde.likelihood.grid import likelihood_grid
from score_sde.likelihood.latents import Flowed, decode, encode, interpolate
from score_sde.likelihood.moments import noise_moments

__all__ = [
    "BitsPerDim",
    "Bound",
    "Flowed",
    "LogProb",
    "Prior",
    "Summary",
    "bits_per_dim",
    "decode",
    "encode",
    "interpolate",
    "likelihood_grid",
    "log_prob",
    "noise_moments",
    "variational_bound",
]
