"""This module defines the job that writes statistics of a data set's features, the reference of a Frechet distance."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from score_sde import config as config_
from score_sde import data, parallel
from score_sde.core.errors import InputError
from score_sde.core.precision import products
from score_sde.experiment import Experiment
from score_sde.jobs.base import Job
from score_sde.jobs.features import compute
from score_sde.jobs.quality import network_of
from score_sde.jobs.quality.base import identity_of
from score_sde.metrics import statistics
from score_sde.parallel import processes


class Stats(Job):
    """`Stats` writes mean and covariance of the features of a split, with the data and the protocol they belong to."""

    name = "stats"
    needs_workdir = False
    flags: ClassVar[Mapping[str, str]] = {
        "features": "the feature network, such as EfficientNetLite0 (the default) or \"Inception(weights='PATH')\"",
        "split": "the split of the data: train (the default) or test",
        "out": "the file to write, such as stats.npz",
    }

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        write_statistics(
            experiment, flags["out"] or "stats.npz", flags["features"] or "EfficientNetLite0", flags["split"] or "train"
        )


def write_statistics(
    experiment: Experiment, path: str | pathlib.Path, features: Any = "EfficientNetLite0", split: str = "train"
) -> None:
    """Write statistics of the features of all examples of a split; every process calls this function.

    Raises:
        InputError: if the split does not exist, if the path is not an .npz file, or if the network does not fit.
        Stopped: after SIGTERM; finished features are kept.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise InputError(f"--out={path} is no .npz file; expected a name such as stats.npz.")
    if split not in ("train", "test"):
        raise InputError(f"--split={split} is no split; expected train or test.")
    network, settings = network_of(features), experiment.config.eval
    source = processes.first_alone(lambda: experiment.dataset.source(split))
    examples = experiment.examples(split, source)
    digest = data.digest(source)
    with products(settings.precision):
        found = compute(
            data.cache_dir() / "features",
            network,
            identity_of(experiment, split, settings.precision) | {"data": digest},
            len(examples),
            lambda numbers: examples.batch(numbers)["values"],
            maximum=experiment.codec.maximum,
            outputs=("features",),
            batch_size=settings.batch_size,
            devices=parallel.strategy(experiment.config.parallel).local,
        )
    if processes.is_first():
        moments = found.moments()[0]
        provenance = {
            "data": {"digest": digest, **config_.to_dict(experiment.config.data)},
            "split": split,
            "features": network.protocol(),
            "rounding": "whole numbers" if experiment.codec.maximum is not None else "none",
            "precision": settings.precision,
        }
        statistics.write(path, moments, provenance)
        print(f"statistics of {moments.n} examples of {split}, {len(moments.mean)} features: {path}")
