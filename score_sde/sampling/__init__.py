"""This package holds the samplers, which step from noise to data, and the correctors, which keep the time fixed."""

from score_sde.sampling import time_grid
from score_sde.sampling.adaptive import AdaptiveReverseSDE, ProbabilityFlow
from score_sde.sampling.base import Sampler, Samples, sample
from score_sde.sampling.counting import evaluations
from score_sde.sampling.deterministic import Euler, Heun
from score_sde.sampling.exponential import DPMSolverPP, SASolver, UniPC
from score_sde.sampling.in_noise_level import DPM2, LMS, DPM2Ancestral, LMSAncestral
from score_sde.sampling.langevin import AnnealedLangevin, Corrector, Langevin, PredictorCorrector
from score_sde.sampling.pndm import PNDM
from score_sde.sampling.restart import Restart
from score_sde.sampling.srk import SRA1
from score_sde.sampling.stochastic import DDIM, Ancestral, EulerAncestral, EulerMaruyama, ReverseDiffusion
from score_sde.sampling.two_stages import DPMSolverPP2S, DPMSolverPPSDE

__all__ = [
    "DDIM",
    "DPM2",
    "LMS",
    "PNDM",
    "SRA1",
    "AdaptiveReverseSDE",
    "Ancestral",
    "AnnealedLangevin",
    "Corrector",
    "DPM2Ancestral",
    "DPMSolverPP",
    "DPMSolverPP2S",
    "DPMSolverPPSDE",
    "Euler",
    "EulerAncestral",
    "EulerMaruyama",
    "Heun",
    "LMSAncestral",
    "Langevin",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Restart",
    "ReverseDiffusion",
    "SASolver",
    "Sampler",
    "Samples",
    "UniPC",
    "evaluations",
    "sample",
    "time_grid",
]
