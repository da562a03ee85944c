"""This module selects the checkpoints of a job, and states them in the identity of a result."""

from __future__ import annotations

import os
import pathlib

from score_sde.core import remote
from score_sde.core.errors import InputError
from score_sde.experiment import Checkpoints, Model
from score_sde.jobs.results import Identity
from score_sde.parallel import processes


def chosen(
    workdir: pathlib.Path, which: str, folder: pathlib.Path, section: str
) -> list[tuple[int | None, pathlib.Path]]:
    """Return the checkpoints that an entry `checkpoints` names, oldest first, each with the folder of its results.

    Args:
        workdir: the workdir.
        which: 'newest' for the newest whole checkpoint, which is returned as None; 'all'; or steps, '1000,2000'.
        folder: the folder for the results of 'newest'; the results of other checkpoints go to step_STEP/ in `folder`.
        section: the section of the config, for messages.

    Raises:
        InputError: if the workdir does not have a named step; the message lists the existing steps.
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
        raise InputError(f"{workdir} has no checkpoint {what}, which {section}.checkpoints requires; existing: {have}.")
    processes.check_agreed(f"the checkpoints of {workdir}", str(steps))
    return [(step, folder / f"step_{step:07d}") for step in steps]


def identity_of(model: Model) -> Identity:
    """Return the part of the identity of a result that is the model: checkpoint, and dtype of the network."""
    dtype = getattr(getattr(model.denoiser, "apply", None), "dtype", "float32")
    return {"checkpoint_step": model.step, "checkpoint_digest": model.digest, "dtype": dtype}


def check_shared(workdir: str | os.PathLike[str]) -> None:
    """Raise InputError if several processes use a workdir at an address, where they do not see each other's parts."""
    if processes.count() > 1 and remote.is_address(workdir):
        raise InputError(
            f"{os.fspath(workdir)} is an address, and {processes.count()} processes share the job; expected one "
            "process, or a folder that all processes see."
        )
