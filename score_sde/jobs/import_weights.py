"""This module defines the job that makes a workdir from a published checkpoint."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping
from typing import ClassVar

from score_sde.experiment import Checkpoints, Experiment
from score_sde.jobs.base import Job
from score_sde.pretrained.importing import REPORT, import_weights


class Import(Job):
    """`Import` makes a workdir from a published checkpoint and prints a report."""

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
            print(f"nothing left to import: {workdir} was made from {report.file}")
            return
        print(report.text())
        print(f"  report:  {workdir / REPORT}\n  weights: {workdir / 'checkpoints'}")
        if report.suspicious:
            print(
                "warning: the model differs from the expected values by more than rounding: a setting without "
                "parameters (data.centered, parametrization.scale_by_sigma, skip_rescale, fir, fir_kernel, "
                "nonlinearity) may have another value in the published model.",
                file=sys.stderr,
            )
