"""This package defines stochastic differential equations from data to noise, in continuous time and as chains."""

from score_sde.sde.base import SDE
from score_sde.sde.chain import DDPM, SMLD, Chain, CosineDDPM, DiscreteVP, SmoothChain
from score_sde.sde.continuous import EDM, VE, VP, CosineVP, RectifiedFlow, SigmoidVP, SubVP
from score_sde.sde.learned import LearnedVP

__all__ = [
    "DDPM",
    "EDM",
    "SDE",
    "SMLD",
    "VE",
    "VP",
    "Chain",
    "CosineDDPM",
    "CosineVP",
    "DiscreteVP",
    "LearnedVP",
    "RectifiedFlow",
    "SigmoidVP",
    "SmoothChain",
    "SubVP",
]
