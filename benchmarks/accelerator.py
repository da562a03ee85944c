"""Is an accelerator right, and how fast is it: one script for a bare GPU or TPU machine, within its minutes.

python benchmarks/accelerator.py --minutes=4 [--out=FILE.jsonl] [--tiny]

It compares with the CPU of the same machine first, in full float32 products and in bfloat16, then measures training
steps of the CIFAR-10 networks at full size, and last lists the kernels that take longest. Every line is JSON, printed
as it comes. What there is no time for is left out, and said. `--tiny` is for a CPU: it measures nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import pathlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

NEEDED = ("jax", "flax", "optax", "orbax", "equinox", "diffrax", "ml_collections", "numpy", "scipy", "matplotlib")
try:
    import jax
    import jax.numpy as jnp
    import numpy as np

    import score_sde as ss
    from benchmarks.common import advance, machine
    from configs import cifar10
    from score_sde import parallel
    from score_sde.core.arrays import expand
    from score_sde.experiment import Experiment
    from score_sde.jobs import describe
    from score_sde.networks import resample
except ImportError as error:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None] or [error.name or str(error)]
    sys.exit(f"error: {', '.join(missing)} cannot be imported; expected on PYTHONPATH: carry the wheels.")

# Dense peaks in TFLOP/s of data sheets: bfloat16, TF32, float32.
PEAKS = {
    "H100": (989, 495, 67), "H200": (989, 495, 67), "A100": (312, 156, 19.5), "v4": (275,) * 3, "v5e": (197,) * 3,
    "v5 lite": (197,) * 3, "v5p": (459,) * 3, "v6e": (918,) * 3,
}  # fmt: skip
NETWORKS = {"NCSN++": "ve,ncsnpp", "DDPM++": "vp,ddpmpp"}
PRECISIONS = {"bfloat16": ("bfloat16", None), "tf32": ("float32", "tensorfloat32"), "float32": ("float32", "highest")}
TINY = dict(channels=8, multipliers=(1, 2), blocks=1, attention=(16,))


class Run:
    """The lines so far, and the time that is left."""

    def __init__(self, minutes: float, out: pathlib.Path | None) -> None:
        self.end, self.out, self.wrong = time.perf_counter() + 60 * minutes, out, 0

    def tell(self, **entries: Any) -> None:
        line = json.dumps(entries)
        print(line, flush=True)
        if self.out is not None:
            with self.out.open("a") as file:
                file.write(line + "\n")

    def check(self, what: str, figure: float, bound: float) -> None:
        """A line of what must be right."""
        right = bool(figure <= bound)
        self.wrong += not right
        self.tell(check=what, figure=float(figure), bound=bound, right=right)

    @contextlib.contextmanager
    def item(self, what: str, seconds: float) -> Iterator[bool]:
        """Whether there is time; what fails is told, and the rest goes on."""
        left = self.end - time.perf_counter()
        if left < seconds:
            self.tell(left_out=what, why=f"{left:.0f} s are left, and it may take {seconds:.0f} s")
            yield False
            return
        try:
            yield True
        except Exception as error:  # out of memory, or a kernel that is not there
            self.wrong += 1
            self.tell(failed=what, why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


class FullGaussian(ss.Denoiser):
    """N(0, C) with any covariance C: the posterior mean of x_0 is alpha C (alpha^2 C + sigma^2 I)^-1 x_t."""

    covariance: jax.Array

    def predict(self, x: jax.Array, t: Any, cond: Any = None, *, keys: Any = None) -> ss.Prediction:
        values, vectors = jnp.linalg.eigh(self.covariance)
        alpha, variance = (jnp.broadcast_to(f(t), x.shape[:1])[:, None] for f in (self.sde.alpha, self.sde.variance))
        inside = (x @ vectors) * alpha * values / (alpha**2 * values + variance)
        x0 = inside @ vectors.T
        return ss.Prediction(x0, (x - expand(self.sde.alpha(t), x) * x0) / expand(self.sde.sigma(t), x))


def config_of(words: str, tiny: bool, dtype: str, batch: int) -> Any:
    config = cifar10.get_config(words)
    config.network.update(dtype=dtype, **(TINY if tiny else {}))
    config.data.batch_size = batch
    return config


def batch_of(size: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).integers(0, 256, (size, 32, 32, 3), np.uint8)
    return {"values": values, "cond": None, "index": np.arange(size, dtype=np.uint32)}


def on(device: jax.Device, function: Callable[..., Any], *arrays: Any) -> np.ndarray:
    """What a function makes there."""
    return np.asarray(jax.jit(function)(*jax.device_put(arrays, device)))


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def right(run: Run, device: jax.Device, tiny: bool) -> None:
    """Against the CPU of this machine, and laws that are known."""
    cpu = jax.devices("cpu")[0]
    for what, seconds, check in (
        ("network outputs", 40, outputs),
        ("FIR resampling", 10, filters),
        ("training steps", 60, steps),
        ("samples and a likelihood", 40, laws),
    ):
        with run.item(what, seconds) as is_time:
            if is_time:
                check(run, device, cpu, tiny)


def outputs(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    rng = np.random.default_rng(0)
    x, label = rng.standard_normal((4, 32, 32, 3)).astype("f"), np.asarray([0.02, 0.5, 5.0, 40.0], "f")
    full, low = (
        Experiment.from_config(config_of("ve,ncsnpp", tiny, dtype, 4)).network for dtype in ("float32", "bfloat16")
    )
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.02 * rng.standard_normal(leaf.shape), "f"), full.init(jax.random.key(0))
    )
    with jax.default_matmul_precision("highest"):
        ours, exact = (on(where, full, params, x, label) for where in (device, cpu))
    run.check("outputs of NCSN++, float32", apart(ours, exact), 1e-3)
    error = np.linalg.norm(on(device, low, params, x, label) - exact) / np.linalg.norm(exact)
    run.check("outputs of NCSN++, bfloat16, in norm", float(error), 0.1)


def filters(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    x = np.random.default_rng(0).standard_normal((4, 32, 32, 16)).astype("f")
    for change in (resample.fir_downsample, resample.fir_upsample):
        each = [on(where, functools.partial(change, kernel=(1, 3, 3, 1)), x) for where in (device, cpu)]
        run.check(change.__name__, apart(*each), 1e-5)


def steps(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    losses = []
    with jax.default_matmul_precision("highest"):
        for where in (device, cpu):
            devices = parallel.Jit([where])
            once = advance(config_of("ve,ncsnpp", True, "float32", 8), devices)
            losses.append([float(once(devices.place_batch(batch_of(8)))) for _ in range(3)])
    run.check("losses of three training steps", apart(*map(np.asarray, losses)), 1e-3)


def laws(run: Run, device: jax.Device, cpu: jax.Device, tiny: bool) -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    covariance = root @ root.T / 6 + 0.1 * np.eye(6)
    model = FullGaussian(ss.VP(), jnp.asarray(covariance, jnp.float32))
    grid, drawn = ss.time_grid.default(model.sde, 50), []
    for where in (device, cpu):
        with jax.default_device(where), jax.default_matmul_precision("highest"):
            drawn.append(ss.sample(jax.device_put(model, where), ss.Ancestral(), grid, (6,), n=8, seed=0).x)
    run.check("samples 0 to 7", apart(*drawn), 1e-3)
    x = (rng.standard_normal((16, 6)) @ np.linalg.cholesky(covariance).T).astype("f")
    alpha, variance = float(model.sde.alpha(1e-5)), float(model.sde.variance(1e-5))
    law = alpha**2 * covariance + variance * np.eye(6)
    exact = -0.5 * (np.sum(x * np.linalg.solve(law, x.T).T, 1) + np.linalg.slogdet(2 * np.pi * law)[1])
    value = np.asarray(ss.log_prob(jax.device_put(model, device), x, None, trace="exact").value)
    run.check("log-density of a Gaussian, nats", float(np.abs(value - exact).max()), 1e-2)


def peak_of(device: jax.Device, precision: str) -> float | None:
    kinds = [peaks for kind, peaks in PEAKS.items() if kind in device.device_kind]
    return kinds[0][list(PRECISIONS).index(precision)] if kinds else None


def fast(run: Run, device: jax.Device, tiny: bool) -> None:
    """Training steps of the CIFAR-10 networks: images/s, memory, seconds to compile."""
    batches, repeats = ((2,), 2) if tiny else ((128, 512), 20)
    for (name, words), batch, precision in (
        (network, batch, precision) for batch in batches for precision in PRECISIONS for network in NETWORKS.items()
    ):
        what = f"{name}, {precision}, batch {batch}"
        with run.item(what, 5 if tiny else 45) as is_time:
            if is_time:
                run.tell(training=what, **_step(words, batch, precision, device, tiny, repeats))


def _step(words: str, batch: int, precision: str, device: jax.Device, tiny: bool, repeats: int) -> dict[str, Any]:
    dtype, products = PRECISIONS[precision]
    config, devices = config_of(words, tiny, dtype, batch), parallel.Jit([device])
    with jax.default_matmul_precision(products) if products else contextlib.nullcontext():
        once, placed = advance(config, devices), devices.place_batch(batch_of(batch))
        began = time.perf_counter()
        jax.block_until_ready(once(placed))
        compiling = time.perf_counter() - began
        for _ in range(2):
            jax.block_until_ready(once(placed))
        spent = []
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(repeats):
                loss = once(placed)
            jax.block_until_ready(loss)
            spent.append((time.perf_counter() - began) / repeats)
    seconds, peak = float(np.median(spent)), peak_of(device, precision)
    rate, flops = batch / seconds, 3 * describe(config).flops
    stats = device.memory_stats() or {}
    return {
        "images_per_s": round(rate, 1),
        "ms": round(1e3 * seconds, 2),
        "first_call_s": round(compiling, 1),
        "share_of_peak": None if peak is None else round(rate * flops / (peak * 1e12), 3),
        "peak_gb_so_far": round(stats.get("peak_bytes_in_use", 0) / 2**30, 2) or None,
    }


def kernels(run: Run, device: jax.Device, tiny: bool) -> None:
    """The ten kernels of a bfloat16 training step of NCSN++ that take longest."""
    with run.item("kernels", 5 if tiny else 30) as is_time, tempfile.TemporaryDirectory() as folder:
        if not is_time:
            return
        if device.platform == "cpu":
            run.tell(left_out="kernels", why="a CPU has none")
            return
        devices, batch = parallel.Jit([device]), 2 if tiny else 128
        once, placed = (
            advance(config_of("ve,ncsnpp", tiny, "bfloat16", batch), devices),
            devices.place_batch(batch_of(batch)),
        )
        jax.block_until_ready(once(placed))
        with jax.profiler.trace(folder):
            jax.block_until_ready([once(placed) for _ in range(5)])
        spent: Counter[str] = Counter()
        for path in pathlib.Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
                for line in plane.lines if plane.name.startswith("/device:") else ():
                    if line.name.startswith(("Stream", "XLA Ops")):
                        for event in line.events:
                            spent[event.name[:80]] += event.duration_ns
        for kernel, nanoseconds in spent.most_common(10):
            run.tell(kernel=kernel, ms_a_step=round(nanoseconds / 5e6, 3))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    run, device = Run(options.minutes, options.out), jax.devices()[0]
    run.tell(machine=machine(), device=device.device_kind, score_sde=ss.__version__, tiny=options.tiny)
    right(run, device, options.tiny)
    fast(run, device, options.tiny)
    kernels(run, device, options.tiny)
    run.tell(wrong=run.wrong, seconds_left=round(run.end - time.perf_counter()))
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
