"""This module replaces the config entries that are 'auto' by values that fit the data."""

from __future__ import annotations

from typing import Any

import ml_collections

from score_sde import config as config_
from score_sde import data
from score_sde.config import AUTO
from score_sde.networks.fitting import fitted_to

_DROPPED = 0.1  # share of the training examples without their class, if data.given is 'auto'
_AUGMENT, _MANY = "Augment", 100_000
_DATA_STD = 0.5  # the value of Karras et al. 2022 for pictures on [-1, 1]


def settle(config: ml_collections.ConfigDict, dataset: data.Dataset) -> dict[str, Any]:
    """Replace the entries that are 'auto' in a complete config, so that the config can be read again without the data.

    The arguments of the data set become the arguments that the data set found (`Dataset.arguments`). data.conditions
    becomes `Augment` for fewer than 100,000 colour pictures, if data.given is 'auto' or has 'augment'. data.given
    becomes the class, if any, and the computed conditions; training drops the class of one example in ten.
    network.name becomes the network that `fitted_to` chooses; entries of `network` in the config override the chosen
    entries. parametrization.data_std becomes 0.5 for whole numbers and 1 for real numbers.

    Args:
        config: a complete config, which is changed in place.
        dataset: the data set that the config names.

    Returns:
        The new values of the entries that were replaced, by the dotted names of the entries.
    """
    before = config_.flatten(config)
    with config.ignore_type():
        _settle(config, dataset)
    after = config_.flatten(config)
    # Values are compared as text, because comparing arrays gives an array of truth values.
    return {name: value for name, value in after.items() if name not in before or repr(before[name]) != repr(value)}


def _settle(config: ml_collections.ConfigDict, dataset: data.Dataset) -> None:
    for name, value in (getattr(dataset, "arguments", None) or {}).items():
        config.data[name] = _plain(value)
    if config.data.conditions == AUTO:
        # A network that does not read how an example was augmented would draw augmented samples.
        is_read = config.data.given == AUTO or _AUGMENT.lower() in config.data.given
        config.data.conditions = _AUGMENT if is_read and _is_augmented(dataset) else ""
    if config.data.given == AUTO:
        label = ("label",) if "label" in dataset.conditions else ()
        config.data.given = (*label, *_computed(config))
        config.data.drop = config_.to_dict(config.data.drop) or dict.fromkeys(label, _DROPPED)
    if config.network.name == AUTO:
        stated = {name: value for name, value in config_.to_dict(config.network).items() if name != "name"}
        chosen = fitted_to(dataset.codec.model_shape, dataset.count())
        if chosen["name"] == "MLP":  # an MLP does not have the entries of a U-Net
            stated = {name: value for name, value in stated.items() if name in chosen}
        config.network = ml_collections.ConfigDict(chosen | stated)
    if config.parametrization.get("data_std") == AUTO:
        std = 1.0 if dataset.codec.maximum is None else _DATA_STD
        config.parametrization.data_std = std
        _share_std(config, std)


def _is_augmented(dataset: data.Dataset) -> bool:
    """Return whether the data are colour pictures, and so few that a network would memorise them."""
    shape = dataset.codec.data_shape
    colour = len(shape) == 3 and shape[2] >= 3 and dataset.codec.maximum is not None
    return colour and dataset.count() < _MANY


def _computed(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Return the names of the computed conditions."""
    specs = config_.read_specs("data.conditions", config.data.conditions)
    built = [config_.build(data, spec, base=data.ComputedCondition) for spec in specs]
    return tuple(name for one in built for name in one.conditions)


def _share_std(config: ml_collections.ConfigDict, std: float) -> None:
    """Set data_std in the weighting of Karras et al. to `std`, if data_std of the weighting is 'auto'."""
    weight: Any = config.objective.get("weight")
    if isinstance(weight, ml_collections.ConfigDict) and weight.get("data_std") == AUTO:
        weight.data_std = std


def _plain(value: Any) -> Any:
    return ml_collections.ConfigDict(value) if isinstance(value, dict) else value
