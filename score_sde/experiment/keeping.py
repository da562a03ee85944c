"""This module saves a model that was made in Python to a workdir."""

from __future__ import annotations

import os
import pathlib

import jax
import jax.numpy as jnp

from score_sde.core import files
from score_sde.core.errors import InputError
from score_sde.denoisers import NetworkDenoiser
from score_sde.experiment.checkpoint import Checkpoints
from score_sde.experiment.experiment import Experiment
from score_sde.experiment.model import Model
from score_sde.experiment.workdir import read_config, write_config


def save(model: Model, workdir: str | os.PathLike[str]) -> None:
    """Write config.json and a checkpoint of the model's step.

    The parameters and the averages of the checkpoint are the model's weights. A run that resumes from the checkpoint
    starts with a new optimizer.

    Raises:
        InputError: if the workdir already holds a model, or if a config cannot describe the model.
        StorageError: if the checkpoint cannot be written.
    """
    workdir = pathlib.Path(workdir).expanduser()
    if read_config(workdir) is not None or (workdir / "checkpoints").exists():
        raise InputError(f"{workdir} holds a model already: use another folder, or move it away.")
    denoiser, experiment = model.denoiser, Experiment.from_config(model.config)
    groups = list(experiment.param_shapes)
    if not isinstance(denoiser, NetworkDenoiser) or len(groups) != 1:
        raise InputError(
            f"A model with a {type(denoiser).__name__} and the parameters {', '.join(groups)} cannot be saved from "
            "Python; expected one network: copy the workdir that the model was loaded from."
        )
    for name, spec in model.config.items():
        if hasattr(spec, "get") and str(spec.get("name")).startswith("__main__."):
            raise InputError(
                f"{name} is {spec['name']}, which is defined in the running script or notebook, so `load` could not "
                "find the class: move the class to a separate module, and import it from there."
            )
    state = experiment.state_with({groups[0]: jax.tree.map(jnp.asarray, denoiser.params)}, (), model.step)
    with files.exclusive(workdir), Checkpoints(workdir) as checkpoints:
        write_config(workdir, model.config)
        checkpoints.save(state)
