"""This script measures the time of samplers beyond the network evaluations, as the minimum of 25 repeats on one device.

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
    network_evaluation = jax.jit(network)
    x, label = jnp.ones((BATCH, 8, 8, 1)), jnp.ones(BATCH)

    def evaluations() -> jax.Array:
        output = x
        for _ in range(EVALUATIONS):
            output = network_evaluation(params, output, label)
        return output

    def sampling_loop(sampler: ss.Sampler, steps: int):
        times = ss.time_grid.default(denoiser.sde, steps)
        return lambda: ss.sample(denoiser, sampler, times, (8, 8, 1), n=BATCH, seed=0, denoise=False).x

    calls = {f"{EVALUATIONS} bare network evaluations": evaluations}
    for sampler, per_step in SAMPLERS.items():
        steps = EVALUATIONS // per_step
        calls[f"{str(sampler).split(', s_min')[0]}, {steps} steps"] = sampling_loop(sampler, steps)
    seconds = interleaved(calls, repeats=25, of=min)
    report(seconds)
    print(f"one bare network evaluation takes {1e3 * next(iter(seconds.values())) / EVALUATIONS:.2f} ms")


if __name__ == "__main__":
    main()
