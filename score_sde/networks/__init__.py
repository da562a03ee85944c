"""Networks: plain arguments in, init(key) and apply(params, x, time_label, cond) out."""

from score_sde.networks.base import COMPUTE_SETTINGS, ModuleNetwork, Network
from score_sde.networks.ddpmpp import DDPMpp
from score_sde.networks.mlp import MLP

__all__ = ["COMPUTE_SETTINGS", "MLP", "DDPMpp", "ModuleNetwork", "Network"]
