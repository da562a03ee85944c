"""The sampling job: examples drawn from a trained model, as an array file and as a picture."""

from __future__ import annotations

import os
import pathlib
import sys
import time

import equinox as eqx
import ml_collections
import numpy as np
import tqdm

from score_sde import checkpoint, images, parallel
from score_sde.core.files import atomic_file
from score_sde.generate import Generator, Images
from score_sde.model import MODEL_FIELDS, check_same


def draw_samples(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Draw config.sample.n examples of the newest checkpoint and say where they are.

    Writes samples/samples.npz (`images`: on the data's own range, (n, height, width, channels), or `points`,
    (n, *shape), for data that are no images; `labels` if the model is conditional; `nfe`) and
    samples/samples.png, the first of them.
    """
    start = time.perf_counter()
    model = checkpoint.load(workdir)
    check_same(config, model.config, MODEL_FIELDS, pathlib.Path(workdir))
    devices = parallel.strategy(config.parallel)
    generator = Generator.from_config(
        config.sample, model.denoiser.sde, model.transform, model.shape, model.num_classes, devices.sharded
    )
    denoiser = eqx.tree_at(lambda d: d.params, model.denoiser, replace_fn=devices.place_state)
    folder = pathlib.Path(workdir) / "samples"
    folder.mkdir(exist_ok=True)  # an unwritable workdir says so now, not after an hour of drawing
    loading = time.perf_counter() - start
    parts, seconds = [], []
    size = generator.batch_size
    for first in tqdm.trange(0, config.sample.n, size, unit="batch", disable=not sys.stderr.isatty()):
        began = time.perf_counter()
        parts.append(generator(denoiser, min(size, config.sample.n - first), first))
        seconds.append(time.perf_counter() - began)
    archive, picture = _save(folder, parts, model.transform.maximum)
    kind = "images" if len(model.shape) == 3 else "points"
    print(
        f"sampled {config.sample.n} {kind} of step {model.step} with {generator.sampler}, {np.mean(parts[0].nfe):.0f} "
        f"evaluations each (seconds: loading {loading:.1f}, first batch with compiling {seconds[0]:.1f}, "
        f"other batches {sum(seconds[1:]):.1f})"
    )
    print(f"  picture: {picture}\n  arrays:  {archive}")


def _save(folder: pathlib.Path, parts: list[Images], maximum: int | None) -> tuple[pathlib.Path, pathlib.Path]:
    name = "images" if parts[0].values.ndim == 4 else "points"
    arrays = {name: np.concatenate([part.values for part in parts])}
    arrays["nfe"] = np.concatenate([part.nfe for part in parts])
    if parts[0].labels is not None:
        arrays["labels"] = np.concatenate([part.labels for part in parts if part.labels is not None])
    archive, picture = folder / "samples.npz", folder / "samples.png"
    with atomic_file(archive) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    drawn = arrays[name]
    images.save_png(picture, images.picture(drawn[: images.shown(drawn.shape[1:])], maximum))
    return archive, picture
