"""Which checkpoints a job is for."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from score_sde.checkpoint import Checkpoints
from score_sde.core.checks import is_whole
from score_sde.core.errors import InputError


def chosen(
    workdir: pathlib.Path, steps: str | Sequence[int], folder: pathlib.Path, section: str
) -> list[tuple[int | None, pathlib.Path]]:
    """The checkpoints that an entry `checkpoints` names, oldest first, each with the folder of its results.

    Args:
        workdir: the workdir.
        steps: () for the newest one that is whole, which comes back as None; else steps, or 'all'.
        folder: where results go: those of the newest into it, those of named ones into its step_STEP/.
        section: of the config, for messages.

    Raises:
        InputError: for steps that the workdir does not have, with those that are there.
    """
    wanted = [] if isinstance(steps, str) else [int(step) for step in steps if is_whole(step, 0)]
    named = steps == "all" or (not isinstance(steps, str) and len(wanted) == len(steps))
    if not named:
        raise InputError(f"{section}.checkpoints is {steps!r}; expected steps, such as (1000, 2000), or 'all', or ().")
    if not len(steps):
        return [(None, folder)]
    with Checkpoints(workdir) as checkpoints:
        there = checkpoints.steps() if checkpoints.folder.exists() else []
    missing = [] if steps == "all" else sorted(set(wanted) - set(there))
    if missing or not there:
        have = ", ".join(map(str, there)) or "none"
        what = f"of step {missing[0]}" if missing else "at all"
        raise InputError(f"{workdir} has no checkpoint {what}, which {section}.checkpoints asks for; it has {have}.")
    return [(step, folder / f"step_{step:07d}") for step in (there if steps == "all" else sorted(set(wanted)))]
