"""This module makes a workdir from a published checkpoint."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import parallel
from score_sde.core import files
from score_sde.core.errors import InputError
from score_sde.experiment import Checkpoints, Experiment, TrainState, average_item, digest, write_config
from score_sde.losses import Denoising
from score_sde.parallel import processes
from score_sde.pretrained.as_published import as_published
from score_sde.pretrained.match import Matched, does_not_fit, match
from score_sde.pretrained.report import Difference, Expected, Report, are_suspicious, differences, read_expected
from score_sde.pretrained.weights import Weights, read_weights
from score_sde.readers.refusal import UNFORESEEN, shown

REPORT = "parity.json"


def import_weights(
    config: Experiment | Mapping[str, Any],
    workdir: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    expect: str | os.PathLike[str] | None = None,
) -> Report:
    """Make a workdir from a published checkpoint, for `load` and for further training.

    The file is a .pth of the PyTorch port or a msgpack checkpoint of the original; nothing in the file is executed.
    The import takes the parameters and, if present, their average, Adam's moments and the step.

    Args:
        config: config whose network is the network of the file, such as configs/cifar10.py:ve,ncsnpp, or its
            experiment.
        workdir: folder without checkpoints.
        weights: path of the file.
        expect: path of an .npz file of inputs and outputs that were computed elsewhere (`read_expected`), to compare.

    Returns:
        The parity report, which is also written to parity.json in the workdir.

    Raises:
        InputError: if the file cannot be read or does not fit the config. The message names the setting that differs,
            and nothing is written.
    """
    if not weights:
        raise InputError("--weights is missing; expected a .pth file, or a msgpack checkpoint of flax.")
    if processes.count() > 1:
        raise InputError("An import runs in one process: omit --distributed and --coordinator.")
    given = config.config if isinstance(config, Experiment) else config
    experiment = Experiment.from_config(given, "float32")
    if not isinstance(experiment.objective, Denoising):
        raise InputError(
            f"objective.name is {experiment.config.objective.name!r}; expected Denoising for published weights."
        )
    read = read_weights(weights)
    before = _imported(workdir, read)
    if before is not None:
        return before
    try:
        expected = _fitting(experiment, read, expect)
        matched = match(experiment.network, read)
    except InputError:
        raise
    except UNFORESEEN as error:
        raise InputError(f"{weights} does not fit the config ({type(error).__name__}: {shown(error)}).") from error
    state, notes = _state(experiment, read, matched)
    found: tuple[Difference, ...] = ()
    if expected is not None:
        items = {"params": matched.params} | ({"ema": matched.ema} if matched.ema is not None else {})
        function = as_published(experiment.sde, experiment.parametrization, experiment.network)
        found = differences(function, items, expected)
    report = _report(read, matched, state, notes, found)
    if expected is not None:
        report = dataclasses.replace(report, suspicious=are_suspicious(found, expected))
    keep = experiment.config.train.keep
    with (
        files.exclusive(workdir),
        Checkpoints(workdir, last=keep.last, every=keep.every, device=parallel.host_device()) as checkpoints,
    ):
        write_config(workdir, experiment.config)
        files.write_text(pathlib.Path(workdir) / REPORT, report.to_json())
        checkpoints.save(state)
        checkpoints.wait()
    return report


def _imported(workdir: str | os.PathLike[str], weights: Weights) -> Report | None:
    """Return the report of a workdir that was already made from this file; None for a workdir without checkpoints.

    Raises:
        InputError: if the workdir has other checkpoints.
    """
    with Checkpoints(workdir) as checkpoints:
        if not checkpoints.steps():
            return None
    try:
        report = Report.from_json((pathlib.Path(workdir) / REPORT).read_text())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        report = None
    if report is None or report.sha256 != weights.sha256:
        raise InputError(f"{workdir} already has checkpoints of another origin: import into another --workdir.")
    return report


def _fitting(experiment: Experiment, weights: Weights, expect: str | os.PathLike[str] | None) -> Expected | None:
    """Return the expected outputs of the network, or None.

    Raises:
        InputError: if the file or the expected outputs do not fit the config; one message names all reasons.
    """
    reasons = [does_not_fit(experiment.network, weights), *_levels_that_differ(experiment.config, weights)]
    reasons = [reason for reason in reasons if reason]
    expected, unreadable = None, ""
    if expect is not None:
        try:
            expected = read_expected(expect, experiment.codec.data_shape)
        except InputError as error:
            unreadable = str(error)
    if reasons:
        told = f"{weights.path} does not fit the config: {'; '.join(reasons)}."
        raise InputError(f"{told} The expected outputs fail too: {unreadable}" if unreadable else told)
    if unreadable:
        raise InputError(unreadable)
    return expected


def _levels_that_differ(config: Any, weights: Weights) -> list[str]:
    """Return how the port's table of noise levels, which VE models use, differs from the config."""
    if weights.sigmas is None or "sigma_max" not in config.sde or not weights.sigmas.size:
        return []
    table = weights.sigmas.astype(np.float64)
    reasons = [
        f"file has {name} {value:.6g}, config says {config.sde[name]:g}: use --config.sde.{name}={value:.6g}, or the "
        "config of its data set"
        for name, value in dict(sigma_max=table[0], sigma_min=table[-1]).items()
        if not np.isclose(value, config.sde[name], rtol=1e-4)
    ]
    levels = config.sde.get("n")
    if levels is not None and levels != len(table):
        reasons.append(f"file has {len(table)} noise levels, config says {levels}: use --config.sde.n={len(table)}")
    return reasons


def _state(experiment: Experiment, weights: Weights, matched: Matched) -> tuple[TrainState, tuple[str, ...]]:
    notes, group = [], Denoising.GROUP
    if weights.step is None:
        notes.append("the file has no step: training would start at step 0, where an average soon forgets the weights")
    if matched.ema is None:
        notes.append("the file has no moving average: the average starts from the parameters")
    if matched.ignored:
        notes.append(f"{len(matched.ignored)} tensors were omitted, because the network never uses them")
    opt_state = jax.jit(experiment.optimizers[group].init)(matched.params)
    step = weights.step or 0
    if matched.moments is None:
        notes.append("the file has no optimizer's state: the optimizer starts anew")
    else:
        opt_state, taken = _filled(opt_state, matched.moments, weights.adam_step, step)
        if not taken:
            notes.append("the config's optimizer has no moments such as Adam's: the moments of the file were omitted")
    averaged = matched.params if matched.ema is None else matched.ema
    averages = {name: {group: jax.tree.map(np.copy, averaged)} for name in experiment.averages}
    params = {group: matched.params}
    return TrainState(jnp.asarray(step, jnp.int32), params, averages, {group: opt_state}, ()), tuple(notes)


def _filled(opt_state: Any, moments: tuple[Any, Any], adam_step: int, step: int) -> tuple[Any, bool]:
    """Return the optax state with Adam's moments and the counts of steps, and whether the state takes moments."""
    taken = False

    def is_part(part: Any) -> bool:
        return hasattr(part, "_fields") and "count" in part._fields

    def fill(part: Any) -> Any:
        nonlocal taken
        if not is_part(part):
            return part
        if "mu" not in part._fields or "nu" not in part._fields:
            return part._replace(count=np.asarray(step, np.int32))  # the count of the schedule
        taken = True
        return part._replace(count=np.asarray(adam_step, np.int32), mu=moments[0], nu=moments[1])

    filled = jax.tree.map(fill, opt_state, is_leaf=is_part)
    return filled, taken


def _report(
    weights: Weights,
    matched: Matched,
    state: TrainState,
    notes: tuple[str, ...],
    found: tuple[Difference, ...],
) -> Report:
    digests = {"params": digest(state.params)} | {
        average_item(k): digest(average) for k, average in state.averages.items()
    }
    name, step = weights.path.name, int(state.step)
    return Report(name, weights.format, weights.sha256, matched.rows, matched.counts, digests, step, notes, found)
