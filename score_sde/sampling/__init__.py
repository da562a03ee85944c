"""This package holds the samplers, which step from noise to data, and the correctors, which keep the time fixed."""

from score_sde.sampling import time_grid
from score_sde.sampling.adaptive import AdaptiveReverseSDE, ProbabilityFlow
from score_sde.sampling.base import Sampler, Samples, sample
from score_sde.sampling.counting import evaluations
from score_sde.sampling.deterministic import Euler, Heun
from score_sde.sampling.exponential import DPMSolverPP, DPMSolverPP2S
from score_sde.sampling.in_noise_level import DPM2, LMS, DPM2Ancestral
from score_sde.sampling.langevin import AnnealedLangevin, Corrector, Langevin, PredictorCorrector
from score_sde.sampling.stochastic import DDIM, Ancestral, EulerAncestral, EulerMaruyama, ReverseDiffusion

__all__ = [
    "DDIM",
    "DPM2",
    "LMS",
    "AdaptiveReverseSDE",
    "Ancestral",
    "AnnealedLangevin",
    "Corrector",
    "DPM2Ancestral",
    "DPMSolverPP",
    "DPMSolverPP2S",
    "Euler",
    "EulerAncestral",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "Sampler",
    "Samples",
    "evaluations",
    "sample",
    "time_grid",
]
