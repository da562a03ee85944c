"""This module defines one training step: gradients, optimizers and averages."""

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
    """Return the function step(state, batch, arrays) -> (state, metrics), and the arrays of the frozen values.

    The metrics are the loss, the global norm of the gradient before clipping, and the metrics of the objective. With
    several groups there are also loss_GROUP and, instead of one norm, gradient_norm_GROUP. With micro-batches the
    gradient is the mean over the micro-batches, which are computed one after another. The result is equal up to
    rounding, and only one micro-batch needs memory at a time.

    Args:
        experiment: the experiment to train.
        devices: the strategy that distributes a step over the devices.
        microbatches: the number of micro-batches in a batch.
        frozen: values that a step uses and does not train, by name; None for `experiment.frozen()`.
    """
    if microbatches > 1 and experiment.objective.whole_batch:
        name = type(experiment.objective).__name__
        raise InputError(f"train.microbatches is {microbatches}, but {name} needs the whole batch: use 1.")
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


# (mean losses by group, gradients by group, metrics) over a device's rows, and the new state of the objective.
_OfBatch = tuple[tuple[dict[str, Array], dict[str, Any], dict[str, Array]], Any]


class _Gradients:
    """`_Gradients` computes the losses, gradients and metrics of the rows on a device."""

    def __init__(self, experiment: Experiment, devices: Jit, join: Callable[[list[Any]], Any]) -> None:
        self.experiment, self.devices, self.join = experiment, devices, join

    def __call__(self, objective_state: Any, batch: Batch, state: TrainState, arrays: Any) -> _OfBatch:
        def means(params: Any) -> tuple[dict[str, Array], tuple[Any, dict[str, Array]]]:
            losses, new, metrics = self._losses(params, objective_state, batch, state, arrays)
            return {group: loss.mean() for group, loss in losses.items()}, (new, metrics)

        losses, back, (new, metrics) = jax.vjp(means, state.params, has_aux=True)
        one, zero = jnp.ones(()), jnp.zeros(())
        # Only the parameters of a group receive the gradient of the group's loss.
        pulled = {group: back({name: one if name == group else zero for name in losses})[0][group] for group in losses}
        return (losses, pulled, metrics), new

    def _losses(self, params: Any, objective_state: Any, batch: Batch, state: TrainState, arrays: Any) -> Any:
        """Return the values that the objective returns for a batch with its conditions."""
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
        """Return the mean over the micro-batches, which update the state of the objective one after another."""

        def split(leaf: Array) -> Array:
            # A micro-batch takes every count-th row, so that each device works on its own rows.
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
    """Raise InputError if the returned values of an objective are not allowed; the check runs during compilation."""
    losses, new, metrics = returned
    if sorted(losses) != sorted(params):
        raise InputError(f"{name} returns losses of {sorted(losses)}; expected one for each group, {sorted(params)}.")
    for group, loss in losses.items():
        if jnp.shape(loss) != (rows,):
            raise InputError(
                f"{name} returns a loss of {group!r} of shape {jnp.shape(loss)}; expected one number for each "
                f"example, ({rows},)."
            )
    for metric, value in metrics.items():
        if jnp.shape(value):
            raise InputError(
                f"{name} returns a metric {metric!r} of shape {jnp.shape(value)}; expected (), the shape of a mean."
            )
    before, after = (
        [(jax.tree_util.keystr(path), jnp.shape(leaf), jnp.result_type(leaf)) for path, leaf in leaves]
        for leaves in map(jax.tree_util.tree_leaves_with_path, (state, new))
    )
    if before != after:
        raise InputError(f"{name} returns a state of {after}; expected the shapes and dtypes of {before}.")


def _named(what: str, by_group: Mapping[str, Array]) -> dict[str, Array]:
    """Return {what: value} for one group, otherwise {what_GROUP: value}, with the sum of the losses as 'loss'."""
    if len(by_group) == 1:
        return {what: next(iter(by_group.values()))}
    named = {f"{what}_{group}": value for group, value in by_group.items()}
    return named | ({what: jnp.sum(jnp.stack(list(by_group.values())))} if what == "loss" else {})
