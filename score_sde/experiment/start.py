"""This module starts a run from the weights of another run."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from score_sde.core.arrays import same_structure
from score_sde.core.errors import InputError
from score_sde.experiment.experiment import Experiment
from score_sde.experiment.state import TrainState
from score_sde.experiment.workdir import load_trained


def started_from(experiment: Experiment, workdir: str | os.PathLike[str], state: TrainState) -> TrainState:
    """Return a state of step 0 with weights from another workdir.

    The parameters and all averages become the first average of the newest checkpoint of that workdir. The states of the
    optimizer and of the objective are new. If the objective has frozen groups, only these groups come from the workdir.

    Args:
        experiment: the experiment to train.
        workdir: the workdir that holds the weights; empty for the state as it is.
        state: the state of step 0 with random parameters.

    Raises:
        InputError: if the workdir cannot be read, if its parameters have other names or shapes, or if the objective has
            frozen groups and there is no workdir.
    """
    frozen = experiment.objective.frozen_groups
    if not workdir and not frozen:
        return state
    if not workdir:
        raise InputError(
            f"{type(experiment.objective).__name__} trains on frozen weights ({', '.join(frozen)}), and "
            "train.start_from is empty; expected the workdir of the weights."
        )
    trained = load_trained(pathlib.Path(workdir).expanduser(), dtype=None)
    # An objective with frozen groups adds groups of its own to the weights of another run.
    shared = {group: params for group, params in state.params.items() if not frozen or group in frozen}
    for group, params in shared.items():
        if group not in trained.params:
            raise InputError(
                f"train.start_from is {workdir}, which has no parameters {group!r}; it has {', '.join(trained.params)}."
            )
        different = _difference(trained.params[group], params)
        if different:
            raise InputError(
                f"train.start_from is {workdir}, whose {group} does not fit the config ({different}): use the network "
                "in the config.json of that workdir."
            )
    params = {
        group: jax.tree.map(lambda leaf, like: jnp.array(leaf, like.dtype), trained.params[group], drawn)
        for group, drawn in shared.items()
    }
    return experiment.state_with(state.params | params, state.objective)


def _difference(theirs: Any, ours: Any) -> str:
    """Return a description of the difference between two pytrees of parameters; empty if they are alike."""
    if not same_structure(theirs, ours):
        return "the networks have different layers"
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(theirs), jax.tree.leaves(ours), strict=True):
        if a.shape != b.shape:
            return f"{jax.tree_util.keystr(path)} has shape {a.shape}; expected {b.shape}"
    return ""
