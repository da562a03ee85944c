"""Whether an accelerator computes what the CPU of the same machine does, and what is known in closed form."""

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
    """N(0, C) with any covariance C: the posterior mean of x_0 is alpha C (alpha^2 C + sigma^2 I)^-1 x_t."""

    covariance: jax.Array

    def predict(self, x: jax.Array, t: Any, cond: Any = None, *, keys: Any = None) -> ss.Prediction:
        values, vectors = jnp.linalg.eigh(self.covariance)
        alpha, variance = (jnp.broadcast_to(f(t), x.shape[:1])[:, None] for f in (self.sde.alpha, self.sde.variance))
        inside = (x @ vectors) * alpha * values / (alpha**2 * values + variance)
        x0 = inside @ vectors.T
        return ss.Prediction(x0, (x - expand(self.sde.alpha(t), x) * x0) / expand(self.sde.sigma(t), x))


def on(device: jax.Device, function: Callable[..., Any], *arrays: Any) -> np.ndarray:
    """What a function makes there."""
    return np.asarray(jax.jit(function)(*jax.device_put(arrays, device)))


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def right(run: Run, device: jax.Device, tiny: bool) -> None:
    """Against the CPU of this machine, and laws that are known."""
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
    full, low = (
        Experiment.from_config(config_of("ve,ncsnpp", tiny, dtype, 4)).network for dtype in ("float32", "bfloat16")
    )
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.02 * rng.standard_normal(leaf.shape), "f"), full.init(jax.random.key(0))
    )
    with jax.default_matmul_precision("highest"):
        ours, exact = (on(where, full, params, x, label) for where in (device, cpu))
    run.check("outputs of NCSN++, float32", apart(ours, exact), 1e-3)
    error = np.linalg.norm(on(device, low, params, x, label) - exact) / np.linalg.norm(exact)
    run.check("outputs of NCSN++, bfloat16, in norm", float(error), 0.1)


def filters(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    x = np.random.default_rng(0).standard_normal((4, 32, 32, 16)).astype("f")
    for change in (resample.fir_downsample, resample.fir_upsample):
        each = [on(where, functools.partial(change, kernel=(1, 3, 3, 1)), x) for where in (device, cpu)]
        run.check(change.__name__, apart(*each), 1e-5)


def steps(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    losses = []
    with jax.default_matmul_precision("highest"):
        for where in (device, cpu):
            devices = parallel.Jit([where])
            once = advance(config_of("ve,ncsnpp", True, "float32", 8), devices)
            losses.append([float(once(devices.place_batch(batch_of(8)))) for _ in range(3)])
    run.check("losses of three training steps", apart(*map(np.asarray, losses)), 1e-3)


def laws(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    covariance = root @ root.T / 6 + 0.1 * np.eye(6)
    model = FullGaussian(ss.VP(), jnp.asarray(covariance, jnp.float32))
    grid, drawn = ss.time_grid.default(model.sde, 50), []
    for where in (device, cpu):
        with jax.default_device(where), jax.default_matmul_precision("highest"):
            drawn.append(ss.sample(jax.device_put(model, where), ss.Ancestral(), grid, (6,), n=8, seed=0).x)
    run.check("samples 0 to 7", apart(*drawn), 1e-3)
    x = (rng.standard_normal((16, 6)) @ np.linalg.cholesky(covariance).T).astype("f")
    alpha, variance = float(model.sde.alpha(1e-5)), float(model.sde.variance(1e-5))
    law = alpha**2 * covariance + variance * np.eye(6)
    exact = -0.5 * (np.sum(x * np.linalg.solve(law, x.T).T, 1) + np.linalg.slogdet(2 * np.pi * law)[1])
    value = np.asarray(ss.log_prob(jax.device_put(model, device), x, None, trace="exact").value)
    run.check("log-density of a Gaussian, nats", float(np.abs(value - exact).max()), 1e-2)


def bits(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    """Of eight pictures, with a small DDPM++ of random weights: the solve chooses its own steps on either device."""
    experiment = Experiment.from_config(config_of("vp,ddpmpp", True, "float32", 8))
    params = experiment.init_state().params["network"]
    found = []
    for where in (device, cpu):
        with jax.default_device(where):
            denoiser, values = jax.device_put((experiment.denoiser(params), batch_of(8)["values"]), where)
            keys = jax.random.split(jax.random.key(0), 8)
            found.append(ss.bits_per_dim(denoiser, values, keys, codec=experiment.codec, rtol=1e-3, atol=1e-3).value)
    run.check("bits per dimension of eight pictures", float(np.abs(found[0] - found[1]).max()), 1e-3)
