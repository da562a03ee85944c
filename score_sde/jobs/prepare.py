"""This module defines the preparing job, which reads the data, decodes them if necessary, and describes them."""

from __future__ import annotations

import pathlib

from score_sde import data
from score_sde.experiment import Experiment
from score_sde.jobs.base import Job
from score_sde.parallel import processes


class Prepare(Job):
    """`Prepare` prepares the data of a config and prints a description of the data."""

    name = "prepare"
    needs_workdir = False

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        sizes = {"train": len(prepare(experiment)), "test": len(experiment.dataset.source("test"))}
        if processes.is_first():
            told = ", ".join(f"{count:,} in {split}" for split, count in sizes.items())
            print(f"prepared {experiment.config.data.name}: {told}")


# The data set prints these entries itself, or they follow from the lines that the data set prints.
_TOLD = {
    f"data.{name}" for name in ("path", "size", "channels", "classes", "shape", "held_out", "mean", "std", "maximum")
}
_TOLD |= {f"data.{name}" for name in ("text", "others", "crop", "filter", "most_pixels")}


def prepare(experiment: Experiment) -> data.Source:
    """Return the training examples, prepared by the first process before the others, and describe the data."""
    source = processes.first_alone(lambda: experiment.dataset.source("train"))
    if processes.is_first():
        print("".join(f"data: {line}\n" for line in experiment.dataset.lines()), end="")
        told = [f"{name}={value!r}" for name, value in experiment.chosen.items() if name not in _TOLD]
        print(f"chosen for these data: {', '.join(told)}\n" * bool(told), end="", flush=True)
    return source
