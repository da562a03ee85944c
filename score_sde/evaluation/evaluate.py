"""The evaluation job: what config.eval.what names, on the test split, into the workdir's folder eval/."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import ml_collections

from score_sde import checkpoint, data, parallel
from score_sde import config as config_
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.core.keys import check_seed
from score_sde.denoiser import NetworkDenoiser
from score_sde.evaluation import likelihood, losses, results
from score_sde.evaluation.checkpoints import chosen
from score_sde.evaluation.parts import Parts
from score_sde.model import MODEL_FIELDS, Blueprint, Model, check_same
from score_sde.objective import Objective
from score_sde.ode import check_tolerances
from score_sde.parallel import processes


@dataclasses.dataclass(frozen=True)
class Job:
    """What every evaluation is given.

    Attributes:
        model: the trained model.
        objective: the loss it was trained with.
        source: the examples.
        devices: where to compute.
        settings: config.eval.
        folder: where results go.
        identity: what the results are of: checkpoint, split, seed and settings.
    """

    model: Model
    objective: Objective
    source: data.Source
    devices: parallel.Jit
    settings: ml_collections.ConfigDict
    folder: pathlib.Path
    identity: dict[str, Any]

    def denoiser(self, devices: parallel.Jit) -> NetworkDenoiser:
        """The model's denoiser, with a copy of the weights on each of these devices."""
        return eqx.tree_at(lambda d: d.params, self.model.denoiser, replace_fn=devices.place_state)

    def parts(self, name: str) -> Parts:
        """Where an evaluation keeps what it has so far."""
        return Parts(self.folder, name, self.identity)


# Each is called by every process and writes its files, the first process alone, into job.folder; it returns its
# results and a line that tells them.
Evaluation = Callable[[Job], tuple[dict[str, Any], str]]
# Name -> the evaluation, and the settings that its results depend on.
EVALUATIONS: dict[str, tuple[Evaluation, tuple[str, ...]]] = {
    "loss": (losses.held_out, ()),
    "loss_per_level": (losses.per_level, ()),
    "likelihood": (likelihood.over_split, ("probes", "rtol", "atol", "dequantisations")),
}


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Evaluate checkpoints on the test split as config.eval says, in float32: the newest, or config.eval.checkpoints.

    Writes eval/NAME.json for every name in config.eval.what (eval/step_STEP/NAME.json for checkpoints that
    are named); each says which checkpoint and settings it is of. Results that are there are not made
    again, and those of another checkpoint are not touched. With several processes each calls this.

    Raises:
        InputError: for a config or a workdir that cannot be evaluated, or results of something else there.
        DivergenceError: for examples whose likelihood could not be computed.
        Stopped: after SIGTERM, with what is done so far kept.
    """
    settings, workdir = config.eval, pathlib.Path(workdir)
    check(settings)
    processes.check_agreed("the config", config_.to_json(config))
    # Else a GPU or TPU would multiply float32 numbers with 8 or 11 bits.
    with jax.default_matmul_precision("highest"):
        for step, folder in chosen(workdir, settings.get("checkpoints", "newest"), workdir / "eval", "eval"):
            _evaluate(config, checkpoint.load(workdir, step), workdir, folder)
    processes.barrier("evaluated")


def _evaluate(config: ml_collections.ConfigDict, model: Model, workdir: pathlib.Path, folder: pathlib.Path) -> None:
    """All of config.eval.what for one checkpoint."""
    settings = config.eval
    check_same(config, model.config, MODEL_FIELDS, workdir)
    identities = {name: _identity(name, model, settings) for name in settings.what}
    there = {name: results.is_there(folder / f"{name}.json", of) for name, of in identities.items()}
    processes.check_agreed(f"the results in {folder}, or its checkpoint", f"{there} {results.plain(identities)}")
    for name in (name for name, done in there.items() if done and processes.is_first()):
        Parts(folder, name, identities[name]).remove()
    if all(there.values()):
        if processes.is_first():
            print(f"nothing left to evaluate: {folder} has {', '.join(there)} of step {model.step}")
        return
    if processes.is_first():
        folder.mkdir(parents=True, exist_ok=True)  # an unwritable workdir says so now
    blueprint = Blueprint.from_config(config, dtype="float32")
    source = processes.first_alone(lambda: blueprint.dataset.source("test"))
    devices, objective = parallel.strategy(config.parallel), Objective.from_config(blueprint, model.config)
    for name in (name for name, done in there.items() if not done):
        job = Job(model, objective, source, devices, settings, folder, identities[name])
        began = time.perf_counter()
        found, line = EVALUATIONS[name][0](job)
        seconds = time.perf_counter() - began
        if processes.is_first():
            results.write(folder / f"{name}.json", {"seconds": round(seconds, 3)} | found, identities[name])
            job.parts(name).remove()
            print(f"evaluated step {model.step}: {line} (seconds: {seconds:.1f})\n  results: {folder / name}.json")


def check(settings: ml_collections.ConfigDict) -> None:
    """Refuse a config.eval that cannot be run."""
    unknown = [name for name in settings.what if name not in EVALUATIONS]
    if unknown or not settings.what or isinstance(settings.what, str):
        raise InputError(f"eval.what is {settings.what!r}; expected one or several of {', '.join(EVALUATIONS)}.")
    for name in ("probes", "dequantisations", "batch_size"):
        require_whole(f"eval.{name}", settings[name], 1)
    check_seed(settings.seed, "eval.seed")
    check_tolerances(settings.rtol, settings.atol)


def _identity(name: str, model: Model, settings: ml_collections.ConfigDict) -> dict[str, Any]:
    common = {"checkpoint_step": model.step, "checkpoint_digest": model.digest, "split": "test", "seed": settings.seed}
    return common | {entry: settings[entry] for entry in EVALUATIONS[name][1]}
