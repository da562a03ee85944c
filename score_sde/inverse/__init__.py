"""This package solves inverse problems: samples of p(x_0 | y) for measurements y = A x_0 + noise.

`operators` and `general` define A, `variances` and `posterior` define guided denoisers, and `replacement`, `repaint`,
`daps`, `particles` and `dps` define samplers.
"""

from score_sde.inverse.daps import DAPS
from score_sde.inverse.dps import DPS
from score_sde.inverse.general import Chain, Function, Linear, Through
from score_sde.inverse.operators import Blur, Downsample, Gray, Mask, Operator
from score_sde.inverse.particles import Particles
from score_sde.inverse.posterior import Posterior
from score_sde.inverse.replacement import RePaint, Replacement
from score_sde.inverse.variances import Flat, Isotropic, Moments, Prior, RowSums, Variance, Zero

__all__ = [
    "DAPS",
    "DPS",
    "Blur",
    "Chain",
    "Downsample",
    "Flat",
    "Function",
    "Gray",
    "Isotropic",
    "Linear",
    "Mask",
    "Moments",
    "Operator",
    "Particles",
    "Posterior",
    "Prior",
    "RePaint",
    "Replacement",
    "RowSums",
    "Through",
    "Variance",
    "Zero",
]
