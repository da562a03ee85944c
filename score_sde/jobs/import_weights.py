"""The job that makes a workdir of a published checkpoint."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping
from typing import ClassVar

from score_sde.experiment import Checkpoints, Experiment
from score_sde.jobs.base import Job
from score_sde.pretrained.importing import REPORT, import_weights


class Import(Job):
    """Make a workdir of a published checkpoint, and say what came of it."""

    name = "import"
    flags: ClassVar[Mapping[str, str]] = {
        "weights": "a .pth file, or a msgpack checkpoint of flax",
        "expect": "an .npz file of x, label and output, to compare with",
    }

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        with Checkpoints(workdir) as checkpoints:
            is_there = bool(checkpoints.steps())
        report = import_weights(experiment, workdir, flags.get("weights"), flags.get("expect"))
        if is_there:
            print(f"nothing left to import: {workdir} was made of {report.file}")
            return
        print(report.text())
        print(f"  report:  {workdir / REPORT}\n  weights: {workdir / 'checkpoints'}")
        if report.suspicious:
            print(
                "warning: what was expected differs by more than rounding: a setting that has no parameters "
                "(data.centered, parametrization.scale_by_sigma, skip_rescale, fir, fir_kernel, nonlinearity) may be "
                "another one there.",
                file=sys.stderr,
            )
