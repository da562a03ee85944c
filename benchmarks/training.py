"""This script measures a training step of the digits by device, strategy and option, and measures the input.

python benchmarks/training.py
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import numpy as np

from benchmarks.common import advance, interleaved, machine, report
from configs import digits
from score_sde import data, parallel

FUSED = 5


def batch_of(config: Any) -> dict[str, np.ndarray]:
    """Return a batch in the memory of the host."""
    index = np.arange(config.data.batch_size, dtype=np.uint32)
    return {"values": np.full((len(index), 8, 8, 1), 7, np.uint8), "cond": None, "index": index}


def stepper(config: Any, devices: parallel.Jit, fused: int = 1, microbatches: int = 1, **network: str) -> Callable:
    """Return a function that sends a batch to the devices and makes one call of `fused` steps."""
    config = config.copy_and_resolve_references()
    config.network.update(network)
    train_step, batch = advance(config, devices, fused, microbatches), batch_of(config)
    if fused > 1:
        batch = jax.tree.map(lambda values: np.stack([values] * fused), batch)
    return lambda: train_step(devices.place_batch(batch, fused=fused > 1))


def fed(config: Any, devices: parallel.Jit, source: data.Source | None, steps: int = 20) -> Callable:
    """Return a function that makes `steps` steps on batches of a source, or on one repeated batch for None."""
    train_step, batch = advance(config, devices), batch_of(config)
    if source is None:
        batches = itertools.repeat(devices.place_batch(batch))
    else:
        host_batches = data.training_batches(source, config.data.batch_size, seed=0, flip=True)
        batches = parallel.ahead(devices.place_batch, host_batches)
    return lambda: [train_step(batch) for batch in itertools.islice(batches, steps)][-1]


def input_seconds(config: Any, devices: parallel.Jit, source: data.Source, steps: int = 300) -> float:
    """Return the median seconds to read one batch and to send the batch to the devices."""
    batches = data.training_batches(source, config.data.batch_size, seed=0, flip=True)
    durations = []
    for _ in range(steps):
        began = time.perf_counter()
        jax.block_until_ready(devices.place_batch(next(batches)))
        durations.append(time.perf_counter() - began)
    return statistics.median(durations)


@dataclasses.dataclass
class OneByOne:
    """`OneByOne` hides that a source is in memory, so that training reads the records in the background."""

    source: data.Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.source[index]


def main() -> None:
    config = digits.get_config()
    parallel.request_cpu_devices(config.data.batch_size)
    print(machine())
    all_devices = parallel.Jit()
    rows = {
        "jit, one device": stepper(config, parallel.Jit(jax.devices()[:1])),
        "jit, all devices": stepper(config, all_devices),
        "pmap, all devices": stepper(config, parallel.Pmap()),
    }
    report(interleaved(rows, repeats=40))
    print("\none step on all devices:")
    options = {
        "plain": stepper(config, all_devices),
        "microbatches=2": stepper(config, all_devices, microbatches=2),
        "microbatches=4": stepper(config, all_devices, microbatches=4),
        "remat=dots": stepper(config, all_devices, remat="dots"),
        "remat=full": stepper(config, all_devices, remat="full"),
        "dtype=bfloat16": stepper(config, all_devices, dtype="bfloat16"),
        "parallel=fsdp": stepper(config, parallel.Fsdp()),
    }
    spent = interleaved(options, repeats=30)
    # A fused call makes FUSED steps, so the script times fused calls separately.
    fused = interleaved({"fused": stepper(config, all_devices, fused=FUSED)}, repeats=6)["fused"] / FUSED
    report(spent | {f"fused={FUSED}, per step": fused})

    source = data.Digits().source("train")
    rows = {
        "steps on one repeated batch": fed(config, all_devices, None),
        "steps that read batches": fed(config, all_devices, source),
    }
    print("\n20 steps with the input of training:")
    report(interleaved(rows, repeats=15))
    print("\ninput of one step (threads read the case 'record by record' ahead):")
    for name, case_source in (("in memory", source), ("record by record", OneByOne(source))):
        seconds = input_seconds(config, all_devices, case_source)
        print(f"{name:<32} {seconds * 1e3:9.3f} ms   {seconds / spent['plain']:6.4f} of a plain step")


if __name__ == "__main__":
    main()
