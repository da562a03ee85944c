"""What a config leaves to the data: entries that are 'auto' become what fits them."""

from __future__ import annotations

from typing import Any

import ml_collections

from score_sde import config as config_
from score_sde import data
from score_sde.config import AUTO
from score_sde.networks.fitting import fitted_to

_DROPPED = 0.1  # of the examples lose a condition that is given because the data have it
_AUGMENT, _MANY = "Augment", 100_000
_DATA_STD = 0.5  # of pictures on [-1, 1]: Karras et al. 2022


def settle(config: ml_collections.ConfigDict, dataset: data.Dataset) -> dict[str, Any]:
    """Replace what is 'auto' in a complete config, so that it can be read again without the data.

    The arguments of the data set become what it found out (`Dataset.arguments`); data.conditions becomes `Augment` for
    fewer than 100,000 colour pictures; data.given becomes the class, where the data have one, left out for one example
    in ten, and what is computed; network.name becomes the network that `fitted_to` chooses, with
    the entries that the config states beside the name; parametrization.data_std becomes 0.5 for whole numbers and 1 for
    real ones.

    Args:
        config: a complete config, which is changed.
        dataset: the data set that it names.

    Returns:
        The entries that were replaced, by their dotted names.
    """
    before = config_.flatten(config)
    with config.ignore_type():
        _settle(config, dataset)
    after = config_.flatten(config)
    # By their text: an entry may hold arrays, which have no one truth value.
    return {name: value for name, value in after.items() if name not in before or repr(before[name]) != repr(value)}


def _settle(config: ml_collections.ConfigDict, dataset: data.Dataset) -> None:
    for name, value in (getattr(dataset, "arguments", None) or {}).items():
        config.data[name] = _plain(value)
    if config.data.conditions == AUTO:
        config.data.conditions = _AUGMENT if _is_augmented(dataset) else ""
    if config.data.given == AUTO:
        label = ("label",) if "label" in dataset.conditions else ()
        config.data.given = (*label, *_computed(config))
        config.data.drop = config_.to_dict(config.data.drop) or dict.fromkeys(label, _DROPPED)
    if config.network.name == AUTO:
        stated = {name: value for name, value in config_.to_dict(config.network).items() if name != "name"}
        chosen = fitted_to(dataset.codec.model_shape, dataset.count())
        if chosen["name"] == "MLP":  # which has no entries of a U-Net
            stated = {name: value for name, value in stated.items() if name in chosen}
        config.network = ml_collections.ConfigDict(chosen | stated)
    if config.parametrization.get("data_std") == AUTO:
        std = 1.0 if dataset.codec.maximum is None else _DATA_STD
        config.parametrization.data_std = std
        _share_std(config, std)


def _is_augmented(dataset: data.Dataset) -> bool:
    """Whether the data are colour pictures, so few that a network would learn them by heart."""
    shape = dataset.codec.data_shape
    colour = len(shape) == 3 and shape[2] >= 3 and dataset.codec.maximum is not None
    return colour and dataset.count() < _MANY


def _computed(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The names of the conditions that are computed."""
    specs = config_.read_specs("data.conditions", config.data.conditions)
    built = [config_.build(data, spec, base=data.ComputedCondition) for spec in specs]
    return tuple(name for one in built for name in one.conditions)


def _share_std(config: ml_collections.ConfigDict, std: float) -> None:
    """Tell the weighting of Karras et al. the same standard deviation, where it is left to the data too."""
    weight: Any = config.objective.get("weight")
    if isinstance(weight, ml_collections.ConfigDict) and weight.get("data_std") == AUTO:
        weight.data_std = std


def _plain(value: Any) -> Any:
    return ml_collections.ConfigDict(value) if isinstance(value, dict) else value
