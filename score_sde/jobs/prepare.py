"""The preparing job: the data are read, decoded where they need to be, and told."""

from __future__ import annotations

import pathlib

from score_sde import data
from score_sde.experiment import Experiment
from score_sde.jobs.base import Job
from score_sde.parallel import processes


class Prepare(Job):
    """Prepare the data of a config, and say what they are."""

    name = "prepare"
    needs_workdir = False

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        sizes = {"train": len(prepare(experiment)), "test": len(experiment.dataset.source("test"))}
        if processes.is_first():
            told = ", ".join(f"{count:,} in {split}" for split, count in sizes.items())
            print(f"prepared {experiment.config.data.name}: {told}")


# The data set tells these itself, or they follow from what it tells.
_TOLD = {
    f"data.{name}" for name in ("path", "size", "channels", "classes", "shape", "held_out", "mean", "std", "maximum")
}
_TOLD |= {f"data.{name}" for name in ("text", "others", "crop", "filter", "most_pixels")}


def prepare(experiment: Experiment) -> data.Source:
    """Return the training examples, prepared by the first process before the others; say what the data are."""
    source = processes.first_alone(lambda: experiment.dataset.source("train"))
    if processes.is_first():
        print("".join(f"data: {line}\n" for line in experiment.dataset.lines()), end="")
        told = [f"{name}={value!r}" for name, value in experiment.chosen.items() if name not in _TOLD]
        print(f"chosen for these data: {', '.join(told)}\n" * bool(told), end="", flush=True)
    return source
