"""What an evaluation is: a spec in config.eval.what, found like any class."""

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
    """What every evaluation is given.

    Attributes:
        trained: the parameters, with their experiment.
        examples: those of the split 'test'.
        devices: where to compute.
        batch_size, seed, precision: config.eval's; `Evaluation.run` is called with the precision in force.
        root: the folder of all results, where an unfinished one keeps its parts.
        folder: where the files of this result go.
        identity: all that the result depends on.
        drawn: draws samples as config.sample says, as many as asked for, and returns the folder that has them as
            samples.npz; those that are there are not drawn again.
    """

    trained: Trained
    examples: data.Examples
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
        """The examples of the split 'test' as the data set gives them."""
        return self.examples.source

    @functools.cached_property
    def model(self) -> Any:
        """What the objective makes of the parameters: a `Model`, for a denoiser."""
        return made_of(self.trained)

    def denoiser(self, devices: parallel.Jit) -> Denoiser:
        """The model's denoiser, with a copy of the weights on each of these devices.

        Raises:
            InputError: where the objective trains none.
        """
        if not isinstance(self.model, Model):
            raise InputError(
                f"{type(self.experiment.objective).__name__} trains no denoiser, which this evaluation needs: change "
                "eval.what."
            )
        return placed(self.model.denoiser, devices)

    def parts(self, name: str) -> Parts:
        """Where an evaluation keeps what it has so far."""
        return Parts(self.root, name, self.identity)

    def batch(self, numbers: np.ndarray) -> data.Batch:
        """The examples of these numbers, with the conditions that are read, not yet on a device."""
        return self.examples.batch(numbers)

    @functools.cached_property
    def held_out(self) -> HeldOut:
        """The objective's loss over the split."""
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
        """(parameters by group, state, averages by name, steps) of the objective, on the devices, for `held_out`."""
        trained = self.trained
        params, state, averages = self.devices.place_state((trained.params, trained.state, dict(trained.averages)))
        return params, state, averages, trained.step


class Evaluation(abc.ABC):
    """Something that is measured of a trained model. config.eval.what names one with its settings.

    To add one, subclass, define `run`, and declare settings as a frozen dataclass does; a config names it by
    its dotted path, 'mypackage.Count(n=100)'. The settings are part of the result's identity.

    Attributes:
        name: of the result's file, NAME.json; the class's own name unless it says otherwise.
        needs_samples: whether it asks for samples (`Context.drawn`); config.sample is then part of the identity.
    """

    name: ClassVar[str]
    needs_samples: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not hasattr(cls, "name"):
            cls.name = cls.__name__.lower()

    def settings(self) -> dict[str, Any]:
        """What the result depends on, beside the checkpoint, the data and the seed."""
        fields: Any = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return {field.name: _as_spec(getattr(self, field.name)) for field in fields}

    @abc.abstractmethod
    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        """Measure it; every process calls this, and the first alone writes files, into at.folder.

        Returns:
            (the results, as JSON can hold them; a line that tells them).
        """


def placed(tree: Any, devices: parallel.Jit) -> Any:
    """A pytree whose arrays are on every device."""
    arrays, join = split_arrays(tree)
    return join(devices.place_state(arrays))


def _as_spec(value: Any) -> Any:
    """A setting as the config wrote it: what was built of a spec as its name and fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__} | {
            field.name: _as_spec(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {name: _as_spec(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    return value if isinstance(value, bool | int | float | str | list | tuple | None) else repr(value)
