"""Networks: plain arguments in, init(key) and apply(params, x, time_label, cond) out."""

from score_sde.networks.base import ModuleNetwork, Network
from score_sde.networks.ddpmpp import DDPMpp

__all__ = ["DDPMpp", "ModuleNetwork", "Network"]
