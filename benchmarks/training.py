"""One training step of the digits: one device, every core a device, and pmap.

python benchmarks/training.py
"""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import numpy as np

from benchmarks.common import interleaved, machine, report
from configs import digits
from score_sde import parallel
from score_sde.model import Blueprint
from score_sde.objective import Objective
from score_sde.training.step import build_optimizer, init_state, make_step


def main() -> None:
    config = digits.get_config()
    parallel.request_cpu_devices(config.data.batch_size)
    print(machine())
    objective = Objective.from_config(Blueprint.from_config(config), config)
    optimizer, _ = build_optimizer(config.optimizer)
    size = config.data.batch_size
    batch = {"image": np.full((size, 8, 8, 1), 7, np.uint8), "label": np.zeros(size, int)}
    batch["index"] = np.arange(size, dtype=np.uint32)
    strategies = {
        "jit, one device": parallel.Jit(jax.devices()[:1]),
        "jit, all devices": parallel.Jit(),
        "pmap, all devices": parallel.Pmap(),
    }

    def stepper(devices: parallel.Jit):
        state = devices.place_state(init_state(objective, optimizer, seed=0))
        step = devices.compile(make_step(objective, optimizer, seed=0, ema=0.99, devices=devices), state)

        def once() -> jax.Array:
            nonlocal state
            state, metrics = step(state, devices.place_batch(batch))
            return metrics["loss"]

        return once

    report(interleaved({name: stepper(devices) for name, devices in strategies.items()}, repeats=60))


if __name__ == "__main__":
    main()
