"""This module defines `Sampler`, the interface of one step, and `sample`, the sampling loop of all samplers."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.checks import check_types
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import DivergenceError
from score_sde.core.jit import module_jit
from score_sde.denoisers import Denoiser, Guide, Prediction
from score_sde.denoisers.base import checked_prediction
from score_sde.denoisers.inputs import as_denoiser, check_shape
from score_sde.sampling import checks
from score_sde.sampling.counting import counting_vjps, evaluations
from score_sde.sde import SDE

State = Any


class Sampler(abc.ABC):
    """A sampler takes one step of the sampling loop from noise to data.

    To add a sampler, subclass `Sampler` and define `step`. Declare the parameters as fields of a frozen dataclass, so
    that two samplers with the same parameters are equal and share one compiled program. A sampler that reads a
    condition of its own, such as a measurement, defines `reads`; a sampler with an end of its own defines `finish`.
    """

    def __post_init__(self) -> None:
        """Check the parameters of a dataclass; a subclass with more checks calls this method first."""
        check_types(self)

    def init(self, x: Array) -> State:
        """Return the state of a multistep method before the first step."""
        return ()

    @property
    def convergence_order(self) -> float:
        """Return the claimed order of convergence: on an SDE that is smooth in time the error falls as steps^-order.

        `verify` measures the order. A subclass of higher order overrides this property, or sets a plain attribute:
        convergence_order = 2.
        """
        return 1

    @property
    def takes_temperature(self) -> bool:
        """Return whether noise that is scaled by a temperature has a meaning."""
        return True

    @property
    def chooses_steps(self) -> bool:
        """Return whether the number of evaluations of a step depends on x."""
        return False

    @property
    def computes_vjps(self) -> bool:
        """Return whether a step itself computes vector-Jacobian products of the denoiser."""
        return False

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        """Raise InputError if this sampler is not defined on this grid of this SDE."""

    def check_cond(self, cond: Cond) -> None:
        """Raise InputError for values of conditions that do not fit each other; called on the host."""

    def reads(self, shape: tuple[int, ...]) -> Conditions:
        """Return the conditions that the sampler itself reads, such as a measurement of examples of this shape.

        A sampler removes the conditions that only it reads (`own_removed`) before it calls the denoiser.
        """
        return Conditions()

    def finish(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, state: State, cond: Cond, denoise: bool
    ) -> tuple[Array, Array]:
        """Return the samples from x at the last time t, and the nfe: E[x_0 | x] if `denoise`, otherwise x.

        The arguments are those of `step`, with the state after the last step.
        """
        if not denoise:
            return x, evaluations(denoiser, x)
        return denoiser.denoise(x, t, cond), evaluations(denoiser, x, t)

    @abc.abstractmethod
    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        """Take one step from x_t to x_s, where s < t.

        Args:
            keys: one random key per example for the noise of this step, shape (batch,).
            denoiser: the denoiser, which predicts x_0 and the noise from x_t.
            x: x_t, shape (batch, *shape).
            t, s: times of shape ().
            state: the state from `init` or from the previous step.
            cond: None, or conditions by name with leading axis batch.

        Returns:
            (x_s, state, nfe): nfe is the number of network evaluations per example, int32 (batch,), as counted
            by `evaluations`.
        """


class Samples(NamedTuple):
    """`Samples` holds the result of `sample` as numpy arrays whose leading axis is the sample.

    Attributes:
        x: the samples, shape (n, *shape).
        nfe: number of network evaluations of each sample, int32 (n,).
        trajectory: x at every time of the grid, shape (n, len(grid), *shape), before the final
            denoising; None unless requested.
        vjps: the largest number of vector-Jacobian products of the denoiser for each sample, int32 (n,); None if there
            are none, and for a sampler that chooses its own steps.
    """

    x: np.ndarray
    nfe: np.ndarray
    trajectory: np.ndarray | None = None
    vjps: np.ndarray | None = None


class _Tempered(Guide):
    """`_Tempered` acts on x / temperature, so that all noise, of the prior and of the steps, is scaled by temperature.

    A step is linear in (x, x_0, noise, fresh noise). Sampling y = x / temperature with unit fresh noise, and with x_0
    and noise divided by temperature, is therefore sampling x with fresh noise times temperature. The variance of the
    prediction does not change, because the noise with this variance is scaled with x.
    """

    temperature: ArrayLike

    def __init__(self, denoiser: Denoiser, temperature: ArrayLike) -> None:
        super().__init__(denoiser)
        self.temperature = temperature

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        inner = checked_prediction(self.denoiser, x * self.temperature, t, cond, keys=keys)
        return Prediction(inner.x0 / self.temperature, inner.noise / self.temperature, inner.variance)


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    grid: ArrayLike,
    shape: tuple[int, ...],
    *,
    n: int,
    seed: int,
    first: int = 0,
    cond: Cond = None,
    x: ArrayLike | None = None,
    denoise: bool = True,
    temperature: float = 1.0,
    trajectory: bool = False,
    batch_size: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
    numbers: ArrayLike | None = None,
) -> Samples:
    """Return the samples with numbers first .. first + n - 1 of a seed.

    Sample i is a function of (seed, i) alone, up to rounding. Sample i does not depend on n, the batch size or the
    devices. With key_i = fold_in(keys.stream(seed, 'sample'), i), the prior of sample i is drawn with
    fold_in(key_i, 0), and the noise of step k with fold_in(key_i, k + 1).

    Args:
        denoiser: a network, a closed form, or a guided denoiser.
        sampler: the sampler that takes each step.
        grid: strictly decreasing times, shape (steps + 1,); grid[0] is the time of x, or t_max if x is None.
        shape: the shape of one sample.
        n: the number of samples.
        seed: an integer.
        first: the number of the first sample.
        cond: None, or conditions by name as declared by `denoiser.reads` and `sampler.reads(shape)`, each with leading
            axis n.
        x: starting points at time grid[0], shape (n, *shape); None draws starting points from the prior.
        denoise: whether to replace x at the end by E[x_0 | x] at grid[-1], with one more evaluation. At a time
            without noise, such as level 0 of a chain, E[x_0 | x] is x and needs no evaluation.
        temperature: a positive factor on all noise, of the prior and of the steps; 1 for a guided denoiser.
        trajectory: whether to return x at every time of the grid too.
        batch_size: samples per compiled batch, where the last batch is padded; min(n, 256) if None.
        sharding: the placement of a batch on the devices; None leaves a batch where JAX puts the batch.
        numbers: the number of each sample, (n,), instead of first .. first + n - 1; equal numbers have equal noise.

    Returns:
        Samples(x, nfe, trajectory).

    Raises:
        InputError: if the input cannot be used.
        DivergenceError: if samples are not finite; the message lists their numbers.
    """
    denoiser = as_denoiser(denoiser)
    checks.check_sample(n, seed, first, shape, temperature, batch_size)
    check_shape(denoiser, shape, "shape")
    if x is None:
        checks.warn_of_prior(denoiser.sde)
    else:
        x = checks.check_start(x, n, shape)
    numbered = first + np.arange(n) if numbers is None else checks.check_numbers(numbers, n)
    dtype = jnp.zeros((), float).dtype if x is None else x.dtype
    times = checks.check_grid(denoiser.sde, grid, dtype, from_prior=x is None)
    checks.check_sampler(sampler, Sampler)
    cond = checks.checked_cond(denoiser, sampler, shape, cond, n)
    checks.check_temperature(denoiser, sampler, temperature)
    sampler.check(denoiser.sde, times)
    # Padding costs nothing, so the batch size is rounded up to a multiple of the number of devices.
    devices = 1 if sharding is None else len(sharding.device_set)
    size = -(-(min(n, 256) if batch_size is None else batch_size) // devices) * devices
    denoise = denoise and float(denoiser.sde.variance(times[-1])) > 0
    options = {"sampler": sampler, "shape": tuple(shape), "denoise": denoise, "trajectory": trajectory}
    pulls = sampler.computes_vjps or bool(np.any(denoiser.vjps(times)))
    options["count_vjps"] = pulls and not sampler.chooses_steps
    batches = []
    for count, batch in _batches(size, numbered, x, cond):
        placed = batch if sharding is None else jax.device_put(batch, sharding)
        out = _walk(denoiser, keys_.stream(seed, "sample"), times, jnp.asarray(temperature, dtype), *placed, **options)
        batches.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], out))
    samples = Samples(*jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches))
    _check_finite(samples.x, numbered)
    return samples


def _batches(
    size: int, numbers: np.ndarray, x: np.ndarray | None, cond: Cond
) -> Iterator[tuple[int, tuple[np.ndarray, Any, Any]]]:
    """Yield (number of real rows, (sample numbers, x, cond)) of batches of exactly `size`; the last batch is padded."""

    def rows(low: int, high: int) -> Callable[[Any], np.ndarray]:
        return lambda leaf: np.take(np.asarray(leaf), np.arange(low, high), axis=0, mode="clip")

    for low in range(0, len(numbers), size):
        count = min(size, len(numbers) - low)
        yield count, jax.tree.map(rows(low, low + size), (numbers.astype(np.uint32), x, cond))


def _walk_batch(
    denoiser: Denoiser,
    key: Array,
    grid: Array,
    temperature: Array,
    numbers: Array,
    x: Array | None,
    cond: Cond,
    *,
    sampler: Sampler,
    shape: tuple[int, ...],
    denoise: bool,
    trajectory: bool,
    count_vjps: bool,
) -> tuple[Array, Array, Array | None, Array | None]:
    """Return (x, nfe, trajectory, vjps) of one batch by one dispatch of one program, without return to the host."""
    keys = keys_.examples(key, numbers)
    denoiser = _Tempered(denoiser, temperature)
    x = denoiser.sde.sample_prior(keys_.fold(keys, 0), shape) if x is None else x / temperature

    def step(carry: tuple[Array, State, Array, Array | None], at: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        x, state, nfe, vjps = carry
        k, t, s = at
        arguments = (keys_.fold(keys, k + 1), denoiser, x, t, s, state, cond)
        if vjps is not None:
            with counting_vjps():  # the compiler removes all of this second step but the count
                vjps = vjps + sampler.step(*arguments)[2]
        x, state, used = checks.check_stepped(sampler, sampler.step(*arguments), x)
        return (x, state, nfe + used, vjps), (x if trajectory else None)

    start, steps, none = x, jnp.arange(len(grid) - 1), jnp.zeros(x.shape[:1], jnp.int32)
    path: Any
    carry = (x, sampler.init(x), none, none if count_vjps else None)
    (x, state, nfe, vjps), path = jax.lax.scan(step, carry, (steps, grid[:-1], grid[1:]))
    last = (keys_.fold(keys, len(grid)), denoiser, x, grid[-1], state, cond, denoise)
    if vjps is not None:
        with counting_vjps():
            vjps = vjps + sampler.finish(*last)[1]
    x, used = sampler.finish(*last)
    if trajectory:
        path = temperature * jnp.moveaxis(jnp.concatenate([jnp.stack([start]), path]), 0, 1)
    return temperature * x, nfe + used, path, vjps


_STATIC = ("sampler", "shape", "denoise", "trajectory", "count_vjps")
_walk = module_jit(_walk_batch, static_argnames=_STATIC, rows=(3, 4, 5))


def _check_finite(x: np.ndarray, numbers: np.ndarray) -> None:
    finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    if not finite.all():
        bad = numbers[~finite]
        named = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
        raise DivergenceError(
            f"{len(bad)} of {len(x)} samples are not finite (numbers {named}): use more steps, or a grid that stops "
            "earlier, or check that the model returns finite values."
        )
