"""This module measures the loss or the accuracy of a trained model on held-out data, also at each noise level."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from score_sde import plots
from score_sde.core.arrays import mean_and_error
from score_sde.core.checks import require_whole
from score_sde.experiment import Model
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.losses.heldout import RIGHT_AT_TIME
from score_sde.parallel import processes
from score_sde.sampling import time_grid
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class HeldOutLoss(Evaluation):
    """`HeldOutLoss` measures the mean loss over the examples and its standard error."""

    name: ClassVar[str] = "loss"

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        mean, stderr = mean_and_error(at.held_out.each(*at.arguments))
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
        found, times = _levels(at, self.levels)
        means, errors = _means(at, times)
        picture = at.folder / "loss_per_level.png"
        if processes.is_first():
            # Half of EDM's times lie below a thirtieth of the last time; a linear axis would not separate them.
            xscale = "log" if times[len(times) // 2] < 0.1 * times[-1] and times[0] > 0 else "linear"
            plots.save_curves(picture, {"held-out loss": (times.tolist(), means)}, "t", "loss", xscale)
        found |= {"loss": means, "stderr": errors}
        return found, f"loss at {len(times)} levels of noise, from {means[0]:.3g} to {means[-1]:.3g}; plot: {picture}"


@dataclasses.dataclass(frozen=True)
class AccuracyPerLevel(Evaluation):
    """`AccuracyPerLevel` measures and plots how often a classifier of noised examples is right, by noise level.

    Each held-out example is used at each time of a grid, twice, with different noise. The objective is
    `Classification`, or another one with the method `right_at_time`.

    Attributes:
        levels: the number of times.
    """

    levels: int = 25
    name: ClassVar[str] = "accuracy_per_level"

    def __post_init__(self) -> None:
        require_whole("levels of AccuracyPerLevel", self.levels, 2)

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        found, times = _levels(at, self.levels)
        means, errors = _means(at, times, of=RIGHT_AT_TIME)
        losses, _ = _means(at, times)
        # The noise level sigma / alpha is comparable between SDEs; it is infinite where alpha is 0.
        levels = np.exp(-np.asarray(found["log_snr"]) / 2)
        picture = at.folder / "accuracy_per_level.png"
        if processes.is_first():
            finite = np.isfinite(levels) & (levels > 0)
            curve = (levels[finite].tolist(), np.asarray(means)[finite].tolist())
            plots.save_curves(picture, {"held-out": curve}, "sigma / alpha", "accuracy", "log", "linear")
        found |= {"accuracy": means, "stderr": errors, "cross_entropy": losses}
        shown = {f"{levels[i]:.3g}": means[i] for i in np.linspace(0, len(times) - 1, min(5, len(times))).astype(int)}
        line = ", ".join(f"{mean:.3f} at {level}" for level, mean in shown.items())
        return found, f"accuracy by sigma / alpha: {line}; plot: {picture}"


def _levels(at: Context, count: int) -> tuple[dict[str, Any], np.ndarray]:
    """Return the entries of a result that state the noise levels, and the times of these levels."""
    # A schedule that was learned belongs to the model, not to the config.
    sde = at.model.denoiser.sde if isinstance(at.model, Model) else at.experiment.sde
    times = _times(sde, count)
    log_snr = np.asarray(sde.log_snr(times), np.float64).tolist()
    return {"t": times.tolist(), "log_snr": log_snr, "n": len(at.source)}, times


def _means(at: Context, times: np.ndarray, **options: Any) -> tuple[list[float], list[float]]:
    """Return the means over the examples at each time, and their standard errors."""
    each = [mean_and_error(at.held_out.each(*at.arguments, t=np.float32(t), **options)) for t in times]
    means, errors = ([float(value) for value in column] for column in zip(*each, strict=True))
    return means, errors


def _times(sde: SDE, levels: int) -> np.ndarray:
    """Return times with noise, from the least noise to the most, spaced as in the default grid of the SDE."""
    times = time_grid.default(sde, min(levels, sde.levels or levels) - 1)[::-1]
    times = times if sde.levels else np.concatenate([[float(sde.t_min)], times[1:]])
    return times[np.asarray(sde.variance(times)) > 0]
