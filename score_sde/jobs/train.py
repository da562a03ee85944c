"""This module defines the training job, which writes checkpoints, a log and pictures into a workdir."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from score_sde import config as config_
from score_sde import data, parallel
from score_sde.core import files
from score_sde.core.errors import DivergenceError, InputError, Stopped
from score_sde.data import Batch
from score_sde.denoisers import Denoiser
from score_sde.experiment import (
    Checkpoints,
    Experiment,
    Restored,
    TrainState,
    check_rates,
    check_same,
    describe,
    items_of,
    load,
    make_step,
    opened,
    read_config,
    started_from,
    state_of,
    write_config,
)
from score_sde.jobs.actions import Action, HeldOutLoss, Metrics, Moment, Picture, Record, Save, is_due, timed
from score_sde.jobs.base import Job
from score_sde.jobs.clock import Clock
from score_sde.jobs.evaluate import read_evaluations
from score_sde.jobs.evaluation import placed
from score_sde.jobs.generator import Generator
from score_sde.jobs.log import Log, LogOfAnother, read_records
from score_sde.jobs.measure import Measure, read_measures
from score_sde.jobs.prepare import prepare
from score_sde.jobs.progress import StepProgress
from score_sde.jobs.report import write_report
from score_sde.jobs.train_settings import check_train
from score_sde.losses import Trained
from score_sde.parallel import processes
from score_sde.sampling import checks


class Train(Job):
    """`Train` trains to config.train.steps, from the newest checkpoint if a checkpoint exists."""

    name = "train"

    def check(self, experiment: Experiment) -> None:
        read_measures(experiment.config.train)
        read_evaluations(experiment.config.eval)  # a wrong name is an error before the training, and not after it

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        train(experiment, workdir)


def train(experiment: Experiment | Mapping[str, Any], workdir: str | os.PathLike[str]) -> None:
    """Train to config.train.steps, from the newest checkpoint if a checkpoint exists, and print a summary.

    If a run has several processes, each process calls this function with the same config; only the first one writes.

    Args:
        experiment: the experiment to train, or its config.
        workdir: the folder for checkpoints, log and pictures.

    Raises:
        InputError: if the config cannot be run, or differs from the config of the workdir.
        DivergenceError: if a loss is not finite; the message names the step, and the last checkpoint is kept.
        StorageError: if a checkpoint cannot be written; the last checkpoint is kept.
        Stopped: after SIGTERM to any process, once the step during which SIGTERM came is saved.
    """
    experiment = experiment if isinstance(experiment, Experiment) else Experiment.from_config(experiment)
    with opened(workdir, writes=True) as folder:
        _train(experiment, folder)


def _train(experiment: Experiment, workdir: pathlib.Path) -> None:
    trainer, config = Trainer(experiment, workdir), experiment.config
    keep, first = config.train.keep, processes.is_first()
    with (
        processes.stopping() as stop,
        files.exclusive(workdir) if first else contextlib.nullcontext(),
        Checkpoints(workdir, last=keep.last, every=keep.every, device=parallel.host_device()) as checkpoints,
    ):
        processes.check_agreed("the config", config_.to_json(config))
        trained = read_config(workdir)
        if checkpoints.steps() and trained is not None:
            check_same(config, trained, config_.NOT_OF_THE_RUN, trainer.workdir)
        restored, broken = trainer.newest(checkpoints)
        processes.check_agreed(f"the checkpoints of {workdir}", f"step {restored.step}" if restored else "none")
        records = read_records(trainer.workdir / "train.jsonl")
        if restored and restored.step >= config.train.steps and not trainer.lacks_a_record(restored.step, records):
            if first:
                print(f"nothing left to train: {workdir} is at step {restored.step} of {config.train.steps}")
            return
        # The examples are prepared before anything is written.
        examples = experiment.examples("train", prepare(experiment))
        examples.look()
        actions = trainer.actions(checkpoints)
        state, pending = trainer.start(restored)
        del restored  # frees a second copy of the state
        if first:
            checkpoints.put_aside(broken)
            if broken:
                print(
                    f"moved damaged or incomplete checkpoints to {workdir}/broken: {describe(broken)}", file=sys.stderr
                )
            write_config(workdir, config)
            print("".join(f"note: {remark}\n" for remark in experiment.network.remarks()), end="")
        with Log(workdir, int(state.step)) if first else LogOfAnother(workdir) as log:
            trainer.run(state, pending, examples, actions, checkpoints, log, stop)
            curve = log.save_curve()
        checkpoints.wait()
        processes.barrier("trained")  # the next job may read the checkpoint
        if stop.asked:
            raise Stopped(f"stopped by SIGTERM: step {config.train.steps}, the last one, is saved")
    try:
        page = f"  report:  {write_report(experiment, workdir, draws=False)}"
    except (InputError, OSError) as error:  # the run is complete without the report
        page = f"  report:  none ({error})"
    if first:
        print(trainer.summary(log))
        print(f"  curve:   {curve}\n  log:     {log.path}\n  weights: {workdir / 'checkpoints'}\n{page}")


class Trainer:
    """`Trainer` holds the parts of a training run and runs the periodic actions."""

    def __init__(self, experiment: Experiment, workdir: pathlib.Path) -> None:
        config = experiment.config
        check_train(config)
        self.experiment, self.config, self.workdir = experiment, config, workdir
        self.devices = parallel.strategy(config.parallel)
        self.fused, self.microbatches = config.train.fused, config.train.microbatches
        self.devices.check_fused(self.fused)
        count = len(self.devices.devices)
        parallel.check_batch(config.data.batch_size, count, "data.batch_size", self.microbatches)
        self.frozen = placed(experiment.frozen(load), self.devices)
        self.seconds = {"compiling": 0.0, "training": 0.0, "input": 0.0, "checking": 0.0, "sampling": 0.0}
        check_rates(experiment.schedules, config.train.steps)
        if processes.is_first():
            checks.warn_of_prior(experiment.sde)
        self.generator: Generator | None = None

        def made_of(params: Any, state: Any) -> Any:
            return experiment.objective.model(Trained(experiment, params, state, self.frozen, 0, ""))

        made = eqx.filter_eval_shape(made_of, self.shapes.params, self.shapes.objective)
        if isinstance(made, Denoiser):
            self.generator = Generator.from_config(
                config.sample,
                made,
                experiment.codec,
                self.devices.local.sharded,
                asking=bool(config.train.sample_every or config.train.measure_every),
            )
        elif config.train.sample_every or config.train.measure_every:
            raise InputError(
                f"{type(experiment.objective).__name__} trains no denoiser, so there is nothing to draw: use "
                "train.sample_every=0 and train.measure_every=0."
            )

    @functools.cached_property
    def shapes(self) -> TrainState:
        """Return the shapes and dtypes of the state."""
        return self.experiment.state_shapes()

    def newest(self, checkpoints: Checkpoints) -> tuple[Restored | None, dict[int, str]]:
        """Return the newest whole checkpoint, and the reasons why newer checkpoints are not whole."""
        return checkpoints.newest(items_of(self.shapes))

    def start(self, restored: Restored | None) -> tuple[TrainState, list[dict[str, float]]]:
        """Return the state to start or resume from, on all devices, and the metrics that are not yet logged."""
        if restored is None:
            with jax.default_device(parallel.host_device()):
                state, pending = self.experiment.init_state(), []
                state = started_from(self.experiment, self.config.train.start_from, state)
        else:
            state = state_of(jnp.asarray(restored.step, jnp.int32), restored.items, self.shapes)
            pending = list(restored.notes.get("pending", []))
            if processes.is_first():
                print(f"resuming from step {restored.step} of {self.config.train.steps}")
        return self.devices.place_state(state, self.experiment.cuts), pending

    def actions(self, checkpoints: Checkpoints) -> list[Action]:
        """Return the actions in order; the checkpoint comes before the actions that may fail."""
        every, common = self.config.train, (self.experiment, self.frozen, self.devices)
        save = Save(every.checkpoint_every, checkpoints, self.devices)
        due: list[Action] = [Record(every.log_every), save, HeldOutLoss(every.eval_every, *common)]
        if self.generator is not None:
            due.append(Picture(every.sample_every, *common, self.generator))
            due.append(Measure(every.measure_every, *common, self.generator))
        return due

    def lacks_a_record(self, step: int, records: list[dict[str, Any]]) -> bool:
        """Return whether the first process's log has the loss of a step but not the held-out loss due at this step."""
        train = self.config.train
        names = {name for record in records if record["step"] == step for name in record}
        lacks = is_due(train.eval_every, step, train.steps) and "loss" in names and HeldOutLoss.RECORD not in names
        return bool(processes.from_first(np.asarray(lacks)))

    def run(
        self,
        state: TrainState,
        pending: list[Any],
        examples: data.Examples,
        actions: list[Action],
        checkpoints: Checkpoints,
        log: Log,
        stop: processes.Stop,
    ) -> None:
        """Train on `examples` from `state` to the last step, or until the run is asked to stop."""
        last, first = self.config.train.steps, int(state.step)
        step_function, frozen = make_step(
            self.experiment, devices=self.devices, microbatches=self.microbatches, frozen=self.frozen
        )
        advance = self.devices.compile(step_function, state, self.fused, self.experiment.cuts)
        clock = Clock(self.seconds, first)
        if self.lacks_a_record(first, log.records):  # the run ended between its checkpoint and its held-out loss
            for action in actions:
                if isinstance(action, HeldOutLoss):
                    timed(action, Moment(first, state, {}, log), self.seconds)
            clock.restart()
        with StepProgress(last, first) as progress:
            for step, batch in clock.waiting_for(parallel.ahead(self._place, self._feed(examples, first))):
                state, metrics = advance(state, batch, frozen)
                pending.append(metrics)
                progress.add(clock.made(step, state), metrics)
                due = [action for action in actions if action.is_due(step, last)]
                stopping = stop.after_this_round()
                if due:
                    self._record(log, step, pending, clock)
                    pending = []
                    progress.tell(loss=log.last("loss"))
                if stopping:
                    due += [action for action in actions if action.before_stop and action not in due]
                for action in due:
                    timed(action, Moment(step, state, self._finite(step, pending), log), self.seconds)
                if stopping:
                    checkpoints.wait()
                    processes.barrier("stopped")  # a process that exits waits for the others for a limited time only
                    raise Stopped(f"stopped by SIGTERM: step {step} is saved; run the same command again to resume")
                if due:
                    clock.restart()

    def summary(self, log: Log) -> str:
        """Return one line with the losses and the seconds."""
        spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        where = f"{len(self.devices.devices)} {jax.default_backend()} device(s)"
        if processes.count() > 1:
            where += f" of {processes.count()} processes"
        return f"trained to step {self.config.train.steps} on {where}: {log.summary()} (seconds: {spent})"

    def _feed(self, examples: data.Examples, first: int) -> Iterator[tuple[int, Batch]]:
        """Yield, for each call, the step with which the call ends and this process's rows of the batches."""
        spec, last = self.config.data, self.config.train.steps
        batches = data.training_batches(
            examples,
            spec.batch_size,
            seed=self.config.seed,
            start=first,
            flip=spec.flip,
            rows=self.devices.rows(spec.batch_size),
        )
        step = first
        while step < last:
            count = self.fused - step % self.fused  # a run may resume from a step between two calls
            each = list(itertools.islice(batches, count))
            step += count
            yield step, jax.tree.map(lambda *leaves: np.stack(leaves), *each) if self.fused > 1 else each[0]

    def _place(self, item: tuple[int, Batch]) -> tuple[int, Batch]:
        step, batch = item
        return step, self.devices.place_batch(batch, self.config.data.batch_size, fused=self.fused > 1)

    def _record(self, log: Log, step: int, pending: list[Any], clock: Clock) -> None:
        """Log the mean of the metrics since the last record."""
        metrics = self._finite(step, pending)
        seconds = clock.seconds_per_step()
        means = {name: values.mean() for name, values in metrics.items()}
        speed = {} if seconds is None else {"seconds_per_step": seconds}
        schedules = self.experiment.schedules
        rates = {
            "learning_rate" if len(schedules) == 1 else f"learning_rate_{group}": float(schedule(step - 1))
            for group, schedule in schedules.items()
        }
        log.write(step, **means, **rates, **speed)

    def _finite(self, step: int, pending: list[Any]) -> Metrics:
        """Return the metrics of the last steps by name; raise DivergenceError if a value is not finite."""
        pending = jax.device_get(pending)  # one transfer of all values: separate transfers would each wait for a GPU
        names = pending[0] if pending else {}
        # A value holds one number, or the numbers of all steps of a fused call in order.
        metrics = {name: np.concatenate([np.atleast_1d(np.asarray(m[name], float)) for m in pending]) for name in names}
        finite = np.all([np.isfinite(values) for values in metrics.values()], axis=0)
        if not np.all(finite):
            bad = step - len(finite) + 1 + int(np.argmin(finite))
            raise DivergenceError(
                f"The loss of step {bad} is not finite; training stopped; checkpoints in {self.workdir}, if any, are "
                "from earlier steps: train in another --workdir with a smaller learning rate, or clip gradients."
            )
        return metrics
