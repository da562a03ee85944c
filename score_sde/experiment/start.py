"""A run that starts from the weights of another one."""

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
    """The state of step 0 whose parameters and averages are the first average of another workdir's newest checkpoint.

    The optimizer and the objective begin anew.

    Args:
        experiment: what is trained.
        workdir: where the weights are.
        state: the state of step 0 with parameters that are drawn.

    Raises:
        InputError: for a workdir that cannot be read, or whose parameters have other names or shapes.
    """
    trained = load_trained(pathlib.Path(workdir).expanduser(), dtype=None)
    for group, params in state.params.items():
        if group not in trained.params:
            raise InputError(
                f"train.start_from is {workdir}, which has no parameters {group!r}; it has {', '.join(trained.params)}."
            )
        different = _difference(trained.params[group], params)
        if different:
            raise InputError(
                f"train.start_from is {workdir}, whose {group} does not fit ({different}): use the network of its "
                "config.json."
            )
    params = {
        group: jax.tree.map(lambda leaf, like: jnp.array(leaf, like.dtype), trained.params[group], drawn)
        for group, drawn in state.params.items()
    }
    return experiment.state_with(params, state.objective)


def _difference(theirs: Any, ours: Any) -> str:
    """How the parameters differ, in words; empty where they do not."""
    if not same_structure(theirs, ours):
        return "the networks have other layers"
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(theirs), jax.tree.leaves(ours), strict=True):
        if a.shape != b.shape:
            return f"{jax.tree_util.keystr(path)} has shape {a.shape}, and the config's has {b.shape}"
    return ""
