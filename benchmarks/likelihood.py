"""This script compares `log_prob` of digits with a loop through SciPy's RK45, the method of 2021.

python benchmarks/likelihood.py --workdir=runs/digits

Both methods use the same network, tolerance and probes. The loop solves one ODE for the whole batch. Each evaluation of
the loop calls the drift and then the vector-Jacobian product. Each call carries the state to the device and the result
back to the host.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

import score_sde as ss
from benchmarks.common import interleaved, machine, report
from score_sde import data, ode, parallel
from score_sde.core import keys as keys_

TOLERANCE = 1e-5


class Loop:
    """`Loop` computes log-densities with SciPy, and has one step size for the whole batch."""

    def __init__(self, denoiser: ss.Denoiser, x: np.ndarray, probe: np.ndarray) -> None:
        self.sde, self.x, self.probe, self.nfev = denoiser.sde, x, probe, 0
        params, probe = denoiser.params, jnp.asarray(probe)

        def v(params, x, t):
            return eqx.tree_at(lambda d: d.params, denoiser, params).velocity(x, t)

        def product(params, x, t):
            gradient = jax.grad(lambda x: jnp.sum(v(params, x, t) * probe))(x)
            return jnp.sum(gradient * probe, axis=(1, 2, 3))

        drift, divergence = jax.jit(v), jax.jit(product)
        self.drift = lambda x, t: np.asarray(drift(params, jnp.asarray(x), t))
        self.divergence = lambda x, t: np.asarray(divergence(params, jnp.asarray(x), t))

    def __call__(self) -> np.ndarray:
        batch = len(self.x)

        def field(t: float, state: np.ndarray) -> np.ndarray:
            x = state[:-batch].reshape(self.x.shape).astype(np.float32)
            times = jnp.full(batch, t, jnp.float32)
            return np.concatenate([self.drift(x, times).reshape(-1), self.divergence(x, times)])

        state = np.concatenate([self.x.reshape(-1), np.zeros(batch)])
        span = (float(self.sde.t_min), float(self.sde.t_max))
        solved = integrate.solve_ivp(field, span, state, method="RK45", rtol=TOLERANCE, atol=TOLERANCE)
        self.nfev = solved.nfev
        latent = jnp.asarray(solved.y[:-batch, -1].reshape(self.x.shape), jnp.float32)
        return np.asarray(self.sde.prior_log_prob(latent)) + solved.y[-batch:, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True, help="a workdir of the digits, made by the command of the README")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    parallel.request_cpu_devices(arguments.batch)
    print(machine())
    model = ss.load(arguments.workdir)
    images = data.all_examples(data.Digits().source("test"))["values"][: arguments.batch]
    keys = keys_.examples(keys_.stream(0, "likelihood"), np.arange(len(images)))
    x = np.asarray(model.codec.encode(images, keys)[0])
    probe = np.asarray(keys_.draw(jax.random.rademacher, keys, (1, *x.shape[1:]), dtype=x.dtype))[:, 0]

    loop = Loop(model.denoiser, x, probe)
    results: dict[str, ss.LogProb] = {}

    def solve(name: str, devices: parallel.Jit):
        denoiser = eqx.tree_at(lambda d: d.params, model.denoiser, replace_fn=devices.place_state)
        placed = devices.place_sharded((x, keys))

        def run() -> jax.Array:
            results[name] = ss.log_prob(denoiser, *placed, rtol=TOLERANCE, atol=TOLERANCE)
            return results[name].value

        return run

    one_device, all_devices = f"log_prob, 1 of {jax.device_count()} devices", f"log_prob, {jax.device_count()} devices"
    rows = {"SciPy loop, 1 device": loop}
    rows |= {
        one_device: solve(one_device, parallel.Jit(jax.devices()[:1])),
        all_devices: solve(all_devices, parallel.Jit()),
    }
    seconds = interleaved(rows, repeats=arguments.repeats)
    report(seconds, unit=1, name="s ")
    base = seconds["SciPy loop, 1 device"]
    print("examples a second:", ", ".join(f"{name}: {len(x) / value:.2f}" for name, value in seconds.items()))
    print("speed-up:", ", ".join(f"{name}: {base / value:.2f}" for name, value in seconds.items()))
    difference = np.abs(np.asarray(results[one_device].value) - loop()) / x[0].size / np.log(2)
    print(
        f"the two methods differ by {difference.max():.1e} bits/dim at most, and by {difference.mean():.1e} on average"
    )
    _breakdown(model.denoiser, x, probe, loop, results[one_device], seconds[one_device], base)


def _breakdown(denoiser, x, probe, loop, out, ours, theirs) -> None:
    """Print the number and the time of network evaluations, and the share of the time outside the network."""
    x, t, probe = jnp.asarray(x), jnp.full(len(x), 0.3), jnp.asarray(probe)

    def drift_and_divergence(params, x, t, probe):
        model = eqx.tree_at(lambda d: d.params, denoiser, params)
        return jax.vmap(lambda x, t, e: jax.jvp(lambda x: ode.velocity(model, t, x, None), (x,), (e,)))(x, t, probe)

    compiled = jax.jit(drift_and_divergence)
    costs = interleaved(
        {
            "drift": lambda: loop.drift(x, t),
            "vector-Jacobian product": lambda: loop.divergence(x, t),
            "drift and divergence, one jvp": lambda: compiled(denoiser.params, x, t, probe),
        },
        repeats=15,
    )
    print("times of one evaluation:", ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in costs.items()))
    drift, product, jvp = costs.values()
    nfe = np.asarray(out.nfe)
    print(
        f"evaluations: the loop makes {loop.nfev} for the batch, "
        f"and log_prob makes {nfe.mean():.0f} on average and {nfe.max()} at most"
    )
    print(
        f"time outside the network: the loop {100 * (1 - loop.nfev * (drift + product) / theirs):.0f} %, "
        f"log_prob {100 * (1 - nfe.max() * jvp / ours):.0f} %"
    )


if __name__ == "__main__":
    main()
