"""This script measures the weak scaling of training: each device has the same number of examples in every layout.

python benchmarks/scaling.py

A layout is a number of processes of one machine, and a number of devices per process.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

PER_DEVICE, STEPS, ROUNDS = 32, 60, 3
LAYOUTS = ((1, 1), (1, 2), (2, 1), (2, 2))


def measure(processes: int, devices: int, index: int, port: int) -> None:
    """Train in one process of a layout; the process of index 0 prints the median seconds of a step."""
    import jax

    from benchmarks.common import advance
    from configs import digits
    from score_sde import data, parallel
    from score_sde.parallel import processes as peers

    if processes > 1:
        peers.connect(f"127.0.0.1:{port}", processes, index)
    config = digits.get_config()
    config.data.batch_size = size = PER_DEVICE * processes * devices
    strategy = parallel.Jit()
    assert len(strategy.devices) == processes * devices
    train_step = advance(config, strategy)
    rows = strategy.rows(size)
    batches = data.training_batches(data.Digits().source("train"), size, seed=0, rows=rows)
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        jax.block_until_ready(train_step(strategy.place_batch(next(batches), size)))
        seconds.append(time.perf_counter() - began)
    if index == 0:
        print(statistics.median(seconds[5:]), flush=True)
    peers.disconnect()


def run(processes: int, devices: int) -> float:
    """Return the median seconds of a step of a layout, measured in new processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, f"--layout={processes},{devices}", f"--port={port}"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_NUM_CPU_DEVICES": str(devices)}
    workers = [
        subprocess.Popen([*command, f"--index={i}"], stdout=subprocess.PIPE, env=environment, text=True)
        for i in range(processes)
    ]
    outputs = [process.communicate()[0] for process in workers]
    return float(outputs[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layout")
    parser.add_argument("--index", type=int)
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    if arguments.layout:
        measure(*map(int, arguments.layout.split(",")), arguments.index, arguments.port)
        return
    from benchmarks.common import machine

    print(machine())
    seconds_of: dict[tuple[int, int], list[float]] = {layout: [] for layout in LAYOUTS}
    for _ in range(ROUNDS):
        for layout in LAYOUTS:
            seconds_of[layout].append(run(*layout))
    first_rate = PER_DEVICE / statistics.median(seconds_of[LAYOUTS[0]])
    for (processes, devices), seconds in seconds_of.items():
        rate = PER_DEVICE * processes * devices / statistics.median(seconds)
        print(
            f"{processes} process(es) x {devices} device(s): {statistics.median(seconds) * 1e3:7.1f} ms a step, "
            f"{rate:7.1f} examples/s, {rate / first_rate:5.2f} x the first layout"
        )


if __name__ == "__main__":
    main()
