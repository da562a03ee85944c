"""This module defines the evaluation job.

The job runs the evaluations of config.eval.what on the test split, and writes the results to eval/ in the workdir.
"""

from __future__ import annotations

import functools
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from score_sde import config as config_
from score_sde import data, parallel
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.core.keys import check_seed
from score_sde.core.precision import products
from score_sde.experiment import Experiment, check_same, load_trained, opened
from score_sde.jobs import evaluations, results
from score_sde.jobs.base import Job
from score_sde.jobs.checkpoints import check_shared, chosen
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.parts import Parts
from score_sde.jobs.sample import sample_settings, samples_of
from score_sde.losses import Trained
from score_sde.parallel import processes


class Evaluate(Job):
    """`Evaluate` evaluates checkpoints on the test split as config.eval specifies."""

    name = "eval"

    def check(self, experiment: Experiment) -> None:
        read_evaluations(experiment.config.eval)

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        evaluate(experiment, workdir)


def evaluate(experiment: Experiment | Mapping[str, Any], workdir: str | os.PathLike[str]) -> None:
    """Evaluate checkpoints on the test split in float32: the newest checkpoint, or config.eval.checkpoints.

    Each evaluation of config.eval.what writes eval/NAME.json (eval/step_STEP/NAME.json for checkpoints that are named).
    The file states the checkpoint, the data and the settings of the result. Existing results are not computed again.
    Results of other checkpoints, data or settings are kept, and the new results go to eval/NAME-DIGEST/. If a run has
    several processes, each process calls this function.

    Raises:
        InputError: if the config or the workdir cannot be evaluated.
        DivergenceError: if the likelihood of an example could not be computed.
        Stopped: after SIGTERM; finished results are kept.
    """
    experiment = experiment if isinstance(experiment, Experiment) else Experiment.from_config(experiment)
    wanted = read_evaluations(experiment.config.eval)
    check_shared(workdir)
    with opened(workdir, writes=True) as folder:
        _evaluate_checkpoints(experiment, wanted, folder)


def _evaluate_checkpoints(experiment: Experiment, wanted: tuple[Evaluation, ...], workdir: pathlib.Path) -> None:
    settings = experiment.config.eval
    processes.check_agreed("the config", config_.to_json(experiment.config))
    for step, folder in chosen(workdir, settings.checkpoints, workdir / "eval", "eval"):
        trained = load_trained(workdir, step, averages=True)
        check_same(experiment.config, trained.experiment.config, config_.NOT_OF_THE_MODEL, workdir)
        _evaluate(experiment, wanted, trained, workdir, folder)
    processes.barrier("evaluated")


def read_evaluations(settings: Any) -> tuple[Evaluation, ...]:
    """Return the evaluations that config.eval names; raise InputError for settings that cannot be used."""
    require_whole("eval.batch_size", settings.batch_size, 1)
    check_seed(settings.seed, "eval.seed")
    wanted = tuple(
        config_.build(evaluations, spec, base=Evaluation) for spec in config_.read_specs("eval.what", settings.what)
    )
    if not wanted:
        known = ", ".join(config_.names(evaluations, Evaluation))
        raise InputError(f"eval.what is {settings.what!r}; expected one or several of {known}.")
    return wanted


def _evaluate(
    experiment: Experiment,
    wanted: tuple[Evaluation, ...],
    trained: Trained,
    workdir: pathlib.Path,
    root: pathlib.Path,
) -> None:
    """Run all evaluations of config.eval.what for one checkpoint."""
    # The data and the settings come from the command; the objective and the weights come from the workdir.
    split = _reader(experiment, trained)
    of_jax: Any = jax.config
    products_outside = of_jax.jax_default_matmul_precision

    def drawn(n: int) -> pathlib.Path:
        with jax.default_matmul_precision(products_outside):  # config.sample sets the precision of samples
            return samples_of(experiment, trained, workdir, n)

    common = {
        "checkpoint_step": trained.step,
        "checkpoint_digest": trained.digest,
        "split": "test",
        "data": data.digest(split("test").source),
        "seed": experiment.config.eval.seed,
        "precision": experiment.config.eval.precision,
    }

    def digests(one: Evaluation) -> dict[str, str]:
        return {f"data_{name}": data.digest(split(name).source) for name in one.reads_splits if name != "test"}

    sample = {"sample": sample_settings(experiment.config)}
    of = [
        (one, common | _class_of(one) | digests(one) | one.settings() | (sample if one.needs_samples else {}))
        for one in wanted
    ]
    _check_names(of, {*common, "evaluation", "sample", "seconds", "summary"})
    if processes.is_first():
        root.mkdir(parents=True, exist_ok=True)  # an unwritable workdir raises an error now
    devices = parallel.strategy(experiment.config.parallel)
    eval_ = experiment.config.eval
    for one, identity in of:
        # `place` runs after the previous evaluation has written its result, because two evaluations may share a name.
        folder = results.place(root, one.name, identity)
        done = results.is_there(folder, one.name, identity)
        path = folder / f"{one.name}.json"
        processes.check_agreed(
            f"the results in {root}, or its checkpoint or data", f"{done} {folder.name} {results.plain(identity)}"
        )
        if not done:
            asks = drawn if one.needs_samples else _no_samples
            settings = (eval_.batch_size, eval_.seed, eval_.precision)
            at = Context(trained, split("test"), split, devices, *settings, root, folder, identity, asks)
            began = time.perf_counter()
            with products(eval_.precision):
                found, line = _checked_results(one, one.run(at), identity)
            seconds = time.perf_counter() - began
            if processes.is_first():
                results.write(path, {"seconds": round(seconds, 3), "summary": line} | found, identity)
                print(f"evaluated step {trained.step}: {line} (seconds: {seconds:.1f})\n  results: {path}")
        elif processes.is_first():
            line = results.read(folder, one.name).get("summary", "its result")
            print(f"nothing left to evaluate: step {trained.step} has {line}\n  results: {path}")
            print(f"  to evaluate again, delete {path.name}")
        if processes.is_first():
            Parts(root, one.name, identity).remove()
        processes.barrier("evaluated")  # the next call of `place` depends on the written files


def _reader(experiment: Experiment, trained: Trained) -> Callable[[str], data.Examples]:
    """Return a function from 'train' or 'test' to the examples of the command, as the workdir's model reads them."""

    @functools.cache
    def split(name: str) -> data.Examples:
        source = processes.first_alone(lambda: experiment.dataset.source(name))
        examples: data.Examples = trained.experiment.examples(name, source)
        return examples

    return split


def _class_of(one: Evaluation) -> dict[str, str]:
    """Return the class of a user's own evaluation as an entry of the identity: two classes may have the same name."""
    kind = type(one)
    built_in = kind.__module__.startswith("score_sde.")
    return {} if built_in else {"evaluation": f"{kind.__module__}.{kind.__qualname__}"}


def _check_names(of: list[tuple[Evaluation, results.Identity]], taken: set[str]) -> None:
    """Raise InputError if a setting has the name of another entry of a result."""
    for one, _ in of:
        for name in one.settings():
            if name in taken:
                raise InputError(
                    f"{type(one).__name__} has a setting {name!r}, which every result has already: rename the setting."
                )


def _checked_results(one: Evaluation, returned: Any, identity: results.Identity) -> tuple[dict[str, Any], str]:
    """Return the results and the line of an evaluation; raise InputError if it returned anything else.

    A result with the name of an entry of the identity is refused, because the entry would replace the result.
    """
    match returned:
        case (dict() as found, str() as line):
            pass
        case _:
            raise InputError(
                f"run of {type(one).__name__} returned {type(returned).__name__}; expected (dictionary, line of text)."
            )
    clash = sorted(found.keys() & {*identity, "summary"})
    if clash:
        raise InputError(
            f"{type(one).__name__} returns {clash[0]!r}, which every result has already: rename the entry."
        )
    return found, line


def _no_samples(n: int) -> pathlib.Path:
    raise InputError("An evaluation draws samples, which its class must declare: expected needs_samples = True.")
