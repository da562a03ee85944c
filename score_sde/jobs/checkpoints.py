"""Which checkpoints a job is for."""

from __future__ import annotations

import os
import pathlib

from score_sde.core import remote
from score_sde.core.errors import InputError
from score_sde.experiment import Checkpoints
from score_sde.parallel import processes


def chosen(
    workdir: pathlib.Path, which: str, folder: pathlib.Path, section: str
) -> list[tuple[int | None, pathlib.Path]]:
    """The checkpoints that an entry `checkpoints` names, oldest first, each with the folder of its results.

    Args:
        workdir: the workdir.
        which: 'newest' for the newest one that is whole, which comes back as None; 'all'; or steps, '1000,2000'.
        folder: where results go: those of the newest into it, those of the others into its step_STEP/.
        section: of the config, for messages.

    Raises:
        InputError: for steps that the workdir does not have, with those that are there.
    """
    if which == "newest":
        return [(None, folder)]
    words = [] if which == "all" else [word.strip() for word in str(which).split(",")]
    if not all(word.isdecimal() for word in words):
        raise InputError(
            f"{section}.checkpoints is {which!r}; expected 'newest', 'all', or steps, such as '1000,2000'."
        )
    with Checkpoints(workdir) as checkpoints:
        there = checkpoints.steps() if checkpoints.folder.exists() else []
    steps = sorted({int(word) for word in words}) or there
    missing = [step for step in steps if step not in there]
    if missing or not there:
        have = ", ".join(map(str, there)) or "none"
        what = f"of step {missing[0]}" if missing else "at all"
        raise InputError(f"{workdir} has no checkpoint {what}, which {section}.checkpoints asks for; it has {have}.")
    processes.check_agreed(f"the checkpoints of {workdir}", str(steps))
    return [(step, folder / f"step_{step:07d}") for step in steps]


def check_shared(workdir: str | os.PathLike[str]) -> None:
    """Refuse a job of several processes in a workdir at an address, where one does not see another's parts."""
    if processes.count() > 1 and remote.is_address(workdir):
        raise InputError(
            f"{os.fspath(workdir)} is an address, and {processes.count()} processes share the job; expected one "
            "process, or a folder that all of them see."
        )
