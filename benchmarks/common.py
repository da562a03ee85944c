"""Medians of interleaved runs, and the machine they were made on."""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

# (what the network computes in, float32 products) by the name that tables have.
PRECISIONS = {"bfloat16": ("bfloat16", "default"), "tf32": ("float32", "high"), "float32": ("float32", "highest")}


def machine() -> str:
    """Return processor, cores, Python, JAX and devices in one line."""
    from score_sde.core import machine as machine_

    return machine_.machine()


def interleaved(
    functions: dict[str, Callable[[], Any]],
    repeats: int,
    of: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """The median (or `of`) of each function's seconds, run in turn so that a slow moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: of(values) for name, values in seconds.items()}


def advance(config: Any, devices: Any, fused: int = 1, microbatches: int = 1) -> Callable[[Any], jax.Array]:
    """A function of a batch on its devices that makes the training steps of a config; returns the loss."""
    from score_sde.experiment import Experiment, make_step

    experiment = Experiment.from_config(config)
    state = devices.place_state(experiment.init_state(), experiment.cuts)
    step, frozen = make_step(experiment, devices=devices, microbatches=microbatches)
    compiled = devices.compile(step, state, fused, experiment.cuts)

    def once(batch: Any) -> jax.Array:
        nonlocal state
        state, metrics = compiled(state, batch, frozen)
        return metrics["loss"]

    return once


def report(rows: dict[str, float], unit: float = 1e3, name: str = "ms") -> None:
    """Each row's seconds, and their ratio to the first."""
    first = next(iter(rows.values()))
    for row, seconds in rows.items():
        print(f"{row:<32} {seconds * unit:9.2f} {name}   {seconds / first:6.3f} x")


PERFORMANCE = pathlib.Path(__file__).parent.parent / "docs" / "performance.md"


def write_section(name: str, text: str, path: pathlib.Path = PERFORMANCE) -> None:
    """Put text between the lines <!-- begin NAME --> and <!-- end NAME --> of docs/performance.md.

    Raises:
        SystemExit: for a file without these lines; it stays as it is.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    content = path.read_text()
    if begin not in content or end not in content:
        raise SystemExit(f"error: {path} has no lines {begin.strip()} and {end.strip()}; expected both, for the table.")
    before, after = content[: content.index(begin)], content[content.index(end) :]
    path.write_text(f"{before}{begin}{text}\n{after}")
