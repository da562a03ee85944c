"""Checkpoints: save, restore, and load a trained model from its workdir.

A workdir holds config.json, and checkpoints/STEP/ with the items `params`, `ema` and `optimizer`.
"""

from __future__ import annotations

import os
import pathlib
from types import TracebackType
from typing import Any, NamedTuple

import jax
import ml_collections

from score_sde import config as config_
from score_sde.core import files
from score_sde.core import keys as keys_
from score_sde.core.errors import InputError
from score_sde.model import Blueprint, Model

ITEMS = ("params", "ema", "optimizer")


class TrainState(NamedTuple):
    """All that training carries from step to step.

    Attributes:
        step: updates done so far, int32 ().
        params: the network's parameters.
        ema: their exponential moving average.
        opt_state: the optimizer's state.
    """

    step: jax.Array
    params: Any
    ema: Any
    opt_state: Any


class Checkpoints:
    """The checkpoints of a workdir; a context manager, which waits at its end for what is being written.

    Args:
        workdir: the workdir.
        last: how many of the newest are kept.
        every: checkpoints of steps divisible by it are kept for ever; 0 for none.
    """

    def __init__(self, workdir: str | os.PathLike[str], last: int = 1, every: int = 0) -> None:
        import orbax.checkpoint as ocp  # imported late: it takes half a second

        self._ocp = ocp
        self.folder = pathlib.Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=last, keep_period=every or None, create=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=ITEMS)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Write a checkpoint in the background; the state may be donated at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save = self._ocp.args.StandardSave
        whole = _one_copy(state)
        items = {"params": save(whole.params), "ema": save(whole.ema), "optimizer": save(whole.opt_state)}
        self._manager.save(int(state.step), args=self._ocp.args.Composite(**items))

    def restore(self, step: int, **templates: Any) -> dict[str, Any]:
        """Items by name, each in the structure and shapes of its template, on the first device."""
        # Where to is said: else orbax looks for the device that the checkpoint was written on.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        restore = self._ocp.args.StandardRestore

        def placed(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)

        items = {name: restore(jax.tree.map(placed, template)) for name, template in templates.items()}
        return dict(self._manager.restore(step, args=self._ocp.args.Composite(**items)))


def _one_copy(state: TrainState) -> TrainState:
    """The state on one device. In one process all copies are here, and orbax would slice each into parts."""
    if jax.process_count() > 1:
        return state
    return jax.tree.map(lambda leaf: leaf.addressable_data(0) if leaf.is_fully_replicated else leaf, state)


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


def load(workdir: str | os.PathLike[str], step: int | None = None, ema: bool = True) -> Model:
    """A trained model from its workdir; notebooks, evaluation and sampling start here.

    Args:
        workdir: where it was trained.
        step: which checkpoint; None for the newest.
        ema: whether to take the moving average of the weights, as one does for sampling.

    Raises:
        InputError: for a workdir without a checkpoint, or without this one, with those that are there.
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
        step = steps[-1] if step is None else step
        blueprint = Blueprint.from_config(config)
        template = jax.eval_shape(blueprint.network.init, keys_.root(0))
        params = checkpoints.restore(step, **{item: template})[item]
    return Model(
        denoiser=blueprint.denoiser(params),
        transform=blueprint.dataset.transform,
        shape=blueprint.dataset.shape,
        num_classes=blueprint.num_classes,
        config=config,
        step=step,
    )
