"""The sampling job: examples drawn from a trained model, as an array file and as a picture."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from typing import Any

import equinox as eqx
import ml_collections
import numpy as np

from score_sde import checkpoint, images, parallel
from score_sde import config as config_
from score_sde.evaluation import job as room
from score_sde.evaluation import results
from score_sde.evaluation.checkpoints import chosen
from score_sde.evaluation.parts import Columns, Parts
from score_sde.generate import Generator
from score_sde.model import MODEL_FIELDS, Model, check_same
from score_sde.parallel import processes


def draw_samples(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Draw config.sample.n examples of the newest checkpoint, or of config.sample.checkpoints, and say where they are.

    Writes samples/samples.npz (`images`: on the data's own range, (n, height, width, channels), or `points`,
    (n, *shape), for data that are no images; `labels` if the model is conditional; `nfe`; `index`),
    samples/samples.png, the first of them, and samples/samples.json, what they are of; of checkpoints that
    are named, in samples/step_STEP/. With several processes each calls this.

    Raises:
        InputError: for a config or a workdir that cannot be sampled from.
        DivergenceError: for samples that are not finite.
        Stopped: after SIGTERM, with what is done so far kept.
    """
    workdir, spec = pathlib.Path(workdir), config.sample
    processes.check_agreed("the config", config_.to_json(config))
    for step, folder in chosen(workdir, spec.get("checkpoints", "newest"), workdir / "samples", "sample"):
        began = time.perf_counter()
        model = checkpoint.load(workdir, step, dtype=config.network.get("dtype"))
        check_same(config, model.config, MODEL_FIELDS, workdir)
        _draw(config, model, folder, began)
    processes.barrier("sampled")


def _draw(config: ml_collections.ConfigDict, model: Model, folder: pathlib.Path, began: float) -> None:
    """The samples of one checkpoint."""
    devices, n = parallel.strategy(config.parallel).local, config.sample.n
    generator = Generator.from_config(
        config.sample, model.denoiser.sde, model.transform, model.shape, model.num_classes, devices.sharded
    )
    size = room.equal_batches(n, config.sample.batch_size)
    generator = dataclasses.replace(generator, batch_size=size)
    identity = _identity(config, model)
    parts, done = Parts(folder, "samples", identity), _is_there(folder / "samples.json", identity | {"n": n})
    processes.check_agreed(f"the samples in {folder}, or its checkpoint", f"{done} {results.plain(identity)}")
    if done:
        if processes.is_first():
            parts.remove()
            print(f"nothing left to sample: {folder} has {n} of step {model.step}")
        return
    if processes.is_first():
        folder.mkdir(parents=True, exist_ok=True)  # an unwritable workdir says so now, not after an hour of drawing
    denoiser = eqx.tree_at(lambda d: d.params, model.denoiser, replace_fn=devices.place_state)
    name = "images" if len(model.shape) == 3 else "points"

    def draw(numbers: np.ndarray) -> Columns:
        drawn = generator(denoiser, len(numbers), first=int(numbers[0]))
        labels = {} if drawn.labels is None else {"labels": drawn.labels}
        return {name: drawn.values, **labels, "nfe": drawn.nfe}

    loading = time.perf_counter() - began
    spent = room.run(parts, n, size, draw, name)
    if not processes.is_first():
        return
    archive, picture = folder / "samples.npz", folder / "samples.png"
    (folder / "samples.json").unlink(missing_ok=True)  # it tells of other samples
    seconds = parts.merge(archive, n)
    with np.load(archive) as arrays:
        nfe, shown = arrays["nfe"], arrays[name][: images.shown(model.shape)]
    images.save_png(picture, images.picture(shown, model.transform.maximum))
    results.write(folder / "samples.json", {"n": n, "seconds": round(seconds, 3)}, identity)
    parts.remove()
    print(
        f"sampled {n} {name} of step {model.step} with {generator.sampler}, {np.mean(nfe):.0f} evaluations each "
        f"(seconds: loading {loading:.1f}, first batch with compiling {spent.first:.1f}, other batches "
        f"{spent.others:.1f})"
    )
    print(f"  picture: {picture}\n  arrays:  {archive}")


def _identity(config: ml_collections.ConfigDict, model: Model) -> dict[str, Any]:
    """All that a sample depends on but its number."""
    spec = config_.to_dict(config.sample)
    of_the_job = ("n", "batch_size", "checkpoints")
    settings = {name: value for name, value in spec.items() if name not in of_the_job}
    dtype = getattr(getattr(model.denoiser, "apply", None), "dtype", "float32")
    return {"checkpoint_step": model.step, "checkpoint_digest": model.digest, "dtype": dtype, **settings}


def _is_there(path: pathlib.Path, identity: dict[str, Any]) -> bool:
    """Whether the samples are there; those of anything else are drawn over."""
    try:
        return not results.differences(path.read_bytes(), identity)[1]
    except (FileNotFoundError, ValueError):
        return False
