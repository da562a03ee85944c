"""This module compares the results of an accelerator with the results of a CPU, and with closed forms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import score_sde as ss
from benchmarks.accelerator_run import Run, batch_of, config_of
from benchmarks.common import advance
from score_sde import parallel
from score_sde.core.arrays import expand
from score_sde.experiment import Experiment
from score_sde.networks import resample


class FullGaussian(ss.Denoiser):
    """`FullGaussian` is the denoiser of N(0, C) for any covariance C.

    The posterior mean of x_0 is alpha C (alpha^2 C + sigma^2 I)^-1 x_t.
    """

    covariance: jax.Array

    def predict(self, x: jax.Array, t: Any, cond: Any = None, *, keys: Any = None) -> ss.Prediction:
        values, vectors = jnp.linalg.eigh(self.covariance)
        alpha, variance = (jnp.broadcast_to(f(t), x.shape[:1])[:, None] for f in (self.sde.alpha, self.sde.variance))
        x0_in_eigenbasis = (x @ vectors) * alpha * values / (alpha**2 * values + variance)
        x0 = x0_in_eigenbasis @ vectors.T
        return ss.Prediction(x0, (x - expand(self.sde.alpha(t), x) * x0) / expand(self.sde.sigma(t), x))


def on(device: jax.Device, function: Callable[..., Any], *arrays: Any) -> np.ndarray:
    """Return the output of a function on a device."""
    return np.asarray(jax.jit(function)(*jax.device_put(arrays, device)))


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def right(run: Run, device: jax.Device, tiny: bool) -> None:
    """Run every check for which enough time is left."""
    cpu = jax.devices("cpu")[0]
    for what, seconds, check in (
        ("network outputs", 40, outputs),
        ("FIR resampling", 10, filters),
        ("training steps", 60, steps),
        ("samples and a likelihood", 40, laws),
        ("bits per dimension", 60, bits),
    ):
        with run.item(what, seconds) as is_time:
            if is_time:
                check(run, device, cpu, tiny)


def outputs(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    rng = np.random.default_rng(0)
    x, label = rng.standard_normal((4, 32, 32, 3)).astype("f"), np.asarray([0.02, 0.5, 5.0, 40.0], "f")
    full_network, bfloat16_network = (
        Experiment.from_config(config_of("ve,ncsnpp", tiny, dtype, 4)).network for dtype in ("float32", "bfloat16")
    )
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.02 * rng.standard_normal(leaf.shape), "f"),
        full_network.init(jax.random.key(0)),
    )
    with jax.default_matmul_precision("highest"):
        device_output, cpu_output = (on(target, full_network, params, x, label) for target in (device, cpu))
    run.check("outputs of NCSN++, float32", apart(device_output, cpu_output), 1e-3)
    error = np.linalg.norm(on(device, bfloat16_network, params, x, label) - cpu_output) / np.linalg.norm(cpu_output)
    run.check("outputs of NCSN++, bfloat16, in norm", float(error), 0.1)


def filters(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    x = np.random.default_rng(0).standard_normal((4, 32, 32, 16)).astype("f")
    for resampling in (resample.fir_downsample, resample.fir_upsample):
        outputs_of_both = [
            on(target, functools.partial(resampling, kernel=(1, 3, 3, 1)), x) for target in (device, cpu)
        ]
        run.check(resampling.__name__, apart(*outputs_of_both), 1e-5)


def steps(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    losses = []
    with jax.default_matmul_precision("highest"):
        for target in (device, cpu):
            devices = parallel.Jit([target])
            step = advance(config_of("ve,ncsnpp", True, "float32", 8), devices)
            losses.append([float(step(devices.place_batch(batch_of(8)))) for _ in range(3)])
    run.check("losses of three training steps", apart(*map(np.asarray, losses)), 1e-3)


def laws(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((6, 6))
    covariance = factor @ factor.T / 6 + 0.1 * np.eye(6)
    model = FullGaussian(ss.VP(), jnp.asarray(covariance, jnp.float32))
    grid, samples = ss.time_grid.default(model.sde, 50), []
    for target in (device, cpu):
        with jax.default_device(target), jax.default_matmul_precision("highest"):
            samples.append(ss.sample(jax.device_put(model, target), ss.Ancestral(), grid, (6,), n=8, seed=0).x)
    run.check("samples 0 to 7", apart(*samples), 1e-3)
    x = (rng.standard_normal((16, 6)) @ np.linalg.cholesky(covariance).T).astype("f")
    alpha, variance = float(model.sde.alpha(1e-5)), float(model.sde.variance(1e-5))
    marginal_covariance = alpha**2 * covariance + variance * np.eye(6)
    exact_log_density = -0.5 * (
        np.sum(x * np.linalg.solve(marginal_covariance, x.T).T, 1)
        + np.linalg.slogdet(2 * np.pi * marginal_covariance)[1]
    )
    log_density = np.asarray(ss.log_prob(jax.device_put(model, device), x, None, trace="exact").value)
    run.check("log-density of a Gaussian, nats", float(np.abs(log_density - exact_log_density).max()), 1e-2)


def bits(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    """Compare the bits per dimension of eight images under a small DDPM++ with random weights.

    The solver chooses the step sizes on each device separately.
    """
    experiment = Experiment.from_config(config_of("vp,ddpmpp", True, "float32", 8))
    params = experiment.init_state().params["network"]
    bits_of_both = []
    for target in (device, cpu):
        with jax.default_device(target):
            denoiser, values = jax.device_put((experiment.denoiser(params), batch_of(8)["values"]), target)
            keys = jax.random.split(jax.random.key(0), 8)
            bits_of_both.append(
                ss.bits_per_dim(denoiser, values, keys, codec=experiment.codec, rtol=1e-3, atol=1e-3).value
            )
    run.check("bits per dimension of eight pictures", float(np.abs(bits_of_both[0] - bits_of_both[1]).max()), 1e-3)
