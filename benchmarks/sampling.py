"""What a sampler costs beyond the evaluations of its network.

python benchmarks/sampling.py
"""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

import score_sde as ss
from benchmarks.common import interleaved, machine, report
from score_sde.core import keys

STEPS, BATCH = 40, 64


def main() -> None:
    print(machine())
    network = ss.networks.DDPMpp((8, 8, 1), channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0)
    params = network.init(keys.root(0))
    denoiser = ss.NetworkDenoiser(ss.VP(), ss.Noise(), network, params)
    grid = ss.time_grid.default(denoiser.sde, STEPS)
    bare = jax.jit(network)
    x, label = jnp.ones((BATCH, 8, 8, 1)), jnp.ones(BATCH)

    def evaluations() -> jax.Array:
        out = x
        for _ in range(STEPS):
            out = bare(params, out, label)
        return out

    def walk(sampler: ss.Sampler, steps: int):
        times = grid if steps == STEPS else ss.time_grid.default(denoiser.sde, steps)
        return lambda: ss.sample(denoiser, sampler, times, (8, 8, 1), n=BATCH, seed=0, denoise=False).x

    rows = {
        f"{STEPS} bare evaluations": evaluations,
        f"EulerMaruyama, {STEPS} steps": walk(ss.EulerMaruyama(), STEPS),
        f"Ancestral, {STEPS} steps": walk(ss.Ancestral(), STEPS),
        f"Heun, {STEPS // 2} steps": walk(ss.Heun(), STEPS // 2),
    }
    report(interleaved(rows, repeats=15))


if __name__ == "__main__":
    main()
