"""A workdir: its config, and the trained model that it holds."""

from __future__ import annotations

import os
import pathlib
import warnings

import jax
import ml_collections

from score_sde import config as config_
from score_sde.checkpoint.store import Checkpoints, Restored, describe
from score_sde.core import files
from score_sde.core import keys as keys_
from score_sde.core.errors import InputError
from score_sde.model import Blueprint, Model


def write_config(workdir: str | os.PathLike[str], config: ml_collections.ConfigDict) -> None:
    """Write config.json, whole or not at all."""
    files.write_text(pathlib.Path(workdir) / "config.json", config_.to_json(config))


def read_config(workdir: str | os.PathLike[str]) -> ml_collections.ConfigDict | None:
    """The config of a workdir, or None where there is none."""
    path = pathlib.Path(workdir) / "config.json"
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: {error}.") from error
    try:
        return config_.from_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def load(
    workdir: str | os.PathLike[str], step: int | None = None, ema: bool = True, dtype: str | None = "float32"
) -> Model:
    """A trained model from its workdir; notebooks, evaluation and sampling start here.

    Its digest is checked. Where the newest checkpoint is not whole, a warning names it and the
    newest whole one is taken; a checkpoint asked for by its step must be whole.

    Args:
        workdir: where it was trained.
        step: which checkpoint; None for the newest that is whole.
        ema: whether to take the moving average of the weights, as one does for sampling.
        dtype: what the network computes in, whatever it was trained in; None for as trained.

    Raises:
        InputError: for a workdir without a whole checkpoint, or without this one, with those that are there.
    """
    config = read_config(workdir)
    if config is None:
        raise InputError(f"{workdir} is no workdir of a trained model (no config.json): train there first.")
    item = "ema" if ema else "params"
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise InputError(f"{workdir} has no checkpoint: train there first (--mode=train).")
        if step is not None and step not in steps:
            raise InputError(f"{workdir} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}.")
        blueprint = Blueprint.from_config(config, dtype)
        templates = {item: jax.eval_shape(blueprint.network.init, keys_.root(0))}
        restored: Restored | None
        if step is not None:
            restored = checkpoints.restore(step, **templates)
        else:
            restored, broken = checkpoints.newest(**templates)
            if broken:
                warnings.warn(f"{workdir} has checkpoints that are not whole ({describe(broken)}).", stacklevel=2)
    assert restored is not None  # there are steps, so one was found or an error raised
    return Model(
        denoiser=blueprint.denoiser(restored.items[item]),
        transform=blueprint.dataset.transform,
        shape=blueprint.dataset.shape,
        num_classes=blueprint.num_classes,
        config=config,
        step=restored.step,
        digest=restored.digests[item],
    )
