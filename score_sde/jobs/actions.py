"""What training does now and then, each through one interface."""

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

Metrics = dict[str, np.ndarray]  # by name, a number of each step


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where training is.

    Attributes:
        step: updates done.
        state: the state after them, on the devices.
        pending: metrics of the steps that the log does not yet hold.
        log: the log.
    """

    step: int
    state: TrainState
    pending: Metrics
    log: Log


class Action(abc.ABC):
    """Something that is due every so many steps, and at the last one.

    To add one, subclass, define `run`, and put it into `Trainer.actions`; every process calls it.

    Attributes:
        every: how often, in steps; 0 for never.
        counts_as: under what its seconds are added up, or None.
        before_stop: whether it is due before a run stops early, too.
    """

    every: int = 0
    counts_as: str | None = None
    before_stop: bool = False

    def is_due(self, step: int, last: int) -> bool:
        """Whether it is due at this step of `last`."""
        return is_due(self.every, step, last)

    @abc.abstractmethod
    def run(self, at: Moment) -> None:
        """Do it."""


class Record(Action):
    """Log the means of the metrics; `Trainer` does that at every step at which anything is due."""

    def __init__(self, every: int) -> None:
        self.every = every

    def run(self, at: Moment) -> None:
        """Nothing is left to do."""


class HeldOutLoss(Action):
    """Log the loss on the split 'test' of the first average."""

    RECORD = "heldout_loss"
    counts_as = "checking"

    def __init__(self, every: int, experiment: Experiment, frozen: Mapping[str, Any], devices: Jit) -> None:
        """Read the examples now, if it is ever due: what is wrong with them is told before the first step."""
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


class Picture(Action):
    """Draw examples with the first average, into samples/step_STEP.png and TensorBoard."""

    counts_as = "sampling"

    def __init__(
        self, every: int, experiment: Experiment, frozen: Mapping[str, Any], devices: Jit, generator: Generator
    ) -> None:
        self.every, self._experiment, self._frozen, self._devices = every, experiment, frozen, devices
        self._generator = generator

    def run(self, at: Moment) -> None:
        params, state = self._devices.on_local((best(at.state), at.state.objective))
        trained = Trained(self._experiment, params, state, self._frozen, at.step, "")
        denoiser = self._experiment.objective.model(trained)
        codec = self._generator.codec
        n = min(self._generator.batch_size, plots.shown(codec.data_shape))
        try:
            drawn = draw_together(self._generator, denoiser, n)
        except DivergenceError as error:
            if processes.is_first():
                print(f"step {at.step}: no picture: {error}", file=sys.stderr)
            return
        if processes.is_first():
            picture = plots.picture(drawn, codec.maximum)
            plots.save_png(at.log.workdir / "samples" / f"step_{at.step:07d}.png", picture)
            at.log.write_picture(at.step, "samples", picture)


class Save(Action):
    """Write a checkpoint, which holds the metrics that the log does not yet: a resumed run writes the same log."""

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
            check_finite(whole)  # as the first one does


def is_due(every: int, step: int, last: int) -> bool:
    """Whether what is done every so many steps, and at the last one, is due at this step; 0 is never."""
    return every > 0 and (step % every == 0 or step == last)


def best(state: TrainState) -> dict[str, Any]:
    """The parameters that are evaluated and sampled: the first average, or where there is none the parameters."""
    return next(iter(state.averages.values()), state.params)


def timed(action: Action, at: Moment, seconds: dict[str, float]) -> None:
    """Run an action, and add up what it took."""
    began = time.perf_counter()
    action.run(at)
    if action.counts_as is not None:
        seconds[action.counts_as] = seconds.get(action.counts_as, 0.0) + time.perf_counter() - began
