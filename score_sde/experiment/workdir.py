"""This module reads and writes the config of a workdir, and loads the trained model of a workdir."""

from __future__ import annotations

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import ml_collections

from score_sde import config as config_
from score_sde.core import files, remote
from score_sde.core.errors import InputError
from score_sde.data import cache_dir
from score_sde.denoisers import Denoiser, NetworkClassifier
from score_sde.experiment.checkpoint import Checkpoints, Restored, describe
from score_sde.experiment.classifier import Classifier
from score_sde.experiment.experiment import Experiment
from score_sde.experiment.model import Model
from score_sde.experiment.state import average_item, items_of
from score_sde.losses import Trained
from score_sde.parallel import processes


def write_config(workdir: str | os.PathLike[str], config: ml_collections.ConfigDict) -> None:
    """Write config.json; the file is written completely or not at all."""
    files.write_text(pathlib.Path(workdir) / "config.json", config_.to_json(config))


@contextlib.contextmanager
def opened(workdir: str | os.PathLike[str], writes: bool = False) -> Iterator[pathlib.Path]:
    """Yield a workdir as a local folder: the folder itself, or a copy if the workdir is an address (gs://bucket/run).

    With several processes only the first process sends changes. The other processes fetch the copy after the first
    process has opened the workdir.

    Args:
        workdir: a folder, or an address.
        writes: whether changes in the copy are sent to the address.
    """
    if not remote.is_address(workdir) or processes.count() == 1:
        with remote.here(workdir, cache_dir(), writes=writes) as folder:
            yield folder
    elif processes.is_first():
        with remote.here(workdir, cache_dir(), writes=writes) as folder:
            processes.barrier("opened")
            yield folder
    else:
        processes.barrier("opened")
        with remote.here(workdir, cache_dir(), writes=False, owner=f"-process{processes.index()}") as folder:
            yield folder


def read_config(workdir: str | os.PathLike[str]) -> ml_collections.ConfigDict | None:
    """Return the config of a workdir, or None if the workdir has no config."""
    path = f"{os.fspath(workdir)}/config.json"
    try:
        if remote.is_address(workdir):
            content = remote.read_bytes(workdir, "config.json")
            if content is None:
                return None
            text = content.decode()
        else:
            text = pathlib.Path(path).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: {error}.") from error
    try:
        config = config_.from_json(text)
        if config.get("version") is None:
            raise InputError(
                f"version is missing: {workdir} was made by score_sde 0.1, whose configs and checkpoints have another "
                "format; expected a workdir of 0.2: use another --workdir and train there, or open this workdir "
                "with score_sde 0.1."
            )
        return config_.complete(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def load(
    workdir: str | os.PathLike[str], step: int | None = None, average: str | None = "", dtype: str | None = "float32"
) -> Any:
    """Return the trained result of a workdir: a `Model` of a denoiser, a `Classifier` of a classifier.

    Notebooks and jobs use this function. The digests of the checkpoint are checked. If the newest checkpoint is not
    whole, a warning names this checkpoint, and the newest whole checkpoint is loaded. A checkpoint that is selected by
    its step must be whole.

    Args:
        workdir: the workdir of the training run.
        step: the step of the checkpoint; None for the newest whole checkpoint.
        average: the average of the weights, by its name in config.averages; '' for the first average by name, None for
            the weights without averaging.
        dtype: the dtype of the network's computation, independent of the dtype in training; None for the dtype in
            training.

    Raises:
        InputError: if the workdir has no whole checkpoint, no checkpoint of this step, or no average of this name.
    """
    return made_of(load_trained(workdir, step, average, dtype))


def made_of(trained: Trained) -> Any:
    """Return the object that the objective makes; a denoiser becomes a `Model`, a classifier a `Classifier`."""
    experiment = trained.experiment
    made = experiment.objective.model(trained)
    if isinstance(made, Denoiser):
        return Model(made, trained.frozen["codec"], experiment.config, trained.step, trained.digest)
    if isinstance(made, NetworkClassifier):
        return Classifier(made, trained.frozen["codec"], experiment.config, trained.step, trained.digest)
    return made


def load_trained(
    workdir: str | os.PathLike[str],
    step: int | None = None,
    average: str | None = "",
    dtype: str | None = "float32",
    averages: bool = False,
) -> Trained:
    """Return the parameters of a workdir with their experiment, and all averages if `averages` is true.

    The other arguments and the errors are the same as for `load`.
    """
    with opened(workdir) as folder:
        return _trained(folder, step, average, dtype, averages)


def _trained(
    workdir: pathlib.Path, step: int | None, average: str | None, dtype: str | None, averages: bool
) -> Trained:
    config = read_config(workdir)
    if config is None:
        raise InputError(f"{workdir} is no workdir of a trained model (no config.json): train there first.")
    experiment = Experiment.from_config(config, dtype)
    item = _item(experiment, average, workdir)
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise InputError(f"{workdir} has no checkpoint: train there first (--mode=train).")
        if step is not None and step not in steps:
            raise InputError(f"{workdir} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}.")
        shapes = items_of(experiment.state_shapes())
        items = {name: average_item(name) for name in (experiment.averages if averages else ())}
        templates = {name: shapes[name] for name in (item, "objective", *items.values()) if name in shapes}
        restored: Restored | None
        if step is not None:
            restored = checkpoints.restore(step, templates)
        else:
            restored, broken = checkpoints.newest(templates)
            if broken:
                warnings.warn(f"{workdir} has checkpoints that are not whole ({describe(broken)}).", stacklevel=2)
    assert restored is not None  # steps exist, so a checkpoint was found or an error raised
    state = restored.items.get("objective", experiment.state_shapes().objective)
    frozen = experiment.frozen(load)
    every = {name: restored.items[item_of] for name, item_of in items.items()}
    return Trained(experiment, restored.items[item], state, frozen, restored.step, restored.digests[item], every)


def _item(experiment: Experiment, average: str | None, workdir: str | os.PathLike[str]) -> str:
    """Return the name of the checkpoint item that holds the requested weights."""
    if average is None or (average == "" and not experiment.averages):
        return "params"
    name = next(iter(experiment.averages)) if average == "" else average
    if name not in experiment.averages:
        raise InputError(
            f"{workdir} has no average {average!r}; expected one of {', '.join(experiment.averages) or 'none'}, or "
            "None."
        )
    return average_item(name)
