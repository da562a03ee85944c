"""This module measures the loss of a trained model on held-out data, as in training and at each noise level."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from score_sde import plots
from score_sde.core.checks import require_whole
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.parallel import processes
from score_sde.sampling import time_grid
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class HeldOutLoss(Evaluation):
    """`HeldOutLoss` measures the mean loss over the examples and its standard error."""

    name: ClassVar[str] = "loss"

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        mean, stderr = _mean(at.held_out.each(*at.arguments))
        found = {"loss": mean, "stderr": stderr, "n": len(at.source)}
        return found, f"held-out loss {mean:.4f} +- {stderr:.4f} ({len(at.source)} examples)"


@dataclasses.dataclass(frozen=True)
class LossPerLevel(Evaluation):
    """`LossPerLevel` measures and plots the mean loss at each time of a grid; every example is used at each time.

    Attributes:
        levels: the number of times.
    """

    levels: int = 25
    name: ClassVar[str] = "loss_per_level"

    def __post_init__(self) -> None:
        require_whole("levels of LossPerLevel", self.levels, 2)

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        sde = at.experiment.sde
        times = _times(sde, self.levels)
        each = [_mean(at.held_out.each(*at.arguments, t=np.float32(t))) for t in times]
        means, errors = ([float(value) for value in column] for column in zip(*each, strict=True))
        picture = at.folder / "loss_per_level.png"
        if processes.is_first():
            # Half of EDM's times lie below a thirtieth of the last time; a linear axis would not separate them.
            xscale = "log" if times[len(times) // 2] < 0.1 * times[-1] and times[0] > 0 else "linear"
            plots.save_curves(picture, {"held-out loss": (times.tolist(), means)}, "t", "loss", xscale)
        found = {
            "t": times.tolist(),
            "log_snr": np.asarray(sde.log_snr(times), np.float64).tolist(),
            "loss": means,
            "stderr": errors,
            "n": len(at.source),
        }
        return found, f"loss at {len(times)} levels of noise, from {means[0]:.3g} to {means[-1]:.3g}; plot: {picture}"


def _times(sde: SDE, levels: int) -> np.ndarray:
    """Return times from the least noise to the most, spaced as in the default grid of the SDE."""
    times = time_grid.default(sde, min(levels, sde.levels or levels) - 1)[::-1]
    return times if sde.levels else np.concatenate([[float(sde.t_min)], times[1:]])


def _mean(values: np.ndarray) -> tuple[float, float]:
    stderr = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(stderr)
