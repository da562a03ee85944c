"""This module trains a model from arrays, an SDE and a network in one call."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from score_sde import config as config_
from score_sde import data as data_
from score_sde import networks, parallel, sde
from score_sde.core.checks import require_whole, shown
from score_sde.core.errors import DivergenceError, InputError
from score_sde.data.in_memory import arguments_of
from score_sde.denoisers import Parametrization
from score_sde.experiment import Experiment, Model, check_rates, digest, make_step
from score_sde.fitting.recipe import config_of
from score_sde.jobs.progress import StepProgress

_LOOK_EVERY = 100
_LOOKED_AT = 10_000  # number of examples from which the standard deviation is computed


def fit(
    data: ArrayLike | Mapping[str, Any] | data_.Arrays | data_.Dataset | None = None,
    /,
    sde: sde.SDE | None = None,
    network: networks.Network | None = None,
    *,
    label: ArrayLike | None = None,
    cond: Mapping[str, Any] | None = None,
    parametrization: Parametrization | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> Model:
    """Train a model on an array or a data set, and return the model with averaged weights; `Model.save` saves it.

    The defaults are the SDE of Karras et al. 2022 with their preconditioning and log-normal times, a network that fits
    the shape, Adam with warm-up and cosine decay of the learning rate, and an average of the weights.

    Args:
        data: examples, (n, *shape): real numbers such as points, or whole numbers from 0 such as images (height, width,
            channels); or {'values': examples, 'label': labels}; or a data set. Of a data set training uses the split
            'train', and the model reads the conditions that `data.given` names: data=dict(given=('label',)).
        sde: the SDE; None for EDM().
        network: the network; None for a network that fits the shape.
        label: the class of each example of an array, whole numbers (n,); the model is conditioned on the class.
        cond: further conditions by name, each with leading axis n.
        parametrization: the parametrisation of the network's output; None for Preconditioned.
        steps: the number of training steps; None for 500 with small images, otherwise 2,000.
        batch_size: examples per step; None for 256 with small vectors, 32 with small images, otherwise 64.
        learning_rate: the highest learning rate; None for 1e-2 with small vectors, otherwise 2e-3.
        seed: the seed of the initial weights, of the order of the data and of all random draws.
        progress: whether to report the progress of training.
        **settings: sections of a config that override the defaults, such as data=dict(flip=True) or
            averages=dict(ema=dict(name='Constant', decay=0.99)).

    A small vector has at most 16 numbers, a small image at most 1,024.

    Raises:
        InputError: for data or settings that cannot be used.
        DivergenceError: if a loss is not finite.
    """
    dataset: data_.Dataset
    given: tuple[str, ...] = ()
    if data is None:
        raise InputError("fit got no data; expected examples as the first argument, without a name: fit(examples).")
    if isinstance(data, type):
        raise InputError(f"data is the class {data.__name__}; expected an object of it: {data.__name__}().")
    if isinstance(data, data_.Dataset):
        dataset, spec = data, _spec(data, label, cond)
    else:
        dataset, spec, given = _in_memory(data, label, cond)
    numbers = math.prod(dataset.shape)
    steps = _steps(numbers) if steps is None else steps
    require_whole("steps", steps, 1)
    size = _size(dataset)
    settings = _with(settings, steps, batch_size, learning_rate, seed)
    config = config_of(spec, dataset.shape, size, sde, network, parametrization, given, settings)
    experiment = dataclasses.replace(Experiment.from_config(config), dataset=dataset)
    return _trained(experiment, progress)


def _steps(numbers: int) -> int:
    """Return the default number of steps; for small examples they take about a minute on two cores."""
    return 500 if 16 < numbers <= 1024 else 2000


def _spec(dataset: data_.Dataset, label: Any, cond: Any) -> dict[str, Any]:
    """Return the spec of a data set; raise InputError if conditions are given separately."""
    if label is not None or cond is not None:
        raise InputError(
            f"label or cond was given with the data set {type(dataset).__name__}; expected only its own conditions: "
            "data=dict(given=('label',))."
        )
    return config_.spec_of(dataset, data_, data_.Dataset, skip=() if hasattr(dataset, "dir") else ("dir",))


def _in_memory(
    data: Any, label: ArrayLike | None, cond: Mapping[str, Any] | None
) -> tuple[data_.InMemory, dict[str, Any], tuple[str, ...]]:
    """Return (the data set of these arrays, its spec, the names of the given conditions)."""
    values, conditions = _columns(data, label, cond)
    arguments = arguments_of(values, conditions)
    dataset = data_.InMemory(**arguments).holding(train=data_.Arrays(values=values, **conditions))
    return dataset, {"name": "InMemory", **arguments}, tuple(conditions)


def _size(dataset: data_.Dataset) -> float:
    """Return the standard deviation of the first examples on the model's scale."""
    source = dataset.source("train")
    if not len(source):
        raise InputError(f"The split 'train' of {type(dataset).__name__} is empty; expected examples.")
    values = data_.read(source, range(min(len(source), _LOOKED_AT)))["values"]
    x, _ = dataset.codec.encode(np.asarray(values), None)
    size = float(np.std(np.asarray(x, np.float64)))
    if not size > 0:
        raise InputError(f"data are {np.asarray(values).flat[0]} throughout; expected values that differ.")
    return size


def _columns(
    data: Any, label: ArrayLike | None, cond: Mapping[str, Any] | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return (values, conditions by name) as arrays."""
    if not (cond is None or isinstance(cond, Mapping)):
        raise InputError(f"cond is {shown(cond)}; expected a dictionary of arrays by name, such as {{'a': numbers}}.")
    columns = data.columns if isinstance(data, data_.Arrays) else data
    columns = dict(columns) if isinstance(columns, Mapping) else {"values": columns}
    if "values" not in columns:
        raise InputError(f"data have the columns {', '.join(columns) or 'none'}; expected 'values' among them.")
    conditions = {name: column for name, column in columns.items() if name != "values"} | dict(cond or {})
    if label is not None:
        conditions["label"] = label
    try:
        values = np.asarray(columns["values"])
        conditions = {name: np.asarray(column) for name, column in conditions.items()}
    except (ValueError, TypeError) as error:
        raise InputError(f"data cannot be read as arrays: {error}; expected examples of one shape.") from error
    return values, conditions


def _with(
    settings: Mapping[str, Any],
    steps: int,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int,
) -> dict[str, Any]:
    """Return `settings` with the entries that the other arguments set; entries of `settings` take precedence."""
    for name, value in settings.items():
        if isinstance(config_.DEFAULTS.get(name), dict) and not isinstance(value, Mapping):
            raise InputError(f"{name} is {shown(value)}; expected a dictionary of settings, as a config states them.")
    merged = {name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()}

    def put(section: str, entry: str, value: Any) -> None:
        merged.setdefault(section, {})
        merged[section] = {entry: value} | merged[section]

    put("train", "steps", steps)
    merged.setdefault("seed", seed)
    if batch_size is not None:
        put("data", "batch_size", batch_size)
    schedule: dict[str, Any] = {"decay_steps": steps, "warmup_steps": min(100, steps // 10)}
    if learning_rate is not None:
        schedule["peak_value"] = learning_rate
    put("optimizer", "schedule", schedule)
    return merged


def _trained(experiment: Experiment, progress: bool) -> Model:
    """Train for config.train.steps steps and return the model."""
    config = experiment.config
    check_rates(experiment.schedules, config.train.steps)
    examples = experiment.examples("train")
    examples.look()
    devices = parallel.strategy(config.parallel)
    size, steps = config.data.batch_size, config.train.steps
    parallel.check_batch(size, len(devices.devices), "batch_size")
    with jax.default_device(parallel.host_device()):
        state = experiment.init_state()
    state = devices.place_state(state, experiment.cuts)
    step, frozen = make_step(experiment, devices=devices)
    advance = devices.compile(step, state, 1, experiment.cuts)
    read = data_.training_batches(examples, size, seed=experiment.seed, flip=config.data.flip)
    batches = parallel.ahead(lambda batch: devices.place_batch(batch, size), itertools.islice(read, steps))
    for remark in experiment.network.remarks():
        warnings.warn(remark, stacklevel=3)
    began, recent = time.perf_counter(), []
    with StepProgress(steps, 0, quiet=not progress) as told:
        for number, batch in enumerate(batches, 1):
            state, metrics = advance(state, batch, frozen)
            recent.append(metrics["loss"])
            told.add(1, metrics)
            if number % _LOOK_EVERY == 0 or number == steps:
                loss = _mean(recent, number)
                told.tell(loss=loss)
                recent = []
    if progress:
        print(f"trained {steps:,} steps in {time.perf_counter() - began:.1f} s: loss {loss:.4f}", file=sys.stderr)
    averages = next(iter(state.averages.values()), state.params)
    params = jax.device_get(devices.on_local(averages))["network"]
    # The model computes likelihoods in float32, independent of the dtype in training, like a model from `load`.
    used = Experiment.from_config(config, dtype="float32").denoiser(params)
    return Model(used, experiment.codec, config, steps, digest({"network": params}))


def _mean(losses: list[Any], number: int) -> float:
    """Return the mean of the last losses; raise DivergenceError if one of these losses is not finite."""
    values = np.asarray(jax.device_get(losses), float)
    if not np.isfinite(values).all():
        raise DivergenceError(
            f"The loss of step {number - len(values) + 1 + int(np.argmin(np.isfinite(values)))} is not finite: use a "
            "smaller learning_rate."
        )
    return float(values.mean())
