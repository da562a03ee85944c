"""What a sampler costs beyond the evaluations of its network: the minimum of many repeats, one device.

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

EVALUATIONS, BATCH = 40, 24
SAMPLERS: dict[ss.Sampler, int] = {
    ss.EulerMaruyama(): 1,
    ss.ReverseDiffusion(): 1,
    ss.Ancestral(): 1,
    ss.DDIM(): 1,
    ss.Euler(): 1,
    ss.DPMSolverPP(): 1,
    ss.LMS(): 1,
    ss.Heun(): 2,
    ss.Heun(gamma=0.1): 2,
    ss.DPMSolverPP2S(): 2,
    ss.DPM2(): 2,
    ss.DPM2Ancestral(): 2,
}


def main() -> None:
    print(machine())
    network = ss.networks.DDPMpp((8, 8, 1), channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0)
    params = network.init(keys.stream(0, "init"))
    denoiser = ss.NetworkDenoiser(ss.VP(), ss.Noise(), network, params)
    bare = jax.jit(network)
    x, label = jnp.ones((BATCH, 8, 8, 1)), jnp.ones(BATCH)

    def evaluations() -> jax.Array:
        out = x
        for _ in range(EVALUATIONS):
            out = bare(params, out, label)
        return out

    def walk(sampler: ss.Sampler, steps: int):
        times = ss.time_grid.default(denoiser.sde, steps)
        return lambda: ss.sample(denoiser, sampler, times, (8, 8, 1), n=BATCH, seed=0, denoise=False).x

    rows = {f"{EVALUATIONS} bare evaluations": evaluations}
    for sampler, each in SAMPLERS.items():
        rows[f"{str(sampler).split(', s_min')[0]}, {EVALUATIONS // each} steps"] = walk(sampler, EVALUATIONS // each)
    seconds = interleaved(rows, repeats=25, of=min)
    report(seconds)
    print(f"one bare evaluation: {1e3 * next(iter(seconds.values())) / EVALUATIONS:.2f} ms")


if __name__ == "__main__":
    main()
