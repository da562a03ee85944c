"""The training job: from a config to a workdir with checkpoints, a log and pictures."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from score_sde import checkpoint, data, images, parallel
from score_sde import config as config_
from score_sde.checkpoint import Checkpoints, Restored, TrainState, describe
from score_sde.core import files
from score_sde.core.checks import require_whole
from score_sde.core.errors import DivergenceError, InputError, Stopped
from score_sde.core.keys import check_seed
from score_sde.generate import Generator, draw_together
from score_sde.model import MODEL_FIELDS, Blueprint, check_same
from score_sde.objective import Batch, HeldOut, Objective
from score_sde.parallel import processes
from score_sde.parallel.strategy import Step
from score_sde.training.clock import Clock
from score_sde.training.log import Log, LogOfAnother
from score_sde.training.step import build_optimizer, init_state, make_step

# What a run may not change when it goes on, or it would be neither the old run nor a new one.
RUN_FIELDS = (*MODEL_FIELDS, "seed", "data.batch_size", "data.flip", "loss", "optimizer", "ema")


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Train to config.train.steps, from the newest checkpoint if there is one, and say what was made.

    With several processes each calls this with the same config; the first one alone writes.

    Raises:
        InputError: for a config that cannot be run, or that differs from the one of the workdir.
        DivergenceError: for a loss that is not finite, naming the step; the last checkpoint stays.
        StorageError: for a checkpoint that cannot be written; the last one stays.
        Stopped: after SIGTERM (to any of the processes), once the step it came in is saved.
    """
    trainer = Trainer(config, pathlib.Path(workdir))
    keep, first = config.train.keep, processes.is_first()
    with (
        processes.stopping() as stop,
        files.exclusive(workdir) if first else contextlib.nullcontext(),
        Checkpoints(workdir, last=keep.last, every=keep.every, device=parallel.host_device()) as checkpoints,
    ):
        processes.check_agreed("the config", config_.to_json(config))
        trained = checkpoint.read_config(workdir)
        if checkpoints.steps() and trained is not None:
            check_same(config, trained, RUN_FIELDS, trainer.workdir)
        restored, broken = trainer.newest(checkpoints)
        processes.check_agreed(f"the checkpoints of {workdir}", f"step {restored.step}" if restored else "none")
        if restored and restored.step >= config.train.steps:
            if first:
                print(f"nothing left to train: {workdir} is at step {restored.step} of {config.train.steps}")
            return
        # Prepared before anything is written.
        source = processes.first_alone(lambda: trainer.blueprint.dataset.source("train"))
        if first:
            checkpoints.put_aside(broken)
            if broken:
                print(f"put aside in {workdir}/broken, not whole: {describe(broken)}", file=sys.stderr)
            checkpoint.write_config(workdir, config)
        state, pending = trainer.start(restored)
        del restored  # a second copy of the state
        with Log(workdir, int(state.step)) if first else LogOfAnother(workdir) as log:
            trainer.run(state, pending, source, checkpoints, log, stop)
            curve = log.save_curve()
        checkpoints.wait()
        processes.barrier("trained")  # what comes next may read the checkpoint
        if stop.asked:
            raise Stopped(f"stopped by SIGTERM: step {config.train.steps}, the last one, is saved")
    if first:
        print(trainer.summary(log))
        print(f"  curve:   {curve}\n  log:     {log.path}\n  weights: {pathlib.Path(workdir) / 'checkpoints'}")


class Trainer:
    """A training run: its parts, and what is due after which step."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
        _check(config)
        self.config, self.workdir = config, workdir
        self.devices = parallel.strategy(config.parallel)
        self.fused, self.microbatches = (config.train.get(name, 1) for name in ("fused", "microbatches"))
        self.devices.check_fused(self.fused)
        count = len(self.devices.devices)
        parallel.check_batch(config.data.batch_size, count, "data.batch_size", self.microbatches)
        self.blueprint = blueprint = Blueprint.from_config(config)
        self.objective = Objective.from_config(blueprint, config)
        self.optimizer, self.schedule = build_optimizer(config.optimizer)
        self.generator = Generator.from_config(
            config.sample,
            blueprint.sde,
            blueprint.dataset.transform,
            blueprint.dataset.shape,
            blueprint.num_classes,
            self.devices.local.sharded,
        )
        self.seconds = {"compiling": 0.0, "training": 0.0, "input": 0.0, "checking": 0.0, "sampling": 0.0}
        self._heldout: HeldOut | None = None

    def newest(self, checkpoints: Checkpoints) -> tuple[Restored | None, dict[int, str]]:
        """The newest whole checkpoint, and the newer ones that are not, with the reasons."""
        template = jax.eval_shape(lambda: init_state(self.objective, self.optimizer, self.config.seed))
        return checkpoints.newest(params=template.params, ema=template.ema, optimizer=template.opt_state)

    def start(self, restored: Restored | None) -> tuple[TrainState, list[dict[str, float]]]:
        """The state to go on from, on all devices, and the metrics not yet logged."""
        if restored is None:
            with jax.default_device(parallel.host_device()):
                state, pending = init_state(self.objective, self.optimizer, self.config.seed), []
        else:
            items, step = restored.items, jnp.asarray(restored.step, jnp.int32)
            state = TrainState(step, items["params"], items["ema"], items["optimizer"])
            pending = list(restored.notes.get("pending", []))
            if processes.is_first():
                print(f"going on from step {restored.step} of {self.config.train.steps}")
        return self.devices.place_state(state), pending

    def run(
        self,
        state: TrainState,
        pending: list[Any],
        source: data.Source,
        checkpoints: Checkpoints,
        log: Log,
        stop: processes.Stop,
    ) -> None:
        """Train on `source` from `state` to the last step, or until asked to stop."""
        every, first = self.config.train, int(state.step)
        advance = self.devices.compile(self._step(), state, self.fused)
        quiet = not (processes.is_first() and sys.stderr.isatty())
        bar = tqdm.tqdm(total=every.steps, initial=first, unit="step", disable=quiet)
        clock = Clock(self.seconds, first)
        with contextlib.closing(bar):
            for step, batch in clock.waiting_for(parallel.ahead(self._place, self._feed(source, first))):
                state, metrics = advance(state, batch)
                pending.append(metrics)
                bar.update(clock.made(step, state))
                due = {name: _due(step, every[name], every.steps) for name in _EVERY}
                stopping = stop.after_this_round()
                if any(due.values()):
                    self._record(log, step, pending, clock)
                    pending = []
                    bar.set_postfix(loss=log.last("loss"), refresh=False)
                if due["eval_every"]:
                    self._evaluate(log, step, state)
                if due["sample_every"]:
                    self._draw(log, step, state)
                if due["checkpoint_every"] or stopping:
                    # Last, so that all that belongs to this step is there when its checkpoint is.
                    self._save(checkpoints, log, step, state, pending)
                if stopping:
                    checkpoints.wait()
                    processes.barrier("stopped")  # who leaves waits for the others, but not for ever
                    raise Stopped(f"stopped by SIGTERM: step {step} is saved, and the same command goes on from there")
                if any(due.values()):
                    clock.restart()

    def summary(self, log: Log) -> str:
        """One line: losses and seconds."""
        spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        where = f"{len(self.devices.devices)} {jax.default_backend()} device(s)"
        if processes.count() > 1:
            where += f" of {processes.count()} processes"
        return f"trained to step {self.config.train.steps} on {where}: {log.summary()} (seconds: {spent})"

    def _step(self) -> Step:
        settings: dict[str, Any] = {"seed": self.config.seed, "ema": self.config.ema}
        return make_step(
            self.objective, self.optimizer, devices=self.devices, microbatches=self.microbatches, **settings
        )

    def _feed(self, source: data.Source, first: int) -> Iterator[tuple[int, Batch]]:
        """The rows of this process of the batches of each call, and the step that the call ends with."""
        spec, last = self.config.data, self.config.train.steps
        rows = self.devices.rows(spec.batch_size)
        batches = data.training_batches(
            source, spec.batch_size, seed=self.config.seed, start=first, flip=spec.flip, rows=rows
        )
        place = rows.astype(np.uint32)
        step = first
        while step < last:
            count = self.fused - step % self.fused  # a run may go on from a step between
            each = [batch | {"index": place} for batch in itertools.islice(batches, count)]
            step += count
            yield step, jax.tree.map(lambda *leaves: np.stack(leaves), *each) if self.fused > 1 else each[0]

    def _place(self, item: tuple[int, Batch]) -> tuple[int, Batch]:
        step, batch = item
        return step, self.devices.place_batch(batch, self.config.data.batch_size, fused=self.fused > 1)

    def _save(self, checkpoints: Checkpoints, log: Log, step: int, state: TrainState, pending: list[Any]) -> None:
        metrics = self._finite(step, pending)
        log.settle()
        # What the log does not yet hold goes with the checkpoint, so that the next record will be the same.
        each = [dict(zip(metrics, map(float, values), strict=True)) for values in zip(*metrics.values(), strict=True)]
        whole = self.devices.one_copy(state)
        if processes.is_first():
            checkpoints.save(whole, notes={"pending": each})
        else:
            checkpoint.check_finite(whole)  # as the first one does

    def _record(self, log: Log, step: int, pending: list[Any], clock: Clock) -> None:
        """Log the mean of the metrics since the last record."""
        metrics = self._finite(step, pending)
        seconds = clock.seconds_per_step()
        means = {name: values.mean() for name, values in metrics.items()}
        speed = {} if seconds is None else {"seconds_per_step": seconds}
        log.write(step, **means, learning_rate=float(self.schedule(step - 1)), **speed)

    def _finite(self, step: int, pending: list[Any]) -> dict[str, np.ndarray]:
        """The metrics of the last steps, by name; a value that is not finite ends the run."""
        names = pending[0] if pending else {}
        # One number of each step, or of a call of several steps one after another.
        metrics = {name: np.concatenate([np.atleast_1d(np.asarray(m[name], float)) for m in pending]) for name in names}
        finite = np.all([np.isfinite(values) for values in metrics.values()], axis=0)
        if not np.all(finite):
            bad = step - len(finite) + 1 + int(np.argmin(finite))
            raise DivergenceError(
                f"The loss of step {bad} is not finite; training stopped; checkpoints in {self.workdir}, if any, are "
                "from before it: train in another --workdir with a smaller learning rate, or clip gradients."
            )
        return metrics

    def _evaluate(self, log: Log, step: int, state: TrainState) -> None:
        began = time.perf_counter()
        if self._heldout is None:
            source = processes.first_alone(lambda: self.blueprint.dataset.source("test"))
            self._heldout = HeldOut(self.objective, self.devices, source, self.config.data.batch_size, self.config.seed)
        log.write(step, heldout_loss=self._heldout(state.ema))
        self.seconds["checking"] += time.perf_counter() - began

    def _draw(self, log: Log, step: int, state: TrainState) -> None:
        began = time.perf_counter()
        denoiser = self.blueprint.denoiser(self.devices.on_local(state.ema))
        n = min(self.generator.batch_size, images.shown(self.generator.shape))
        try:
            drawn = draw_together(self.generator, denoiser, n)
        except DivergenceError as error:
            if processes.is_first():
                print(f"step {step}: no picture: {error}", file=sys.stderr)
            return
        if processes.is_first():
            picture = images.picture(drawn, self.blueprint.dataset.transform.maximum)
            images.save_png(self.workdir / "samples" / f"step_{step:07d}.png", picture)
            log.write_picture(step, "samples", picture)
        self.seconds["sampling"] += time.perf_counter() - began


_EVERY = ("log_every", "eval_every", "sample_every", "checkpoint_every")


def _due(step: int, every: int, last: int) -> bool:
    """Whether something is due at this step; 0 means never, and all else is due at the last step too."""
    return every > 0 and (step % every == 0 or step == last)


def _check(config: ml_collections.ConfigDict) -> None:
    """Refuse numbers that make no run, before anything is written."""
    numbers = {"train.steps": 1, "data.batch_size": 1, "train.keep.last": 1, "train.checkpoint_every": 1}
    numbers |= {f"train.{name}": 0 for name in ("log_every", "eval_every", "sample_every", "keep.every")}
    numbers |= {f"train.{name}": 1 for name in ("fused", "microbatches") if name in config.train}
    for name, least in numbers.items():
        value: Any = config
        for part in name.split("."):
            value = value[part]
        require_whole(name, value, least)
    fused = config.train.get("fused", 1)
    for name in ("steps", *_EVERY):
        if config.train[name] % fused:
            raise InputError(
                f"train.fused is {fused}, and train.{name} = {config.train[name]} is no multiple of it: what is due "
                "can be done only between calls of so many steps; use another train.fused, or 1."
            )
    check_seed(config.seed)
    if not 0 <= config.ema < 1 or math.isnan(config.ema):
        raise InputError(f"ema is {config.ema}; expected a decay in [0, 1).")
