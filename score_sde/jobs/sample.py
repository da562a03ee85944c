"""This module defines the sampling job, which draws examples from a trained model into an array file and a picture."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from score_sde import config as config_
from score_sde import parallel, plots
from score_sde.core.errors import InputError
from score_sde.experiment import Experiment, Model, check_same, load_trained, made_of, opened
from score_sde.experiment.guides import content_of
from score_sde.jobs import results, runner
from score_sde.jobs.base import Job
from score_sde.jobs.checkpoints import check_shared, chosen, identity_of
from score_sde.jobs.evaluation import placed
from score_sde.jobs.generator import Generator
from score_sde.jobs.parts import Columns, Parts
from score_sde.losses import Trained
from score_sde.parallel import processes

_NAME = "samples"
# Entries of config.sample on which no single sample depends.
_OF_THE_JOB = ("n", "batch_size", "checkpoints")


class Sample(Job):
    """`Sample` draws config.sample.n examples."""

    name = "sample"

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        draw_samples(experiment, workdir)


def draw_samples(experiment: Experiment | Mapping[str, Any], workdir: str | os.PathLike[str]) -> None:
    """Draw config.sample.n examples of the newest checkpoint, or of config.sample.checkpoints, and print the paths.

    The job writes samples/samples.npz, samples/samples.png with the first samples, and samples/samples.json with the
    identity of the samples. samples.npz holds `images` on the data's own range, (n, height, width, channels), or
    `points`, (n, *shape), if the data are not images; `labels` if the model reads a class; other conditions by name;
    `nfe`; and `index`. Existing samples are not drawn again. Samples of another checkpoint or other settings are kept,
    and the new samples go to samples/samples-DIGEST/. If a run has several processes, each process calls this function.

    Raises:
        InputError: if the config or the workdir does not allow sampling.
        DivergenceError: if a sample is not finite.
        Stopped: after SIGTERM; finished samples are kept.
    """
    experiment = experiment if isinstance(experiment, Experiment) else Experiment.from_config(experiment)
    check_shared(workdir)
    with opened(workdir, writes=True) as folder:
        _draw_samples(experiment, folder)


def _draw_samples(experiment: Experiment, workdir: pathlib.Path) -> None:
    config = experiment.config
    processes.check_agreed("the config", config_.to_json(config))
    for step, root in chosen(workdir, config.sample.checkpoints, workdir / "samples", "sample"):
        began = time.perf_counter()
        trained = load_trained(workdir, step, dtype=config.network.get("dtype"))
        check_same(config, trained.experiment.config, config_.NOT_OF_THE_MODEL, workdir)
        draw(experiment, trained, root, config.sample.n, began)
    processes.barrier("sampled")


def samples_of(experiment: Experiment, trained: Trained, workdir: pathlib.Path, n: int) -> pathlib.Path:
    """Return a folder of samples.npz with at least n samples as config.sample specifies; draw missing samples."""
    root, model = workdir / "samples", made_of(trained)
    if isinstance(model, Model):
        existing = _existing(root, _identity(experiment.config, model))
        enough = [count for count in existing if count >= n]
        if enough:
            return existing[min(enough)]
    return draw(experiment, trained, root, n, time.perf_counter())


def draw(experiment: Experiment, trained: Trained, root: pathlib.Path, n: int, began: float) -> pathlib.Path:
    """Draw samples of one checkpoint under `root` and return their folder; `began` is the time when loading began."""
    model, config = made_of(trained), experiment.config
    if not isinstance(model, Model):
        raise InputError(
            f"{type(experiment.objective).__name__} trains no denoiser, so there is nothing to sample from."
        )
    devices = parallel.strategy(config.parallel).local
    generator = Generator.from_config(config.sample, model.denoiser, model.codec, devices.sharded)
    size = runner.equal_batches(n, config.sample.batch_size)
    generator = dataclasses.replace(generator, batch_size=size)
    identity = _identity(config, model)
    existing = _existing(root, identity)
    folder = existing.get(n) or results.place(root, _NAME, identity | {"n": n})
    parts, done = Parts(root, _NAME, identity), n in existing
    processes.check_agreed(f"the samples in {root}, or its checkpoint", f"{done} {results.plain(identity)}")
    if done:
        if processes.is_first():
            parts.remove()
            print(f"nothing left to sample: {folder} has {n} samples of step {model.step}")
        return folder
    if processes.is_first():
        folder.mkdir(parents=True, exist_ok=True)  # an unwritable workdir fails now, not after an hour of drawing
    denoiser = placed(model.denoiser, devices)
    generator = generator.with_fitted_grid(denoiser, root / "grids", identity)
    name = "images" if len(model.codec.data_shape) == 3 else "points"

    def columns(numbers: np.ndarray) -> Columns:
        drawn = generator(denoiser, len(numbers), first=int(numbers[0]))
        return {name: drawn.values, **drawn.columns(), "nfe": drawn.nfe}

    loading = time.perf_counter() - began
    if processes.is_first():
        _start_from(parts, existing, n)
    spent = runner.run(parts, n, size, columns, name)
    if processes.is_first():
        _finish(parts, folder, name, n, model, identity)
        with np.load(folder / "samples.npz") as arrays:
            nfe = arrays["nfe"].mean()
        print(
            f"sampled {n} {name} of step {model.step} with {generator.sampler}, {nfe:.0f} evaluations each "
            f"(seconds: loading {loading:.1f}, first batch with compiling {spent.first:.1f}, other batches "
            f"{spent.others:.1f})"
        )
        print(f"  picture: {folder / 'samples.png'}\n  arrays:  {folder / 'samples.npz'}")
    processes.barrier("drawn")
    return folder


def _finish(parts: Parts, folder: pathlib.Path, name: str, n: int, model: Model, identity: results.Identity) -> None:
    """Write the files from the parts; the file with the identity comes last."""
    seconds = parts.merge(folder / "samples.npz", n)
    with np.load(folder / "samples.npz") as arrays:
        shown = arrays[name][: plots.shown(model.codec.data_shape)]
    plots.save_png(folder / "samples.png", plots.picture(shown, model.codec.maximum))
    results.write(folder / f"{_NAME}.json", {"seconds": round(seconds, 3)}, identity | {"n": n})
    parts.remove()


def sample_settings(config: Any) -> dict[str, Any]:
    """Return the entries of config.sample on which a sample depends, and the digests of what they name."""
    settings = {name: value for name, value in config_.to_dict(config.sample).items() if name not in _OF_THE_JOB}
    asked = config_.read_arguments("sample.cond", config.sample.cond)
    content = content_of("sample.guidance", config.sample.guidance, asked)
    return settings | ({"content": content} if content else {})


def _existing(root: pathlib.Path, identity: results.Identity) -> dict[int, pathlib.Path]:
    """Return the folders of finished samples of this identity, by the number of samples."""
    found: dict[int, pathlib.Path] = {}
    for folder in (root, *sorted(root.glob(f"{_NAME}-*"))):
        if results.is_there(folder, _NAME, identity) and (folder / "samples.npz").exists():
            found.setdefault(int(results.read(folder, _NAME)["n"]), folder)
    return found


def _start_from(parts: Parts, existing: dict[int, pathlib.Path], n: int) -> None:
    """Copy the first samples from existing samples of the same settings, unless some samples have been drawn."""
    counts = [min(count, n) for count in existing]
    if not counts or parts.done(n).any():
        return
    most = max(counts)
    folder = next(folder for count, folder in existing.items() if count >= most)
    with np.load(folder / "samples.npz") as arrays:
        parts.write(0, {name: arrays[name][:most] for name in arrays.files if name != "index"}, 0.0)


def _identity(config: Any, model: Model) -> results.Identity:
    """Return everything on which a sample depends, except its number."""
    return identity_of(model) | sample_settings(config)
