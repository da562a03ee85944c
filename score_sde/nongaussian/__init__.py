"""Diffusion without Gaussian noise: pixels set to black or white, and degradations (docs/nongaussian.md)."""

from score_sde.nongaussian.binary import BinaryImages, PixelNoise, PreviousState
from score_sde.nongaussian.degradations import Blurring, Degradation, Masking, Mixing, Pixelating
from score_sde.nongaussian.objectives import OneStep, Restoration
from score_sde.nongaussian.process import Process
from score_sde.nongaussian.samplers import Cold, Renoise, Stepwise, every

__all__ = [
    "BinaryImages",
    "Blurring",
    "Cold",
    "Degradation",
    "Masking",
    "Mixing",
    "OneStep",
    "PixelNoise",
    "Pixelating",
    "PreviousState",
    "Process",
    "Renoise",
    "Restoration",
    "Stepwise",
    "every",
]
