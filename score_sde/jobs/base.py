"""This module defines `Job`, the base class of everything that `--mode` can name."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from score_sde.experiment import Experiment


class Job(abc.ABC):
    """A job does one task on an experiment, from the command line or from Python.

    To add a job, subclass `Job` and define `run`; `--mode` accepts the dotted path of the class. If a run has several
    processes, each process calls `run`.

    Attributes:
        name: the name of the job for `--mode`.
        needs_workdir: whether the job requires `--workdir`.
        flags: the command-line flags of the job, {name: description}; the value of each flag is text.
    """

    name: ClassVar[str] = ""
    needs_workdir: ClassVar[bool] = True
    flags: ClassVar[Mapping[str, str]] = {}

    def check(self, experiment: Experiment) -> None:
        """Raise InputError if the config shows that the job cannot run; called before the first job starts.

        Raises:
            InputError: if the config does not suit the job.
        """

    @abc.abstractmethod
    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> Any:
        """Run the job.

        Args:
            experiment: the experiment built from the config.
            workdir: the folder of the run; None if `needs_workdir` is False and no workdir is given.
            **flags: the values of the flags in `flags`; None for a flag that is not given.

        Raises:
            InputError: if the job cannot be done; the message is one line.
            Stopped: after SIGTERM; finished work is kept.
        """
