"""This module trains a classifier on the data of a config; its features measure samples of that data."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from score_sde import data
from score_sde.core.conditions import Conditions, Label
from score_sde.core.errors import InputError
from score_sde.core.files import atomic_file
from score_sde.core.progress import Progress
from score_sde.experiment import Experiment
from score_sde.jobs.base import Job
from score_sde.networks.features import classifier
from score_sde.parallel import processes

_BATCH, _RATE, _DROPOUT, _SHIFT = 128, 2e-3, 0.4, 1
_PASSES, _LEAST_STEPS = 4, 600


class TrainClassifier(Job):
    """`TrainClassifier` trains a small classifier on the labels of the data, and writes WORKDIR/classifier.npz."""

    name = "classifier"
    flags: ClassVar[Mapping[str, str]] = {"passes": f"passes over the training examples ({_PASSES} by default)"}

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        passes = flags.get("passes") or str(_PASSES)
        if not passes.isdecimal() or not int(passes):
            raise InputError(f"--passes={passes} is no count; expected a whole number from 1.")
        if processes.is_first():
            train_classifier(experiment, workdir / "classifier.npz", int(passes))
        processes.barrier("classifier")


def train_classifier(
    experiment: Experiment | Mapping[str, Any], path: str | pathlib.Path, passes: int = _PASSES, seed: int = 0
) -> float:
    """Train a classifier on the labels of a data set, write it to an npz file, and return its accuracy on `test`.

    Training takes at least 600 steps of 128 examples, with Adam, random shifts by one pixel, and dropout. The file has
    the weights, and the digest of the training data with the accuracy. An existing file is replaced.

    Raises:
        InputError: if the data are not quantised images with a class `label`.
    """
    experiment = experiment if isinstance(experiment, Experiment) else Experiment.from_config(experiment)
    label = experiment.dataset.conditions.get("label")
    codec = experiment.codec
    if not isinstance(label, Label) or len(codec.data_shape) != 3 or codec.maximum is None:
        raise InputError(
            f"{experiment.config.data.name} has no quantised images with a class 'label'; a classifier needs both."
        )
    reads = Conditions(label=label)
    source, held_out = (experiment.dataset.source(split) for split in ("train", "test"))
    params = _trained(source, reads, codec, label.classes, passes, seed)
    accuracy = _accuracy(params, data.Examples(held_out, reads, codec), float(codec.maximum))
    about = {
        "data": data.digest(source),
        "shape": list(codec.data_shape),
        "accuracy": accuracy,
        "passes": passes,
        "seed": seed,
    }
    flat = {f"{name}/{part}": np.asarray(array) for name, layer in params.items() for part, array in layer.items()}
    with atomic_file(path) as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **flat)  # type: ignore[arg-type]
    print(f"classifier of {label.classes} classes: accuracy {accuracy:.4f} on {len(held_out)} test examples: {path}")
    return accuracy


def _trained(source: Any, reads: Conditions, codec: data.Codec, classes: int, passes: int, seed: int) -> Any:
    steps = max(passes * len(source) // _BATCH, _LEAST_STEPS)
    optimizer = optax.adam(optax.cosine_onecycle_schedule(steps, _RATE))
    params = classifier.init(jax.random.key(seed), tuple(codec.data_shape), classes)
    state, maximum = optimizer.init(params), float(codec.maximum)

    @jax.jit
    def step(params: Any, state: Any, values: Any, labels: Any, key: Any) -> tuple[Any, Any]:
        for_shift, for_drop = jax.random.split(key)
        x = _shifted(jnp.asarray(values, jnp.float32) / maximum, for_shift)
        keep = jax.random.bernoulli(for_drop, 1 - _DROPOUT, (len(x), classifier.FEATURES)) / (1 - _DROPOUT)

        def loss(params: Any) -> jax.Array:
            logits = classifier.apply(params, x, keep)["logits"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    size = min(_BATCH, len(source))
    batches = data.training_batches(source, size, seed=seed, reads=reads)
    with Progress("steps of the classifier", steps, 0, steps) as progress:
        for number in range(steps):
            batch = next(batches)
            key = jax.random.fold_in(jax.random.key(seed + 1), number)
            params, state = step(params, state, batch["values"], batch["cond"]["label"], key)
            progress.add(1)
    return params


def _shifted(x: jax.Array, key: jax.Array) -> jax.Array:
    """Return the images moved by up to one pixel; zeros fill the border."""
    padded = jnp.pad(x, ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT), (0, 0)))
    start = jax.random.randint(key, (2,), 0, 2 * _SHIFT + 1)
    return jax.lax.dynamic_slice(padded, (0, start[0], start[1], 0), x.shape)


def _accuracy(params: Any, examples: data.Examples, maximum: float) -> float:
    logits = jax.jit(lambda values: classifier.apply(params, jnp.asarray(values, jnp.float32) / maximum)["logits"])
    right = 0
    for low in range(0, len(examples), 1000):
        batch = examples.batch(np.arange(low, min(low + 1000, len(examples))))
        right += int((np.asarray(logits(batch["values"])).argmax(axis=1) == batch["cond"]["label"]).sum())
    return right / len(examples)
