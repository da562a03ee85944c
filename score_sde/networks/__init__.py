"""Networks: plain arguments in, init(key) and apply(params, x, time_label, cond) out."""

from score_sde.networks.base import COMPUTE_SETTINGS, ModuleNetwork, Network
from score_sde.networks.families import DDPM, DDPMpp, NCSNpp, UNetNetwork
from score_sde.networks.mlp import MLP
from score_sde.networks.plan import Piece, UNetSpec, pieces

__all__ = [
    "COMPUTE_SETTINGS",
    "DDPM",
    "MLP",
    "DDPMpp",
    "ModuleNetwork",
    "NCSNpp",
    "Network",
    "Piece",
    "UNetNetwork",
    "UNetSpec",
    "pieces",
]
