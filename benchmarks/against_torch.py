"""This script compares the speed of score_sde and of the twin in PyTorch (benchmarks/torch_unet.py).

python benchmarks/against_torch.py [--size=8] [--size=32] [--repeats=15] [--precision=float32] [--compile] [--write]

Both programs have the same networks, parameters and batches, use every core or the GPU, and run in turn. The default
precisions are float32, tf32 and bfloat16 on a GPU, and float32 on a CPU. `--compile` adds torch.compile, which needs a
compiler and takes minutes. `--write` writes the table into docs/performance.md.
No extra of score_sde installs PyTorch: pip install torch --index-url https://download.pytorch.org/whl/cpu
"""

from __future__ import annotations

import argparse
import datetime
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import score_sde as ss
from benchmarks.common import PRECISIONS, advance, interleaved, machine, report, write_section
from configs import cifar10, digits
from score_sde import parallel
from score_sde.core.precision import products

try:
    import torch

    from benchmarks.torch_twin import STEPS, Twin
except ImportError as error:
    sys.exit(f"error: {error}; expected PyTorch: pip install torch --index-url https://download.pytorch.org/whl/cpu")


def config_of(size: int, precision: str) -> Any:
    """Return the config of a network on VP that predicts noise.

    Size 8 is the digits at batch 128. Size 32 has 2.47 M parameters on 32 x 32 images at batch 16.
    """
    if size == 8:
        config = digits.get_config("vp")
        config.data.batch_size = 128
    else:
        config = cifar10.get_config("vp,ddpmpp")
        config.network.update(channels=32, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,))
        config.data.batch_size = 16
    config.network.dtype, config.train.precision = PRECISIONS[precision]
    return config


def in_products(precision: str, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Return a call whose float32 products have this precision."""

    def call() -> Any:
        with products(precision):
            return function(*arguments)

    return call


def rows(size: int, precision: str, with_compile: bool) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return {what is measured: {program: a call of the program}}."""
    config = config_of(size, precision)
    experiment = ss.Experiment.from_config(config)
    devices, index = parallel.Jit(), np.arange(config.data.batch_size)
    shape = experiment.codec.model_shape
    values = np.random.default_rng(0).integers(0, experiment.codec.maximum + 1, (len(index), *shape)).astype(np.uint8)
    params = jax.device_get(experiment.init_state().params["network"])
    placed = devices.place_state(params)
    denoiser = experiment.denoiser(placed)
    x = devices.place_sharded(np.random.default_rng(1).standard_normal((len(index), *shape)).astype(np.float32))
    t = devices.place_sharded(np.full(len(index), 0.5, np.float32))
    step = advance(config, devices)
    batch = devices.place_batch({"values": values, "cond": None, "index": index.astype(np.uint32)})
    network, grid = experiment.network, ss.time_grid.uniform(experiment.sde, STEPS)
    evaluate = jax.jit(lambda params, x, t: network(params, x, 999 * t))

    @jax.jit
    def field(params: Any, x: jax.Array, t: jax.Array) -> Any:
        probe = jnp.sign(x)
        return jax.jvp(lambda x: network(params, x, 999 * t), (x,), (probe,))

    sampling_options = dict(n=len(index), seed=0, denoise=False, sharding=devices.sharded)
    draw = functools.partial(ss.sample, denoiser, ss.Euler(), grid, shape, **sampling_options)
    ours, euler = functools.partial(in_products, PRECISIONS[precision][1]), f"{STEPS} steps of Euler"
    calls = {
        "a training step": {"ours": functools.partial(step, batch)},
        "a network evaluation": {"ours": ours(evaluate, placed, x, t)},
        "drift and divergence": {"ours": ours(field, placed, x, t)},
        euler: {"ours": ours(lambda: draw().x)},
    }
    twin = Twin(experiment, params, values, precision)
    torch_x = torch.tensor(np.asarray(x), device=twin.device).permute(0, 3, 1, 2)
    twins = {"PyTorch": twin} | ({"PyTorch, compiled": twin.compiled()} if with_compile else {})
    for name, candidate in twins.items():
        calls["a training step"][name] = lambda candidate=candidate: candidate.step().item()
        calls["a network evaluation"][name] = lambda candidate=candidate: candidate.evaluate(torch_x).item()
        calls["drift and divergence"][name] = lambda candidate=candidate: candidate.likelihood_field(torch_x)
        calls[euler][name] = lambda candidate=candidate: candidate.sample(torch_x)
    _same(ours(evaluate, placed, x, t)(), twin, torch_x)
    return calls


# The outputs may differ by this fraction of the largest output.
_APART = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}


def _same(ours: jax.Array, twin: Twin, torch_x: Any) -> None:
    """End the script if the outputs of the two networks differ."""
    twin.unet.eval()
    with torch.no_grad():
        theirs = twin.outputs(torch_x, torch.full((len(torch_x),), 999 * 0.5, device=twin.device))
    theirs = theirs.permute(0, 2, 3, 1).cpu().numpy()
    difference, bound = np.abs(np.asarray(ours) - theirs).max(), _APART[twin.precision] * max(1.0, np.abs(theirs).max())
    if not difference < bound:
        sys.exit(f"error: the outputs of score_sde and PyTorch differ by {difference:g}; expected less than {bound:g}.")


def table(measured: dict[tuple[int, str, str], dict[str, float]]) -> str:
    """Return a Markdown table with a row for each size, each precision and each measured call."""
    names = list(next(iter(measured.values())))
    lines = [
        "| images | precision | what | " + " | ".join(f"{name}, ms" for name in names) + " | PyTorch / ours |",
        "| --- " * (4 + len(names)) + "|",
    ]
    for (size, precision, what), seconds in measured.items():
        spent = " | ".join(f"{1e3 * seconds[name]:.1f}" for name in names)
        ratios = " and ".join(f"{seconds[name] / seconds['ours']:.2f}" for name in names[1:])
        lines.append(f"| {size} x {size} | {precision} | {what} | {spent} | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, action="append", choices=(8, 32))
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    parallel.request_cpu_devices(16)
    torch.set_num_threads(parallel.usable_cores())
    setup = f"{machine()}; PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    print(setup)
    on_gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    if torch.cuda.is_available() != on_gpu:
        sys.exit("error: PyTorch finds a GPU and JAX finds no GPU; expected both or neither: install JAX for CUDA.")
    measured = {}
    for size in options.size or (8, 32):
        for precision in options.precision or (tuple(PRECISIONS) if on_gpu else ("float32",)):
            print(f"\n{size} x {size}, {precision}, batch {config_of(size, precision).data.batch_size}")
            for what, calls in rows(size, precision, options.compile).items():
                measured[size, precision, what] = interleaved(calls, options.repeats)
                print(f"{what}:")
                report(measured[size, precision, what])
    if options.write:
        today = datetime.date.today().isoformat()
        note = f"The date is {today}. The machine is {setup}. Figures are medians of {options.repeats} runs in turn."
        write_section("against_torch", f"{table(measured)}\n\n{note}")


if __name__ == "__main__":
    main()
