"""The loss of a trained model on held-out data: as trained, and level by level of noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from score_sde import images, time_grid
from score_sde.objective import HeldOut
from score_sde.parallel import processes
from score_sde.sde import SDE

if TYPE_CHECKING:
    from score_sde.evaluation.evaluate import Job

_LEVELS = 25


def held_out(job: Job) -> tuple[dict[str, Any], str]:
    """The mean loss and its standard error over the examples."""
    mean, stderr = _mean(_held_out(job).each(job.denoiser(job.devices).params))
    found = {"loss": mean, "stderr": stderr, "n": len(job.source)}
    return found, f"held-out loss {mean:.4f} +- {stderr:.4f} ({len(job.source)} examples)"


def per_level(job: Job) -> tuple[dict[str, Any], str]:
    """The mean loss at each of a grid of times, every example at each; with a plot."""
    sde, held, params = job.model.denoiser.sde, _held_out(job), job.denoiser(job.devices).params
    times = _levels(sde)
    each = [_mean(held.each(params, np.float32(t))) for t in times]
    means, errors = ([float(value) for value in column] for column in zip(*each, strict=True))
    picture = job.folder / "loss_per_level.png"
    if processes.is_first():
        images.save_curves(picture, {"held-out loss": (times.tolist(), means)}, "t", "loss")
    found = {
        "t": times.tolist(),
        "log_snr": np.asarray(sde.log_snr(times), np.float64).tolist(),
        "loss": means,
        "stderr": errors,
        "n": len(job.source),
    }
    return found, f"loss at {len(times)} levels of noise, from {means[0]:.3g} to {means[-1]:.3g}; plot: {picture}"


def _levels(sde: SDE) -> np.ndarray:
    """Times from the least noise to the most, even as the SDE's own grid is."""
    times = time_grid.default(sde, min(_LEVELS, sde.levels or _LEVELS) - 1)[::-1]
    return times if sde.levels else np.concatenate([[float(sde.t_min)], times[1:]])


def _held_out(job: Job) -> HeldOut:
    size = job.devices.padded(job.settings.batch_size)
    return HeldOut(job.objective, job.devices, job.source, size, job.settings.seed)


def _mean(values: np.ndarray) -> tuple[float, float]:
    stderr = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(stderr)
