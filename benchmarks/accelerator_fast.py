"""This module measures the speed of an accelerator: training, network evaluation, sampling, likelihood and kernels."""

from __future__ import annotations

import functools
import gc
import importlib.util
import pathlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import score_sde as ss
from benchmarks.accelerator_run import NETWORKS, Run, batch_of, config_of, peak_of
from benchmarks.common import PRECISIONS, advance
from score_sde import parallel
from score_sde.core.precision import products
from score_sde.jobs import describe

PLUS = "ve,ncsnpp"


def fast(run: Run, device: jax.Device, tiny: bool) -> None:
    """Run every measurement for which enough time is left, the most valuable measurements first."""
    small, large = (2, 4) if tiny else (128, 512)
    items: list[tuple[str, float, Callable[[], dict[str, Any]]]] = []

    def add(kind: str, what: str, seconds: float, measure: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        items.append((f"{kind}: {what}", seconds, lambda: {kind: what} | measure(device, tiny, *arguments)))

    add("training", f"NCSN++, bfloat16, batch {small}", 45, training, PLUS, small, "bfloat16")
    add("twin", f"NCSN++, bfloat16, batch {small}", 60, twin, PLUS, small, "bfloat16")
    add("kernels", f"NCSN++, bfloat16, batch {small}", 30, kernels, small)
    add("evaluation", f"NCSN++, bfloat16, batch {large}", 30, evaluation, PLUS, large, "bfloat16")
    add("likelihood", f"NCSN++, float32, batch {small // 2}", 40, likelihood, small // 2)
    add("sampling", f"NCSN++, bfloat16, batch {large}", 40, sampling, large)
    for batch in (small, large):
        for precision in PRECISIONS:
            for name, words in NETWORKS.items():
                if (words, batch, precision) != (PLUS, small, "bfloat16"):
                    what = f"{name}, {precision}, batch {batch}"
                    add("training", what, 45, training, words, batch, precision)
    add("evaluation", f"NCSN++, float32, batch {large}", 30, evaluation, PLUS, large, "float32")
    for remat in ("dots", "full"):
        add("remat", f"NCSN++, bfloat16, batch {small}, {remat}", 45, training, PLUS, small, "bfloat16", remat)
    add("fused", f"NCSN++, bfloat16, batch {small}, 4 steps a call", 60, training, PLUS, small, "bfloat16", "none", 4)
    for what, seconds, measure in items:
        with run.item(what, 5 if tiny else seconds) as is_time:
            if is_time:
                run.tell(**measure())
                gc.collect()


def _median(call: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of a call over three rounds, after three calls that are not timed.

    A round makes `repeats` calls, and waits for the device once.
    """
    for _ in range(3):
        jax.block_until_ready(call())
    durations = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(repeats):
            output = call()
        jax.block_until_ready(output)
        durations.append((time.perf_counter() - began) / repeats)
    return float(np.median(durations))


def _speed(device: jax.Device, images: int, seconds: float, flops: float, precision: str) -> dict[str, Any]:
    peak = peak_of(device, precision)
    stats = device.memory_stats() or {}
    return {
        "images_per_s": round(images / seconds, 1),
        "ms": round(1e3 * seconds, 2),
        "share_of_peak": None if peak is None else round(images / seconds * flops / (peak * 1e12), 3),
        "peak_gb_so_far": round(stats.get("peak_bytes_in_use", 0) / 2**30, 2) or None,
    }


def training(
    device: jax.Device, tiny: bool, words: str, batch: int, precision: str, remat: str = "none", fused: int = 1
) -> dict[str, Any]:
    """Measure a whole training step with dropout, gradient clipping, Adam and the average of the parameters."""
    config, devices = config_of(words, tiny, precision, batch, remat=remat), parallel.Jit([device])
    step = advance(config, devices, fused)
    arrays = batch_of(batch)
    if fused > 1:
        arrays = jax.tree.map(lambda leaf: np.stack([leaf] * fused), arrays)
    placed_batch = devices.place_batch(arrays, fused=fused > 1)
    began = time.perf_counter()
    jax.block_until_ready(step(placed_batch))
    first = time.perf_counter() - began
    seconds = _median(lambda: step(placed_batch), 2 if tiny else 20) / fused
    speed = _speed(device, batch, seconds, 3 * describe(config).flops, precision)
    return speed | {"first_call_s": round(first, 1)}


def _network(words: str, tiny: bool, batch: int, precision: str, device: jax.Device) -> tuple[Any, Any, Any, Any]:
    """Return (config, experiment, parameters on the device, images on the device)."""
    config = config_of(words, tiny, precision, batch)
    experiment = ss.Experiment.from_config(config)
    params = jax.device_put(experiment.init_state().params["network"], device)
    x = np.random.default_rng(0).standard_normal((batch, 32, 32, 3)).astype(np.float32)
    return config, experiment, params, jax.device_put(x, device)


def evaluation(device: jax.Device, tiny: bool, words: str, batch: int, precision: str) -> dict[str, Any]:
    """Measure one network evaluation, as a sampling loop calls the network."""
    config, experiment, params, x = _network(words, tiny, batch, precision, device)
    label = jnp.full(batch, 1.0)
    with products(PRECISIONS[precision][1]):
        run = jax.jit(experiment.network.apply)
        seconds = _median(lambda: run(params, x, label), 2 if tiny else 20)
    return _speed(device, batch, seconds, describe(config).flops, precision)


def sampling(device: jax.Device, tiny: bool, batch: int) -> dict[str, Any]:
    """Measure Heun's method with 35 network evaluations, after one batch that compiles the program."""
    _, experiment, params, _ = _network(PLUS, tiny, batch, "bfloat16", device)
    denoiser, grid = experiment.denoiser(params), ss.time_grid.default(experiment.sde, 2 if tiny else 18)
    draw = functools.partial(
        ss.sample, denoiser, ss.Heun(), grid, (32, 32, 3), n=batch, batch_size=batch, denoise=False
    )
    evaluations = int(draw(seed=0).nfe.mean())
    began = time.perf_counter()
    draw(seed=1)
    seconds = time.perf_counter() - began
    return {"evaluations": evaluations, "s_for_50000_images": round(50_000 * seconds / batch, 1)}


def likelihood(device: jax.Device, tiny: bool, batch: int) -> dict[str, Any]:
    """Measure drift and divergence of the probability flow with one probe, in full and in default float32 products."""
    _, experiment, params, x = _network(PLUS, tiny, batch, "float32", device)
    denoiser, t = experiment.denoiser(params), jnp.full(batch, 0.5)
    figures: dict[str, Any] = {}
    for precision in ("highest", "default"):
        with products(precision):
            field = jax.jit(lambda x: jax.jvp(lambda x: denoiser.velocity(x, t), (x,), (jnp.sign(x),)))
            seconds = _median(lambda field=field: field(x), 2 if tiny else 10)
        # The hours are for 10,000 images, with one probe and 400 network evaluations for each image.
        hours = 10_000 * 400 * seconds / batch / 3600
        figures[precision] = {"images_per_s": round(batch / seconds, 1), "hours_for_10000_images": round(hours, 2)}
    return figures


def twin(device: jax.Device, tiny: bool, words: str, batch: int, precision: str) -> dict[str, Any]:
    """Measure training steps of the twin in PyTorch on the same device, in eager mode and with torch.compile."""
    if importlib.util.find_spec("torch") is None:
        return {"left_out": "twin", "why": "PyTorch is not installed"}
    import torch

    from benchmarks.torch_twin import Twin

    if torch.cuda.is_available() != (device.platform == "gpu"):
        return {"left_out": "twin", "why": f"PyTorch does not use the platform of JAX ({device.platform})"}
    _, experiment, params, _ = _network(words, tiny, batch, precision, device)
    eager = Twin(experiment, jax.device_get(params), batch_of(batch)["values"], precision)
    figures: dict[str, Any] = {}
    for name, candidate in (
        ("eager", eager),
        ("compiled", None if tiny else eager.compiled("max-autotune-no-cudagraphs")),
    ):
        if candidate is None:
            continue
        for _ in range(3):
            candidate.step().item()
        began, repeats = time.perf_counter(), 2 if tiny else 20
        for _ in range(repeats):
            loss = candidate.step()
        loss.item()
        figures[name] = {"images_per_s": round(batch * repeats / (time.perf_counter() - began), 1)}
    return figures


def kernels(device: jax.Device, tiny: bool, batch: int) -> dict[str, Any]:
    """Return the ten slowest kernels of a bfloat16 training step of NCSN++, in milliseconds per step."""
    if device.platform == "cpu":
        return {"left_out": "kernels", "why": "a CPU has no device kernels"}
    devices = parallel.Jit([device])
    step = advance(config_of(PLUS, tiny, "bfloat16", batch), devices)
    placed_batch = devices.place_batch(batch_of(batch))
    jax.block_until_ready(step(placed_batch))
    nanoseconds_of: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as trace_folder:
        with jax.profiler.trace(trace_folder):
            jax.block_until_ready([step(placed_batch) for _ in range(5)])
        for path in pathlib.Path(trace_folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
                for line in plane.lines if plane.name.startswith("/device:") else ():
                    if line.name.startswith(("Stream", "XLA Ops")):
                        for event in line.events:
                            nanoseconds_of[event.name[:80]] += event.duration_ns
    return {"longest": {kernel: round(nanoseconds / 5e6, 3) for kernel, nanoseconds in nanoseconds_of.most_common(10)}}
