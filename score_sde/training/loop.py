"""The training job: from a config to a workdir with checkpoints, a log and pictures."""

from __future__ import annotations

import math
import os
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from score_sde import checkpoint, data, images, parallel
from score_sde.checkpoint import Checkpoints, Restored, TrainState, describe
from score_sde.core import files
from score_sde.core.checks import require_whole
from score_sde.core.errors import DivergenceError, InputError, Stopped
from score_sde.core.keys import check_seed
from score_sde.core.signals import StopRequest, catch_sigterm
from score_sde.generate import Generator
from score_sde.model import MODEL_FIELDS, Blueprint, check_same
from score_sde.objective import HeldOut, Objective
from score_sde.training.log import Log
from score_sde.training.step import build_optimizer, init_state, make_step

# What a run may not change when it goes on, or it would be neither the old run nor a new one.
RUN_FIELDS = (*MODEL_FIELDS, "seed", "data.batch_size", "data.flip", "loss", "optimizer", "ema")


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Train to config.train.steps, from the newest checkpoint if there is one, and say what was made.

    Raises:
        InputError: for a config that cannot be run, or that differs from the one of the workdir.
        DivergenceError: for a loss that is not finite, naming the step; the last checkpoint stays.
        StorageError: for a checkpoint that cannot be written; the last one stays.
        Stopped: after SIGTERM, once the step it came in is saved.
    """
    trainer = Trainer(config, pathlib.Path(workdir))
    keep = config.train.keep
    with (
        catch_sigterm() as stop,
        files.exclusive(workdir),
        Checkpoints(workdir, last=keep.last, every=keep.every) as checkpoints,
    ):
        trained = checkpoint.read_config(workdir)
        if checkpoints.steps() and trained is not None:
            check_same(config, trained, RUN_FIELDS, trainer.workdir)
        restored, broken = trainer.newest(checkpoints)
        if restored and restored.step >= config.train.steps:
            print(f"nothing left to train: {workdir} is at step {restored.step} of {config.train.steps}")
            return
        source = trainer.blueprint.dataset.source("train")  # prepared before anything is written
        checkpoints.put_aside(broken)
        if broken:
            print(f"put aside in {workdir}/broken, not whole: {describe(broken)}", file=sys.stderr)
        state, pending = trainer.start(restored)
        with Log(workdir, int(state.step)) as log:
            trainer.run(state, pending, source, checkpoints, log, stop)
            curve = log.save_curve()
        checkpoints.wait()
        if stop.asked:
            raise Stopped(f"stopped by SIGTERM: step {config.train.steps}, the last one, is saved")
    print(trainer.summary(log))
    print(f"  curve:   {curve}\n  log:     {log.path}\n  weights: {pathlib.Path(workdir) / 'checkpoints'}")


class Trainer:
    """A training run: its parts, and what is due after which step."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
        _check(config)
        self.config, self.workdir = config, workdir
        self.devices = parallel.strategy(config.parallel)
        parallel.check_batch(config.data.batch_size, len(self.devices.devices), "data.batch_size")
        self.blueprint = blueprint = Blueprint.from_config(config)
        self.objective = Objective.from_config(blueprint, config)
        self.optimizer, self.schedule = build_optimizer(config.optimizer)
        self.generator = Generator.from_config(
            config.sample,
            blueprint.sde,
            blueprint.dataset.transform,
            blueprint.dataset.shape,
            blueprint.num_classes,
            self.devices.sharded,
        )
        self.seconds = {"compiling": 0.0, "training": 0.0, "checking": 0.0, "sampling": 0.0}
        self._heldout: HeldOut | None = None

    def newest(self, checkpoints: Checkpoints) -> tuple[Restored | None, dict[int, str]]:
        """The newest whole checkpoint, and the newer ones that are not, with the reasons."""
        template = jax.eval_shape(lambda: init_state(self.objective, self.optimizer, self.config.seed))
        return checkpoints.newest(params=template.params, ema=template.ema, optimizer=template.opt_state)

    def start(self, restored: Restored | None) -> tuple[TrainState, list[dict[str, float]]]:
        """The state to go on from, on all devices, and the metrics not yet logged; leaves config.json behind."""
        if restored is None:
            state, pending = init_state(self.objective, self.optimizer, self.config.seed), []
        else:
            items, step = restored.items, jnp.asarray(restored.step, jnp.int32)
            state = TrainState(step, items["params"], items["ema"], items["optimizer"])
            pending = list(restored.notes.get("pending", []))
            print(f"going on from step {restored.step} of {self.config.train.steps}")
        checkpoint.write_config(self.workdir, self.config)
        return self.devices.place_state(state), pending

    def run(
        self,
        state: TrainState,
        pending: list[Any],
        source: data.Source,
        checkpoints: Checkpoints,
        log: Log,
        stop: StopRequest,
    ) -> None:
        """Train on `source` from `state` to the last step, or until asked to stop."""
        config, every = self.config, self.config.train
        step_once = self.devices.compile(make_step(self.objective, self.optimizer, seed=config.seed, ema=config.ema))
        first = int(state.step)
        spec = config.data
        batches = data.training_batches(source, spec.batch_size, seed=config.seed, start=first, flip=spec.flip)
        place = np.arange(spec.batch_size, dtype=np.uint32)
        timed, began = 0, time.perf_counter()
        steps = range(first + 1, every.steps + 1)
        bar = tqdm.tqdm(steps, total=every.steps, initial=first, unit="step", disable=not sys.stderr.isatty())
        for step, batch in zip(bar, batches, strict=False):
            state, metrics = step_once(state, self.devices.place_batch(batch | {"index": place}))
            pending.append(metrics)
            timed += 1
            if step == first + 1:
                jax.block_until_ready(state)
                self.seconds["compiling"] = time.perf_counter() - began
                timed, began = 0, time.perf_counter()
            due = {name: _due(step, every[name], every.steps) for name in _EVERY}
            stopping = stop.asked
            if any(due.values()):
                self._record(log, step, pending, timed, began)
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
                raise Stopped(f"stopped by SIGTERM: step {step} is saved, and the same command goes on from there")
            if any(due.values()):
                timed, began = 0, time.perf_counter()

    def summary(self, log: Log) -> str:
        """One line: losses and seconds."""
        last = {"loss": log.last("loss"), "held-out loss": log.last("heldout_loss")}
        losses = ", ".join(f"{name} {value:.4f}" for name, value in last.items() if value is not None)
        spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        where = f"{len(self.devices.devices)} {jax.default_backend()} device(s)"
        return f"trained to step {self.config.train.steps} on {where}: {losses} (seconds: {spent})"

    def _save(self, checkpoints: Checkpoints, log: Log, step: int, state: TrainState, pending: list[Any]) -> None:
        metrics = self._finite(step, pending)
        log.settle()
        # What the log does not yet hold goes with the checkpoint, so that the next record will be the same.
        each = [dict(zip(metrics, map(float, values), strict=True)) for values in zip(*metrics.values(), strict=True)]
        checkpoints.save(state, notes={"pending": each})

    def _record(self, log: Log, step: int, pending: list[Any], timed: int, began: float) -> None:
        """Log the mean of the metrics since the last record.

        `timed` steps were made since `began`; the first one of a run, which compiles, is not among them.
        """
        metrics = self._finite(step, pending)
        seconds = time.perf_counter() - began
        self.seconds["training"] += seconds
        rate = float(self.schedule(step - 1))
        means = {name: values.mean() for name, values in metrics.items()}
        speed = {"seconds_per_step": seconds / timed} if timed else {}
        log.write(step, **means, learning_rate=rate, **speed)

    def _finite(self, step: int, pending: list[Any]) -> dict[str, np.ndarray]:
        """The metrics of the last steps, by name; a value that is not finite ends the run."""
        names = pending[0] if pending else {}
        metrics = {name: np.asarray([float(m[name]) for m in pending]) for name in names}
        finite = np.all([np.isfinite(values) for values in metrics.values()], axis=0)
        if not np.all(finite):
            bad = step - len(pending) + 1 + int(np.argmin(finite))
            raise DivergenceError(
                f"The loss of step {bad} is not finite; training stopped; checkpoints in {self.workdir}, if any, are "
                "from before it: train in another --workdir with a smaller learning rate, or clip gradients."
            )
        return metrics

    def _evaluate(self, log: Log, step: int, state: TrainState) -> None:
        began = time.perf_counter()
        if self._heldout is None:
            source = self.blueprint.dataset.source("test")
            self._heldout = HeldOut(self.objective, self.devices, source, self.config.data.batch_size, self.config.seed)
        log.write(step, heldout_loss=self._heldout(state.ema))
        self.seconds["checking"] += time.perf_counter() - began

    def _draw(self, log: Log, step: int, state: TrainState) -> None:
        began = time.perf_counter()
        denoiser = self.blueprint.denoiser(state.ema)
        try:
            drawn = self.generator(denoiser, min(self.generator.batch_size, images.shown(self.generator.shape)))
        except DivergenceError as error:
            print(f"step {step}: no picture: {error}", file=sys.stderr)
            return
        picture = images.picture(drawn.values, self.blueprint.dataset.transform.maximum)
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
    for name, least in numbers.items():
        value: Any = config
        for part in name.split("."):
            value = value[part]
        require_whole(name, value, least)
    check_seed(config.seed)
    if not 0 <= config.ema < 1 or math.isnan(config.ema):
        raise InputError(f"ema is {config.ema}; expected a decay in [0, 1).")
