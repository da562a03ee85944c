"""This module defines the periodic actions of training; all of them have the interface `Action`."""

from __future__ import annotations

import abc
import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from score_sde import plots
from score_sde.core.errors import DivergenceError
from score_sde.experiment import Checkpoints, Experiment, TrainState, check_finite
from score_sde.jobs.generator import Generator, draw_together
from score_sde.jobs.log import Log
from score_sde.losses import HeldOut, Trained
from score_sde.parallel import Jit, processes

Metrics = dict[str, np.ndarray]  # by name: an array with one number per step


@dataclasses.dataclass(frozen=True)
class Moment:
    """`Moment` holds the progress of training at the time of an action.

    Attributes:
        step: the number of updates done.
        state: the training state after these updates, on the devices.
        pending: the metrics of the steps that are not yet in the log.
        log: the log.
    """

    step: int
    state: TrainState
    pending: Metrics
    log: Log


class Action(abc.ABC):
    """An action is due every `every` steps and at the last step.

    To add an action, subclass `Action`, define `run`, and add the action to `Trainer.actions`. Every process runs it.

    Attributes:
        every: the interval in steps; 0 for never.
        counts_as: the key under which the seconds of the action are added up; None if the seconds are not counted.
        before_stop: whether the action is also due before a run stops early.
    """

    every: int = 0
    counts_as: str | None = None
    before_stop: bool = False

    def is_due(self, step: int, last: int) -> bool:
        """Return whether the action is due at `step` of a run of `last` steps."""
        return is_due(self.every, step, last)

    @abc.abstractmethod
    def run(self, at: Moment) -> None:
        """Run the action."""


class Record(Action):
    """`Record` sets the interval of log records; `Trainer` logs the mean metrics at every step with a due action."""

    def __init__(self, every: int) -> None:
        self.every = every

    def run(self, at: Moment) -> None:
        """Do nothing, because `Trainer` has already logged the metrics."""


class HeldOutLoss(Action):
    """`HeldOutLoss` logs the loss of the first average on the split 'test'."""

    RECORD = "heldout_loss"
    counts_as = "checking"

    def __init__(self, every: int, experiment: Experiment, frozen: Mapping[str, Any], devices: Jit) -> None:
        """Read the examples now if the action is ever due, so that invalid examples raise before the first step."""
        self.every = every
        if every:
            self._heldout = HeldOut(
                experiment.objective,
                experiment.conditioning,
                experiment.examples("test", processes.first_alone(lambda: experiment.dataset.source("test"))),
                frozen,
                devices,
                experiment.config.data.batch_size,
                experiment.seed,
            )

    def run(self, at: Moment) -> None:
        loss = self._heldout(best(at.state), at.state.objective, at.state.averages, at.step)
        at.log.write(at.step, **{self.RECORD: loss})


class Drawing(Action):
    """`Drawing` is the base class of actions that draw examples with the first average."""

    counts_as = "sampling"

    def __init__(
        self, every: int, experiment: Experiment, frozen: Mapping[str, Any], devices: Jit, generator: Generator
    ) -> None:
        self.every, self._experiment, self._frozen, self._devices = every, experiment, frozen, devices
        self._generator = generator

    def drawn(self, at: Moment, n: int, lost: str) -> np.ndarray | None:
        """Return n examples in every process; None if one is not finite, with a line that says what is lost."""
        params, state = self._devices.on_local((best(at.state), at.state.objective))
        trained = Trained(self._experiment, params, state, self._frozen, at.step, "")
        try:
            return draw_together(self._generator, self._experiment.objective.model(trained), n)
        except DivergenceError as error:
            if processes.is_first():
                print(f"step {at.step}: no {lost}: {error}", file=sys.stderr)
            return None


class Picture(Drawing):
    """`Picture` draws examples into samples/step_STEP.png and TensorBoard."""

    def run(self, at: Moment) -> None:
        codec = self._generator.codec
        drawn = self.drawn(at, min(self._generator.batch_size, plots.shown(codec.data_shape)), "picture")
        if drawn is not None and processes.is_first():
            picture = plots.picture(drawn, codec.maximum)
            plots.save_png(at.log.workdir / "samples" / f"step_{at.step:07d}.png", picture)
            at.log.write_picture(at.step, "samples", picture)


class Save(Action):
    """`Save` writes a checkpoint with the metrics that are not yet in the log, so that a resumed run logs them."""

    before_stop = True

    def __init__(self, every: int, checkpoints: Checkpoints, devices: Jit) -> None:
        self.every, self._checkpoints, self._devices = every, checkpoints, devices

    def run(self, at: Moment) -> None:
        at.log.settle()
        columns = at.pending.values()
        each = [dict(zip(at.pending, map(float, row), strict=True)) for row in zip(*columns, strict=True)]
        whole = self._devices.one_copy(at.state)
        if processes.is_first():
            self._checkpoints.save(whole, notes={"pending": each})
        else:
            check_finite(whole)  # as `Checkpoints.save` does in the first process


def is_due(every: int, step: int, last: int) -> bool:
    """Return whether `step` is a multiple of `every` or the last step; with `every` = 0 no step is due."""
    return every > 0 and (step % every == 0 or step == last)


def best(state: TrainState) -> dict[str, Any]:
    """Return the parameters for evaluation and sampling: the first average, or the parameters if none exists."""
    return next(iter(state.averages.values()), state.params)


def timed(action: Action, at: Moment, seconds: dict[str, float]) -> None:
    """Run an action, and add its duration to `seconds` if `counts_as` is set."""
    began = time.perf_counter()
    action.run(at)
    if action.counts_as is not None:
        seconds[action.counts_as] = seconds.get(action.counts_as, 0.0) + time.perf_counter() - began
