"""Samplers: ways to walk a time grid from noise to data."""

from score_sde.sampling.adaptive import ProbabilityFlow
from score_sde.sampling.base import Sampler, Samples, sample
from score_sde.sampling.deterministic import Heun
from score_sde.sampling.stochastic import Ancestral, EulerMaruyama

__all__ = ["Ancestral", "EulerMaruyama", "Heun", "ProbabilityFlow", "Sampler", "Samples", "sample"]
