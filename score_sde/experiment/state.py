"""What training carries from step to step, and the named items that a checkpoint makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

AVERAGES = "averages"


class TrainState(NamedTuple):
    """All that training carries from step to step.

    Attributes:
        step: updates done so far, int32 ().
        params: the parameters by group.
        averages: averages of the parameters by name, each with the parameters' groups.
        optimizer: the optimizers' states by group.
        objective: the objective's state.
    """

    step: jax.Array
    params: dict[str, Any]
    averages: dict[str, dict[str, Any]]
    optimizer: dict[str, Any]
    objective: Any


def items_of(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint: every field but the step, each average by itself; what has no arrays is left out."""
    items = {name: value for name, value in state._asdict().items() if name not in ("step", AVERAGES)}
    items |= {average_item(name): average for name, average in state.averages.items()}
    return {name: item for name, item in items.items() if jax.tree.leaves(item)}


def average_item(name: str) -> str:
    """What the item of an average is called."""
    return f"{AVERAGES}.{name}"


def state_of(step: Any, items: dict[str, Any], template: TrainState) -> TrainState:
    """The state of a checkpoint's items; what had no arrays is as in the template."""
    fields: Any = {
        name: items.get(name, value) for name, value in template._asdict().items() if name not in ("step", AVERAGES)
    }
    averages = {name: items[average_item(name)] for name in template.averages}
    return TrainState(step=step, averages=averages, **fields)
