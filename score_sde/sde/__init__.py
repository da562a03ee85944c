"""Stochastic differential equations that turn data into noise, in continuous time and as chains."""

from score_sde.sde.base import SDE
from score_sde.sde.chain import DDPM, SMLD, Chain, CosineDDPM, DiscreteVP, SmoothChain
from score_sde.sde.continuous import VE, VP, CosineVP, Karras, SigmoidVP, StraightLine, SubVP

__all__ = [
    "DDPM",
    "SDE",
    "SMLD",
    "VE",
    "VP",
    "Chain",
    "CosineDDPM",
    "CosineVP",
    "DiscreteVP",
    "Karras",
    "SigmoidVP",
    "SmoothChain",
    "StraightLine",
    "SubVP",
]
