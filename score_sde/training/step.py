"""One training step: gradients, optimizer, moving average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from score_sde import config as config_
from score_sde.checkpoint import TrainState
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.objective import Batch, Objective, step_key
from score_sde.parallel import Jit
from score_sde.parallel.strategy import Step, scan


def build_optimizer(spec: ml_collections.ConfigDict) -> tuple[optax.GradientTransformation, Callable[[int], Any]]:
    """An optax optimizer behind clipping by global norm, and its learning-rate schedule.

    The spec names the optimizer and its arguments, the schedule (an optax schedule, or 'constant_schedule'
    with value), and clip, the largest global norm of the gradient, or None.
    """
    rest = {name: value for name, value in spec.items() if name not in ("schedule", "clip")}
    if spec.clip is not None and not spec.clip > 0:
        raise InputError(f"optimizer.clip is {spec.clip}; expected a positive norm, or None for no clipping.")
    schedule = config_.build(optax.schedules, spec.schedule)
    optimizer = config_.build(optax, rest, learning_rate=schedule)
    if spec.clip is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(spec.clip), optimizer)
    return optimizer, schedule


def init_state(objective: Objective, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step."""
    params = objective.blueprint.network.init(jax.random.fold_in(keys_.root(seed), 2**32 - 1))
    # One program for all arrays: an eager one for each shape would cost a second.
    ema, opt_state = jax.jit(lambda params: (jax.tree.map(jnp.copy, params), optimizer.init(params)))(params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, opt_state)


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: float,
    devices: Jit,
    microbatches: int = 1,
) -> Step:
    """The function step(state, batch) -> (state, metrics).

    Metrics are the loss and the gradient's global norm before clipping. With micro-batches the gradient
    is their mean, taken one after another, so that the memory is that of one: the same up to rounding.
    """

    def loss(params: Any, batch: Batch, key: Array) -> Array:
        denoiser = objective.blueprint.denoiser(devices.whole(params))
        return objective(denoiser, batch, key, train=True).mean()

    def gradient_of(params: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
        if microbatches == 1:
            return jax.value_and_grad(loss)(params, batch, key)

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(params, part, key)), None

        zero = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params))
        total, _ = scan(add, zero, jax.tree.map(split, batch))
        return jax.tree.map(lambda leaf: leaf / microbatches, total)

    def split(leaf: Array) -> Array:
        # Every microbatches-th row, so that each device works on rows that it has.
        return jnp.swapaxes(leaf.reshape(-1, microbatches, *leaf.shape[1:]), 0, 1)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        value, gradient = devices.mean(gradient_of(state.params, batch, step_key(seed, state.step)))
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay(ema, state.step)
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, params, average, opt_state), metrics

    return step


def ema_decay(decay: float, step: jax.typing.ArrayLike) -> Array:
    """min(decay, (1 + n) / (10 + n)) at step n: without it the random start would linger for 1 / (1 - decay) steps."""
    return jnp.minimum(decay, (1 + step) / (10 + step))
