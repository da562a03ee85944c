"""This module converts configs to plain values and to JSON, and finds the differences between two configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from score_sde.core.errors import InputError


def to_dict(config: Any) -> Any:
    """Return a config as plain dicts, tuples and values."""
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {name: to_dict(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return tuple(to_dict(value) for value in config)
    return config


def to_json(config: Mapping[str, Any]) -> str:
    """Return a config as JSON text."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """Return the config that `to_json` wrote, with tuples for lists.

    Raises:
        InputError: for text that is not a JSON object.
    """
    try:
        values = json.loads(text)
        if isinstance(values, dict):
            return ml_collections.ConfigDict(to_dict(values))
    except (ValueError, RecursionError) as error:  # ConfigDict raises ValueError for a dot in a name
        raise InputError(f"The text is not a config in JSON: {error}.") from error
    raise InputError(f"The text holds a {type(values).__name__}; expected a JSON object.")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value by its dotted name: {'network.channels': 32, ...}."""
    flat: dict[str, Any] = {}
    for name, value in to_dict(config).items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return {dotted name: (our value, their value)} for entries that differ; the value of a missing entry is None."""
    a, b = flatten(from_json(to_json(ours))), flatten(from_json(to_json(theirs)))
    return {name: (a.get(name), b.get(name)) for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)}
