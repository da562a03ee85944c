"""This module defines `Evaluation`, the base class of the measurements that config.eval.what names by a spec."""

from __future__ import annotations

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from score_sde import data, parallel
from score_sde.core.arrays import split_arrays
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.experiment import Experiment, Model, made_of
from score_sde.jobs.parts import Parts
from score_sde.jobs.results import Identity
from score_sde.losses import HeldOut, Trained


@dataclasses.dataclass(frozen=True)
class Context:
    """`Context` holds the arguments of every evaluation.

    Attributes:
        trained: the parameters with their experiment.
        examples: the examples of the split 'test'.
        split: function of 'train' or 'test'; returns the examples of this split.
        devices: the devices for the computation.
        batch_size, seed, precision: entries of config.eval; `Evaluation.run` is called with this precision in force.
        root: the folder of all results, where an unfinished evaluation keeps its parts.
        folder: the folder for the files of this result.
        identity: everything that the result depends on.
        drawn: function of a number n; returns the folder of a samples.npz with at least n samples as config.sample
            specifies. Existing samples are not drawn again.
    """

    trained: Trained
    examples: data.Examples
    split: Callable[[str], data.Examples]
    devices: parallel.Jit
    batch_size: int
    seed: int
    precision: str
    root: pathlib.Path
    folder: pathlib.Path
    identity: Identity
    drawn: Callable[[int], pathlib.Path]

    @property
    def experiment(self) -> Experiment:
        experiment: Experiment = self.trained.experiment
        return experiment

    @property
    def source(self) -> data.Source:
        """Return the examples of the split 'test' as the data set gives them."""
        return self.examples.source

    @functools.cached_property
    def model(self) -> Any:
        """Return the object that the objective makes from the parameters; a denoiser is returned as a `Model`."""
        return made_of(self.trained)

    def denoiser(self, devices: parallel.Jit) -> Denoiser:
        """Return the model's denoiser with a copy of the weights on each of the given devices.

        Raises:
            InputError: if the objective trains no denoiser.
        """
        if not isinstance(self.model, Model):
            raise InputError(
                f"{type(self.experiment.objective).__name__} trains no denoiser, which this evaluation needs: change "
                "eval.what."
            )
        return placed(self.model.denoiser, devices)

    def parts(self, name: str) -> Parts:
        """Return the parts in which an evaluation keeps its unfinished results."""
        return Parts(self.root, name, self.identity)

    def batch(self, numbers: np.ndarray) -> data.Batch:
        """Return the examples of these numbers with the conditions that are read, not yet on a device."""
        return self.examples.batch(numbers)

    @functools.cached_property
    def held_out(self) -> HeldOut:
        """Return the function that computes the objective's loss over the split."""
        experiment = self.experiment
        size = self.devices.padded(self.batch_size)
        return HeldOut(
            experiment.objective,
            experiment.conditioning,
            self.examples,
            self.trained.frozen,
            self.devices,
            size,
            self.seed,
            self.precision,
        )

    @functools.cached_property
    def arguments(self) -> tuple[dict[str, Any], Any, dict[str, Any], int]:
        """Return (parameters by group, state, averages by name, steps) on the devices, for `held_out`."""
        trained = self.trained
        params, state, averages = self.devices.place_state((trained.params, trained.state, dict(trained.averages)))
        return params, state, averages, trained.step


class Evaluation(abc.ABC):
    """An evaluation measures a trained model; config.eval.what names an evaluation with its settings.

    To add an evaluation, subclass `Evaluation`, define `run`, and declare the settings as fields of a frozen dataclass.
    A config names the class by its dotted path, 'mypackage.Count(n=100)'. The settings are part of a result's identity.

    Attributes:
        name: the name of the result file NAME.json; by default the name of the class in lower case.
        needs_samples: whether the evaluation calls `Context.drawn`; config.sample is then part of the identity.
    """

    name: ClassVar[str]
    needs_samples: ClassVar[bool] = False

    @property
    def reads_splits(self) -> tuple[str, ...]:
        """Return the splits that the evaluation reads; the digest of each is part of the identity of a result."""
        return ("test",)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not hasattr(cls, "name"):
            cls.name = cls.__name__.lower()

    def settings(self) -> dict[str, Any]:
        """Return the settings that the result depends on, besides the checkpoint, the data and the seed."""
        fields: Any = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return {field.name: _as_spec(getattr(self, field.name)) for field in fields}

    @abc.abstractmethod
    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        """Run the evaluation; every process calls this method, and only the first process writes files, into at.folder.

        Returns:
            (the results, as JSON can hold them; one line of text that reports the results).
        """


def placed(tree: Any, devices: parallel.Jit) -> Any:
    """Return a pytree with its arrays on every device."""
    arrays, join = split_arrays(tree)
    return join(devices.place_state(arrays))


def _as_spec(value: Any) -> Any:
    """Return a setting as the config wrote it; an object built from a spec becomes its name and fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__} | {
            field.name: _as_spec(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {name: _as_spec(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    return value if isinstance(value, bool | int | float | str | list | tuple | None) else repr(value)
