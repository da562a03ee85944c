"""This script compares the speed of two checkouts: training steps, samplers and a likelihood.

git worktree add /tmp/before COMMIT && python benchmarks/side_by_side.py --before=/tmp/before

Each checkout has a separate process, which holds the compiled programs and waits for requests. The script asks the two
processes in turn, and reverses the order in each pair. The script takes the median of the ratios of the pairs, because
a slow moment of the machine affects both processes of a pair. The cases use only functions that both checkouts have.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).parent.parent


def training_cases() -> dict[str, Callable[[], Any]]:
    """Return three cases: one step on all devices, one step on one device, and 20 steps that read batches."""
    import jax

    from benchmarks.training import fed, stepper
    from configs import digits
    from score_sde import data, parallel

    config, devices = digits.get_config(), parallel.Jit()
    return {
        "training: step, all devices": stepper(config, devices),
        "training: step, one device": stepper(config, parallel.Jit(jax.devices()[:1])),
        "training: 20 steps with input": fed(config, devices, data.Digits().source("train")),
    }


def generation_cases() -> dict[str, Callable[[], Any]]:
    """Return five cases with the network of the digits: 24 samples by each of four samplers, and 64 log-densities."""
    import equinox as eqx
    import jax
    import numpy as np

    import score_sde as ss
    from score_sde import parallel

    network = ss.networks.DDPMpp((8, 8, 1), channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0)
    # Zeros in the last layers make the field linear, and the likelihood of a linear field needs few steps.
    params = jax.tree.map(lambda leaf: leaf + 0.01, network.init(jax.random.key(0)))
    denoiser = ss.NetworkDenoiser(ss.VP(), ss.Noise(), network, params)

    def draw(sampler: Any, steps: int) -> Callable[[], Any]:
        grid = ss.time_grid.default(denoiser.sde, steps)
        return lambda: ss.sample(denoiser, sampler, grid, (8, 8, 1), n=24, seed=0, denoise=False).x

    devices = parallel.Jit()
    placed = eqx.tree_at(lambda d: d.params, denoiser, replace_fn=devices.place_state)
    x = np.random.default_rng(0).standard_normal((64, 8, 8, 1)).astype(np.float32) / 2
    examples = devices.place_sharded((x, jax.random.split(jax.random.key(0, impl="threefry2x32"), 64)))
    return {
        "sampling: Ancestral, 40 steps": draw(ss.Ancestral(), 40),
        "sampling: DDIM, 40 steps": draw(ss.DDIM(), 40),
        "sampling: Heun, 20 steps": draw(ss.Heun(), 20),
        "sampling: DPMSolverPP, 40 steps": draw(ss.DPMSolverPP(), 40),
        "likelihood: 64 images": lambda: ss.log_prob(placed, *examples, rtol=1e-2, atol=1e-2).value,
    }


def work(root: pathlib.Path) -> None:
    """Measure each case that standard input names, in the checkout at root, and print the seconds of the case."""
    sys.path[:] = [str(root)] + [path for path in sys.path if pathlib.Path(path or ".").resolve() != HERE]
    import jax

    import score_sde

    if pathlib.Path(score_sde.__file__).parent.parent != root:
        raise SystemExit(f"score_sde was imported from {score_sde.__file__}; expected {root}.")
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    cases = training_cases() | generation_cases()
    for case in cases.values():
        jax.block_until_ready(case())
        jax.block_until_ready(case())
    print(json.dumps(list(cases)), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        jax.block_until_ready(cases[line.strip()]())
        print(time.perf_counter() - start, flush=True)


class Worker:
    """`Worker` starts a process that measures one checkout."""

    def __init__(self, root: pathlib.Path) -> None:
        command = [sys.executable, str(HERE / "benchmarks" / "side_by_side.py"), f"--worker={root}"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root)

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("A worker ended early; the lines above state the error of the worker.")
        return json.loads(line)

    def seconds(self, name: str) -> float:
        assert self.process.stdin is not None
        print(name, file=self.process.stdin, flush=True)
        return self.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=pathlib.Path, help="the checkout to compare with")
    parser.add_argument("--pairs", type=int, default=25, help="pairs of measurements of each case")
    parser.add_argument("--worker", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker.resolve())
        return
    if options.before is None or not (options.before / "score_sde").is_dir():
        parser.error(f"--before is {options.before}; expected the root of a checkout: git worktree add DIR COMMIT")
    workers = Worker(options.before.resolve()), Worker(HERE.resolve())
    names = workers[0].read()
    if workers[1].read() != names:
        raise SystemExit("The checkouts measure different cases.")
    print(f"{'':<34} {'before':>9} {'now':>9}   now / before (quartiles)")
    for name in names:
        rows = []
        for pair in range(options.pairs):
            order = (0, 1) if pair % 2 == 0 else (1, 0)
            seconds_of = {checkout: workers[checkout].seconds(name) for checkout in order}
            rows.append((seconds_of[0], seconds_of[1], seconds_of[1] / seconds_of[0]))
        before, now, ratios = zip(*rows, strict=True)
        low, middle, high = statistics.quantiles(ratios, n=4)
        seconds = f"{statistics.median(before):7.3f} s {statistics.median(now):7.3f} s"
        print(f"{name:<34} {seconds}   {middle:6.3f} ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main()
