"""One training step: gradients, optimizers, averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, split_arrays
from score_sde.core.errors import InputError
from score_sde.core.precision import products
from score_sde.data import Batch
from score_sde.experiment.experiment import Experiment
from score_sde.experiment.state import TrainState
from score_sde.parallel import Jit
from score_sde.parallel.strategy import Step, scan


def make_step(
    experiment: Experiment, *, devices: Jit, microbatches: int = 1, frozen: Mapping[str, Any] | None = None
) -> tuple[Step, Any]:
    """(the function step(state, batch, arrays) -> (state, metrics), the arrays of what is frozen).

    Metrics are the loss and the gradient's global norm before clipping (loss_GROUP and gradient_norm_GROUP where there
    are several groups), and the objective's own. With micro-batches the gradient is their mean, taken one after
    another, so that the memory is that of one: the same up to rounding.

    Args:
        experiment: what is trained.
        devices: how a step is spread.
        microbatches: in how many parts a batch is computed.
        frozen: what is used and not trained, by name; None for `experiment.frozen()`.
    """
    if microbatches > 1 and experiment.objective.whole_batch:
        name = type(experiment.objective).__name__
        raise InputError(f"train.microbatches is {microbatches}, and {name} needs the whole batch: use 1.")
    arrays, join = split_arrays(dict(experiment.frozen() if frozen is None else frozen))
    gradients, precision = _Gradients(experiment, devices, join), experiment.config.train.precision

    def step(state: TrainState, batch: Batch, arrays: Any) -> tuple[TrainState, dict[str, Array]]:
        with products(precision):
            if microbatches == 1:
                of_batch, objective_state = gradients(state.objective, batch, state, arrays)
            else:
                of_batch, objective_state = gradients.in_parts(microbatches, batch, state, arrays)
        losses, pulled, metrics = devices.mean(of_batch)
        params, optimizer = {}, {}
        for group, transformation in experiment.optimizers.items():
            updates, optimizer[group] = transformation.update(
                pulled[group], state.optimizer[group], state.params[group]
            )
            params[group] = optax.apply_updates(state.params[group], updates)
        params = experiment.objective.after_update(params)
        averages = {
            name: average.update(state.averages[name], params, state.step)
            for name, average in experiment.averages.items()
        }
        norms = {group: optax.tree.norm(gradient) for group, gradient in pulled.items()}
        told = metrics | _named("loss", losses) | _named("gradient_norm", norms)
        return TrainState(state.step + 1, params, averages, optimizer, objective_state), told

    return step, arrays


# (mean losses by group, gradients by group, metrics) of a device's rows, and the objective's new state.
_OfBatch = tuple[tuple[dict[str, Array], dict[str, Any], dict[str, Array]], Any]


class _Gradients:
    """Losses, gradients and metrics of the rows of a device."""

    def __init__(self, experiment: Experiment, devices: Jit, join: Callable[[list[Any]], Any]) -> None:
        self.experiment, self.devices, self.join = experiment, devices, join

    def __call__(self, objective_state: Any, batch: Batch, state: TrainState, arrays: Any) -> _OfBatch:
        def means(params: Any) -> tuple[dict[str, Array], tuple[Any, dict[str, Array]]]:
            losses, new, metrics = self._losses(params, objective_state, batch, state, arrays)
            return {group: loss.mean() for group, loss in losses.items()}, (new, metrics)

        losses, back, (new, metrics) = jax.vjp(means, state.params, has_aux=True)
        one, zero = jnp.ones(()), jnp.zeros(())
        # A group's loss moves that group only.
        pulled = {group: back({name: one if name == group else zero for name in losses})[0][group] for group in losses}
        return (losses, pulled, metrics), new

    def _losses(self, params: Any, objective_state: Any, batch: Batch, state: TrainState, arrays: Any) -> Any:
        """What the objective returns, of a batch with its conditions."""
        experiment, rows = self.experiment, len(batch["index"])
        key = jax.random.fold_in(keys_.stream(experiment.seed, "train"), state.step)
        keys = keys_.examples(key, batch["index"])
        values, cond = experiment.conditioning(batch["values"], batch["cond"], keys, train=True)
        losses, new, metrics = experiment.objective(
            self.devices.whole(params),
            objective_state,
            batch | {"values": values, "cond": cond},
            key,
            step=state.step,
            averages=state.averages,
            frozen=self.join(arrays),
            across=self.devices,
            train=True,
        )
        _check(type(experiment.objective).__name__, (losses, new, metrics), params, objective_state, rows)
        return losses, new, metrics

    def in_parts(self, count: int, batch: Batch, state: TrainState, arrays: Any) -> _OfBatch:
        """The mean over micro-batches, which see the objective's state one after another."""

        def split(leaf: Array) -> Array:
            # Every count-th row, so that each device works on rows that it has.
            return jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1)

        def add(carry: tuple[Any, Any], part: Batch) -> tuple[tuple[Any, Any], None]:
            total, objective_state = carry
            of_part, objective_state = self(objective_state, part, state, arrays)
            return (jax.tree.map(jnp.add, total, of_part), objective_state), None

        parts = jax.tree.map(split, batch)
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        shapes, _ = jax.eval_shape(self, state.objective, first, state, arrays)
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (total, new), _ = scan(add, (zero, state.objective), parts)
        return jax.tree.map(lambda leaf: leaf / count, total), new


def _check(name: str, returned: Any, params: Any, state: Any, rows: int) -> None:
    """Refuse what an objective may not return; all of it is known when the step is compiled."""
    losses, new, metrics = returned
    if sorted(losses) != sorted(params):
        raise InputError(f"{name} returns losses of {sorted(losses)}; expected one of each group, {sorted(params)}.")
    for group, loss in losses.items():
        if jnp.shape(loss) != (rows,):
            raise InputError(
                f"{name} returns a loss of {group!r} of shape {jnp.shape(loss)}; expected one number of each example, "
                f"({rows},)."
            )
    for metric, value in metrics.items():
        if jnp.shape(value):
            raise InputError(
                f"{name} returns a metric {metric!r} of shape {jnp.shape(value)}; expected (), as of a mean."
            )
    before, after = (
        [(jax.tree_util.keystr(path), jnp.shape(leaf), jnp.result_type(leaf)) for path, leaf in leaves]
        for leaves in map(jax.tree_util.tree_leaves_with_path, (state, new))
    )
    if before != after:
        raise InputError(f"{name} returns a state of {after}; expected the shapes and dtypes of before: {before}.")


def _named(what: str, by_group: Mapping[str, Array]) -> dict[str, Array]:
    """{'loss': value} of one group; of several {'loss_GROUP': value}, and the sum of losses under 'loss'."""
    if len(by_group) == 1:
        return {what: next(iter(by_group.values()))}
    named = {f"{what}_{group}": value for group, value in by_group.items()}
    return named | ({what: jnp.sum(jnp.stack(list(by_group.values())))} if what == "loss" else {})
