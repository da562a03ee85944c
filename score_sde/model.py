"""What a config describes: the parts of a model, and the model once it has weights."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from score_sde import config as config_
from score_sde import data, networks, parametrization, sde
from score_sde.core.errors import InputError
from score_sde.denoiser import Denoiser, NetworkDenoiser

# The entries of a config that say what a set of weights means.
MODEL_FIELDS = (
    *("data.name", "data.labels", "data.centered", "data.size", "data.crop", "data.folder"),
    *("sde", "parametrization", "network"),
)
# What config.data says of reading; the rest makes the data set.
_READING = ("batch_size", "flip", "labels")
_FREE = tuple(f"network.{name}" for name in networks.COMPUTE_SETTINGS)


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model, as `load` returns it.

    Attributes:
        denoiser: the denoiser, with its weights.
        transform: between the data's values and the model's scale.
        shape: the shape of one example.
        num_classes: the number of classes if the model is conditional, else None.
        config: the config it was trained with.
        step: the number of training steps behind the weights.
        digest: of the weights, as their checkpoint carries it; results name it.
    """

    denoiser: Denoiser
    transform: Any
    shape: tuple[int, ...]
    num_classes: int | None
    config: ml_collections.ConfigDict
    step: int
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """The parts of a model that a config names, all but the weights."""

    dataset: data.Dataset
    sde: sde.SDE
    parametrization: parametrization.Parametrization
    network: networks.Network
    num_classes: int | None

    @classmethod
    def from_config(cls, config: ml_collections.ConfigDict, dtype: str | None = None) -> Blueprint:
        """Build the parts; raises InputError for names or arguments that do not fit.

        `dtype` is what the network computes in instead of config.network.dtype, where it has such an entry.
        """
        source = {name: value for name, value in config.data.items() if name not in _READING}
        dataset = config_.build(data, source, base=data.Dataset)
        num_classes = dataset.num_classes if config.data.labels else None
        the_sde = config_.build(sde, config.sde, base=sde.SDE)
        meaning = config_.build(parametrization, config.parametrization, base=parametrization.Parametrization)
        spec = config_.to_dict(config.network)
        if dtype is not None and "dtype" in spec:
            spec["dtype"] = dtype
        network = config_.build(networks, spec, base=networks.Network, shape=dataset.shape, num_classes=num_classes)
        meaning.check(the_sde)
        return cls(dataset, the_sde, meaning, network, num_classes)

    def denoiser(self, params: Any) -> NetworkDenoiser:
        """The denoiser with these weights."""
        return NetworkDenoiser(self.sde, self.parametrization, self.network, params)


def check_same(
    config: ml_collections.ConfigDict,
    trained: ml_collections.ConfigDict,
    fields: Sequence[str],
    workdir: pathlib.Path,
) -> None:
    """Raise InputError, naming the entry, where two configs differ in one of `fields`."""
    for name, (ours, theirs) in config_.differences(config, trained).items():
        if name not in _FREE and any(name == field or name.startswith(field + ".") for field in fields):
            raise InputError(
                f"{workdir} was trained with {name} = {theirs!r}, and the config says {ours!r}: "
                f"use another --workdir, or the config that it was trained with."
            )
