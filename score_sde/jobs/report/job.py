"""This module defines the job that writes report.html."""

from __future__ import annotations

import pathlib

from score_sde.core import files
from score_sde.core.errors import InputError
from score_sde.experiment import Experiment, load_trained, made_of
from score_sde.jobs.base import Job
from score_sde.jobs.report import sections
from score_sde.jobs.report.page import Page
from score_sde.parallel import processes


class Report(Job):
    """`Report` writes report.html, which shows the settings and the results of a run."""

    name = "report"

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        path = write_report(experiment, workdir)
        if processes.is_first():
            print(f"report: {path}")
        processes.barrier("reported")


def write_report(experiment: Experiment, workdir: pathlib.Path, draws: bool = True) -> pathlib.Path:
    """Write the report of a run into its workdir, whole or not at all, and return the path of the report.

    If a run has several processes, each process calls this function, and only the first process writes.

    Args:
        experiment: the experiment built from the config of the run.
        workdir: the workdir, with a checkpoint.
        draws: whether samples are drawn if the report needs them (denoising trajectories); otherwise the report shows
            existing results only.

    Raises:
        InputError: if the workdir has nothing to report.
    """
    trained = load_trained(workdir, None, dtype=experiment.config.network.get("dtype"))
    path = workdir / "report.html"
    if not processes.is_first():
        return path
    at = sections.Subject(experiment, workdir, trained, made_of(trained), draws)
    page = Page(f"{experiment.config.data.name}: {workdir.resolve().name}, step {trained.step}")
    for section in sections.ALL:
        try:
            section(page, at)
        except (InputError, OSError) as error:
            page.text(f"Not shown: {error}")
    files.write_text(path, page.html())
    return path
