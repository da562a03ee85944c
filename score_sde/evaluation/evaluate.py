"""The evaluation job: what config.eval.what names, on the test split, into the workdir's folder eval/."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import ml_collections

from score_sde import checkpoint, data, parallel
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.core.keys import check_seed
from score_sde.denoiser import NetworkDenoiser
from score_sde.evaluation import likelihood, losses, results
from score_sde.model import MODEL_FIELDS, Blueprint, Model, check_same
from score_sde.objective import Objective
from score_sde.ode import check_tolerances


@dataclasses.dataclass(frozen=True)
class Job:
    """What every evaluation is given.

    Attributes:
        model: the trained model.
        denoiser: its denoiser, with a copy of the weights on every device.
        objective: the loss it was trained with.
        source: the examples.
        devices: where to compute.
        settings: config.eval.
        folder: where results go.
    """

    model: Model
    denoiser: NetworkDenoiser
    objective: Objective
    source: data.Source
    devices: parallel.Jit
    settings: ml_collections.ConfigDict
    folder: pathlib.Path


# Each writes its files into job.folder and returns its results and a line that tells them.
Evaluation = Callable[[Job], tuple[dict[str, Any], str]]
# Name -> the evaluation, and the settings that its results depend on.
EVALUATIONS: dict[str, tuple[Evaluation, tuple[str, ...]]] = {
    "loss": (losses.held_out, ()),
    "loss_per_level": (losses.per_level, ()),
    "likelihood": (likelihood.over_split, ("probes", "rtol", "atol", "dequantisations")),
}


def evaluate(config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Evaluate the newest whole checkpoint on the test split as config.eval says.

    Writes eval/NAME.json for every name in config.eval.what; each says which checkpoint and settings
    it is of. Results that are there are not made again, and those of another checkpoint are not touched.

    Raises:
        InputError: for a config or a workdir that cannot be evaluated, or results of something else there.
        DivergenceError: for examples whose likelihood could not be computed.
    """
    settings = config.eval
    check(settings)
    model = checkpoint.load(workdir)
    check_same(config, model.config, MODEL_FIELDS, pathlib.Path(workdir))
    folder = pathlib.Path(workdir) / "eval"
    identities = {name: _identity(name, model, settings) for name in settings.what}
    there = {name: results.is_there(folder / f"{name}.json", of) for name, of in identities.items()}
    if all(there.values()):
        print(f"nothing left to evaluate: {folder} has {', '.join(there)} of step {model.step}")
        return
    folder.mkdir(exist_ok=True)  # an unwritable workdir says so now
    devices, blueprint = parallel.strategy(config.parallel), Blueprint.from_config(config)
    job = Job(
        model=model,
        denoiser=eqx.tree_at(lambda d: d.params, model.denoiser, replace_fn=devices.place_state),
        objective=Objective.from_config(blueprint, model.config),
        source=blueprint.dataset.source("test"),
        devices=devices,
        settings=settings,
        folder=folder,
    )
    for name, done in there.items():
        if done:
            continue
        began = time.perf_counter()
        found, line = EVALUATIONS[name][0](job)
        seconds = time.perf_counter() - began
        results.write(folder / f"{name}.json", {**found, "seconds": round(seconds, 3)}, identities[name])
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
