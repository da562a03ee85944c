"""This module has the timing, reporting and training functions that the benchmarks share."""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Each precision of the tables is a dtype of the network and a precision of float32 products.
PRECISIONS = {"bfloat16": ("bfloat16", "default"), "tf32": ("float32", "high"), "float32": ("float32", "highest")}


def machine() -> str:
    """Return the processor, the cores, Python, JAX and the devices in one line."""
    from score_sde.core import machine as machine_

    return machine_.machine()


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return 1000 times the unbiased energy distance, whose mean is 0 if x and y have the same distribution."""
    with jax.enable_x64(True):
        x, y = (jnp.asarray(np.reshape(array, (len(array), -1)), float) for array in (x, y))
        n, m = len(x), len(y)
        between = _sum_of_distances(x, y) / (n * m)
        within = _sum_of_distances(x, x) / (n * (n - 1)) + _sum_of_distances(y, y) / (m * (m - 1))
        return 1e3 * float(2 * between - within)


@jax.jit
def _sum_of_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    def of_row(row: jax.Array) -> jax.Array:
        squared = jnp.sum(row**2) + jnp.sum(y**2, axis=1) - 2 * y @ row
        return jnp.sum(jnp.sqrt(jnp.maximum(squared, 0)))

    return jnp.sum(jax.lax.map(of_row, x, batch_size=100))


def interleaved(
    functions: dict[str, Callable[[], Any]],
    repeats: int,
    of: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Return the median (or `of`) of the seconds of each function.

    The functions run in turn, so that a slow moment of the machine affects all functions equally.
    """
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
    """Return a function that makes the training steps of a config on a placed batch, and returns the loss."""
    from score_sde.experiment import Experiment, make_step

    experiment = Experiment.from_config(config)
    state = devices.place_state(experiment.init_state(), experiment.cuts)
    step, frozen = make_step(experiment, devices=devices, microbatches=microbatches)
    compiled = devices.compile(step, state, fused, experiment.cuts)

    def advance_state(batch: Any) -> jax.Array:
        nonlocal state
        state, metrics = compiled(state, batch, frozen)
        return metrics["loss"]

    return advance_state


def report(rows: dict[str, float], unit: float = 1e3, name: str = "ms") -> None:
    """Print the seconds of each row, and the ratio to the seconds of the first row."""
    first = next(iter(rows.values()))
    for row, seconds in rows.items():
        print(f"{row:<32} {seconds * unit:9.2f} {name}   {seconds / first:6.3f} x")


PERFORMANCE = pathlib.Path(__file__).parent.parent / "docs" / "performance.md"


def write_section(name: str, text: str, path: pathlib.Path = PERFORMANCE) -> None:
    """Write text between the lines <!-- begin NAME --> and <!-- end NAME --> of docs/performance.md.

    Raises:
        SystemExit: for a file without these lines; the file does not change.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    content = path.read_text()
    if begin not in content or end not in content:
        raise SystemExit(
            f"error: {path} has no lines {begin.strip()} and {end.strip()}; expected both lines around the table."
        )
    before, after = content[: content.index(begin)], content[content.index(end) :]
    path.write_text(f"{before}{begin}{text}\n{after}")
