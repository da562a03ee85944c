"""This module defines the train state, and splits a state into the named items of a checkpoint."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

AVERAGES = "averages"


class TrainState(NamedTuple):
    """A `TrainState` holds all values that training passes from step to step.

    Attributes:
        step: the number of updates so far, int32 ().
        params: the parameters by group.
        averages: averages of the parameters by name; each average has the groups of the parameters.
        optimizer: the optimizer states by group.
        objective: the state of the objective.
    """

    step: jax.Array
    params: dict[str, Any]
    averages: dict[str, dict[str, Any]]
    optimizer: dict[str, Any]
    objective: Any


def items_of(state: TrainState) -> dict[str, Any]:
    """Return the items of a checkpoint: each field except the step, and each average; omit items without arrays."""
    items = {name: value for name, value in state._asdict().items() if name not in ("step", AVERAGES)}
    items |= {average_item(name): average for name, average in state.averages.items()}
    return {name: item for name, item in items.items() if jax.tree.leaves(item)}


def average_item(name: str) -> str:
    """Return the name of the item of an average."""
    return f"{AVERAGES}.{name}"


def state_of(step: Any, items: dict[str, Any], template: TrainState) -> TrainState:
    """Return the state with the items of a checkpoint; fields without an item come from the template."""
    fields: Any = {
        name: items.get(name, value) for name, value in template._asdict().items() if name not in ("step", AVERAGES)
    }
    averages = {name: items[average_item(name)] for name in template.averages}
    return TrainState(step=step, averages=averages, **fields)
