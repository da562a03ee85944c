"""What a job is: something that `--mode` names."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from score_sde.experiment import Experiment


class Job(abc.ABC):
    """A job on an experiment, by the command line or from Python.

    To add one, subclass and define `run`; `--mode` names it by its dotted path. Several processes of one run each call
    it.

    Attributes:
        name: what `--mode` calls it.
        needs_workdir: whether it cannot do without `--workdir`.
        flags: its own flags of the command line, {name: what it is}; each is text.
    """

    name: ClassVar[str] = ""
    needs_workdir: ClassVar[bool] = True
    flags: ClassVar[Mapping[str, str]] = {}

    def check(self, experiment: Experiment) -> None:
        """Refuse what the config alone shows that it cannot do; called before the first of the jobs begins.

        Raises:
            InputError: for it.
        """

    @abc.abstractmethod
    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> Any:
        """Do it.

        Args:
            experiment: what the config makes.
            workdir: the folder of the run; None where `needs_workdir` is False and there is none.
            **flags: the values of `flags`, None where they are not given.

        Raises:
            InputError: for what cannot be done, told in one line.
            Stopped: after SIGTERM, with what is done so far kept.
        """
