"""One training step of the digits: devices, strategies, and what each option costs; and what the input takes.

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
    """A batch, not yet on its devices."""
    index = np.arange(config.data.batch_size, dtype=np.uint32)
    return {"values": np.full((len(index), 8, 8, 1), 7, np.uint8), "cond": None, "index": index}


def stepper(config: Any, devices: parallel.Jit, fused: int = 1, microbatches: int = 1, **network: str) -> Callable:
    """A function that sends a batch off and makes one call of `fused` steps."""
    config = config.copy_and_resolve_references()
    config.network.update(network)
    once, batch = advance(config, devices, fused, microbatches), batch_of(config)
    if fused > 1:
        batch = jax.tree.map(lambda values: np.stack([values] * fused), batch)
    return lambda: once(devices.place_batch(batch, fused=fused > 1))


def fed(config: Any, devices: parallel.Jit, source: data.Source | None, steps: int = 20) -> Callable:
    """A function that makes `steps` steps as training does, on batches that it reads, or on one again and again."""
    once, batch = advance(config, devices), batch_of(config)
    if source is None:
        batches = itertools.repeat(devices.place_batch(batch))
    else:
        read = data.training_batches(source, config.data.batch_size, seed=0, flip=True)
        batches = parallel.ahead(devices.place_batch, read)
    return lambda: [once(batch) for batch in itertools.islice(batches, steps)][-1]


def input_seconds(config: Any, devices: parallel.Jit, source: data.Source, steps: int = 300) -> float:
    """The median time to read one batch and send it off."""
    batches = data.training_batches(source, config.data.batch_size, seed=0, flip=True)
    spent = []
    for _ in range(steps):
        began = time.perf_counter()
        jax.block_until_ready(devices.place_batch(next(batches)))
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


@dataclasses.dataclass
class OneByOne:
    """A source that is not in memory, as far as the reader can tell: its records are read in the background."""

    source: data.Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.source[index]


def main() -> None:
    config = digits.get_config()
    parallel.request_cpu_devices(config.data.batch_size)
    print(machine())
    both = parallel.Jit()
    rows = {
        "jit, one device": stepper(config, parallel.Jit(jax.devices()[:1])),
        "jit, all devices": stepper(config, both),
        "pmap, all devices": stepper(config, parallel.Pmap()),
    }
    report(interleaved(rows, repeats=40))
    print("\nall devices, a step:")
    options = {
        "plain": stepper(config, both),
        "microbatches=2": stepper(config, both, microbatches=2),
        "microbatches=4": stepper(config, both, microbatches=4),
        "remat=dots": stepper(config, both, remat="dots"),
        "remat=full": stepper(config, both, remat="full"),
        "dtype=bfloat16": stepper(config, both, dtype="bfloat16"),
        "parallel=fsdp": stepper(config, parallel.Fsdp()),
    }
    spent = interleaved(options, repeats=30)
    # Apart, a call being of so many steps.
    fused = interleaved({"fused": stepper(config, both, fused=FUSED)}, repeats=6)["fused"] / FUSED
    report(spent | {f"fused={FUSED}, a step of it": fused})

    source = data.Digits().source("train")
    rows = {"on one batch again and again": fed(config, both, None), "reading its batches": fed(config, both, source)}
    print("\n20 steps as training makes them:")
    report(interleaved(rows, repeats=15))
    print("\ninput of a step (record by record: read ahead by threads):")
    for name, each in (("in memory", source), ("record by record", OneByOne(source))):
        seconds = input_seconds(config, both, each)
        print(f"{name:<32} {seconds * 1e3:9.3f} ms   {seconds / spent['plain']:6.4f} of a plain step")


if __name__ == "__main__":
    main()
