"""This module computes trajectories from noise to samples: the states, and the denoiser's estimate at each state."""

from __future__ import annotations

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np

from score_sde import config as config_
from score_sde import sampling
from score_sde.core import files, given
from score_sde.core.precision import products
from score_sde.experiment import Experiment, Model
from score_sde.jobs import results
from score_sde.jobs.generator import Generator

_SAMPLES = 4
_TIMES = 8
_NAME = "trajectories"
_PICTURES_STD = 0.5  # for data on [-1, 1]: Karras et al. 2022


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """`Trajectories` holds the trajectories of some samples.

    Attributes:
        times: the times from the most noise to the least.
        states: x_t scaled to the standard deviation of the data (0.5 for pictures, 1 for real numbers), on the data's
            own scale, (samples, times, *shape).
        means: E[x_0 | x_t] on the data's own scale, (samples, times, *shape).
        sampler: the sampler in words.
    """

    times: np.ndarray
    states: np.ndarray
    means: np.ndarray
    sampler: str


def trajectories(experiment: Experiment, model: Model, workdir: pathlib.Path) -> Trajectories:
    """Return the trajectories of samples 0 to 3 of config.sample at eight times; keep them in report/ for reuse."""
    spec = experiment.config.sample
    generator = Generator.from_config(spec, model.denoiser, model.codec, asking=False)
    identity = {
        "checkpoint_digest": model.digest,
        "sampler": config_.to_dict(spec.sampler),
        "grid": config_.to_dict(spec.grid),
        **{name: spec[name] for name in ("seed", "guidance", "clip", "cond")},
    }
    folder = results.place(workdir / "report", _NAME, identity)
    archive = folder / f"{_NAME}.npz"
    if not (results.is_there(folder, _NAME, identity) and archive.exists()):
        found = _walk(generator, model)
        with files.atomic_file(archive) as file:
            np.savez(file, times=found.times, states=found.states, means=found.means)
        results.write(folder / f"{_NAME}.json", {}, identity)
    with np.load(archive) as arrays:
        return Trajectories(arrays["times"], arrays["states"], arrays["means"], str(generator.sampler))


def _walk(generator: Generator, model: Model) -> Trajectories:
    denoiser, codec = generator.guided(model.denoiser), model.codec
    cond = given.asked_for(generator.asked, generator.reads(denoiser), np.arange(_SAMPLES))
    with products(generator.precision):
        walk = sampling.sample(
            denoiser,
            generator.sampler,
            generator.grid,
            codec.model_shape,
            n=_SAMPLES,
            seed=generator.seed,
            cond=cond,
            denoise=generator.denoise,
            trajectory=True,
        ).trajectory
        assert walk is not None
        places = np.unique(np.linspace(0, len(generator.grid) - 1, _TIMES).round().astype(int))
        times = np.asarray(generator.grid)[places]
        states, means = [], []
        for place, t in zip(places, times, strict=True):
            x, now = jnp.asarray(walk[:, place]), jnp.full((_SAMPLES,), t, jnp.float32)
            alpha, sigma = denoiser.sde.alpha(now[0]), denoiser.sde.sigma(now[0])
            std = 1.0 if codec.model_range is None else _PICTURES_STD
            scale = jnp.sqrt(alpha**2 * std**2 + sigma**2) / std
            states.append(np.asarray(codec.quantize(codec.decode(x / scale))))
            means.append(np.asarray(codec.quantize(codec.decode(denoiser.predict(x, now, cond).x0))))
    return Trajectories(times, np.stack(states, 1), np.stack(means, 1), str(generator.sampler))
