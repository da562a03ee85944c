"""This package defines the networks.

A network is built from plain arguments and has the methods init(key) and apply(params, x, time_label, cond).
"""

from score_sde.networks.base import COMPUTE_SETTINGS, ModuleNetwork, Network
from score_sde.networks.classifiers import UNetClassifier, WideResNet
from score_sde.networks.families import DDPM, DDPMpp, NCSNpp, UNetNetwork
from score_sde.networks.layers import Trait
from score_sde.networks.mlp import MLP
from score_sde.networks.parting import joined, parted
from score_sde.networks.plan import Piece, UNetSpec, pieces
from score_sde.networks.refinenet import NCSN, NCSNv2, RefineNetwork

__all__ = [
    "COMPUTE_SETTINGS",
    "DDPM",
    "MLP",
    "NCSN",
    "DDPMpp",
    "ModuleNetwork",
    "NCSNpp",
    "NCSNv2",
    "Network",
    "Piece",
    "RefineNetwork",
    "Trait",
    "UNetClassifier",
    "UNetNetwork",
    "UNetSpec",
    "WideResNet",
    "joined",
    "parted",
    "pieces",
]
