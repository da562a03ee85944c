"""This script measures the CIFAR-10 networks at full size: initialisation, compilation, network evaluation, gradient.

python benchmarks/networks.py                                       both networks, a small batch, in new processes
python benchmarks/networks.py --sweep=16,64,256 --peak_tflops=67    images/s and the share of an accelerator's peak

Each network runs in two new processes: the first process has an empty compile cache, and the second process has the
compile cache of the first process.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from absl import app, flags, logging

NETWORKS = {"NCSN++": "ve,ncsnpp", "DDPM++": "vp,ddpmpp"}

_BATCH = flags.DEFINE_integer("batch", 4, "The number of images of one network evaluation.")
_SWEEP = flags.DEFINE_list("sweep", None, "Measure only the images/s of these batch sizes, by precision.")
_PEAK = flags.DEFINE_float("peak_tflops", None, "The float32 peak in the data sheet, to print the share of the peak.")
_CHILD = flags.DEFINE_string("child", None, "Measure one network in this process, and print the figures as JSON.")


def parts(words: str, batch: int, dtype: str = "float32") -> tuple[Any, Any, tuple[Any, ...]]:
    """Return a network, the description of the network, and the arguments of a network evaluation."""
    import jax.numpy as jnp

    from configs import cifar10
    from score_sde.experiment import Experiment
    from score_sde.jobs import describe

    config = cifar10.get_config(words)
    config.data.batch_size, config.network.dtype, config.network.dropout = batch, dtype, 0.0
    network = Experiment.from_config(config).network
    return network, describe(config), (jnp.ones((batch, *network.shape)), jnp.linspace(1.0, 40.0, batch))


def functions(network: Any) -> dict[str, Callable[..., Any]]:
    """Return a network evaluation, and the gradient of the mean square of the output by the parameters."""
    import jax
    import jax.numpy as jnp

    def loss(params: Any, x: Any, label: Any) -> Any:
        return jnp.mean(network.apply(params, x, label) ** 2)

    return {"forward": network.apply, "gradient": jax.grad(loss)}


def called(compiled: dict[str, Any], params: Any, arguments: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Return each compiled program as a call without arguments."""
    return {name: functools.partial(run, params, *arguments) for name, run in compiled.items()}


def measure(words: str, batch: int) -> dict[str, float]:
    """Return the seconds and bytes of one network, in a process that has run no other program."""
    import jax

    from benchmarks.common import interleaved
    from score_sde.core import keys

    network, description, arguments = parts(words, batch)
    figures: dict[str, float] = {"parameters": description.parameters, "flops": description.flops}
    begin = time.perf_counter()
    params = jax.block_until_ready(network.init(keys.stream(0, "init")))
    figures["initialise"] = time.perf_counter() - begin
    compiled = {}
    for name, function in functions(network).items():
        begin = time.perf_counter()
        lowered = jax.jit(function).lower(params, *arguments)
        figures[f"trace {name}"] = time.perf_counter() - begin
        begin = time.perf_counter()
        compiled[name] = lowered.compile()
        figures[f"compile {name}"] = time.perf_counter() - begin
        figures[f"temporary bytes {name}"] = compiled[name].memory_analysis().temp_size_in_bytes
    figures |= interleaved(called(compiled, params, arguments), repeats=5)
    figures["peak bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures["kept bytes"] = description.kept_bytes
    return figures


def child(name: str, cache: str) -> dict[str, float]:
    command = [sys.executable, __file__, f"--child={name}", f"--batch={_BATCH.value}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures


def full_size() -> None:
    """Print the figures of both networks with an empty and with a filled compile cache."""
    batch = _BATCH.value
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = child(name, cache), child(name, cache)
        print(
            f"\n{name}: {cold['parameters']:,.0f} parameters, {cold['flops'] / 1e9:.1f} GFLOPs an image, batch {batch}"
        )
        print(f"  initialise     {cold['initialise']:8.2f} s")
        for kind in ("forward", "gradient"):
            print(
                f"  {kind:<9} trace {cold[f'trace {kind}']:5.1f} s, compile {cold[f'compile {kind}']:6.1f} s cold, "
                f"{warm[f'compile {kind}']:5.1f} s from the cache; a call takes {warm[kind] * 1e3:8.0f} ms "
                f"({batch * cold['flops'] / warm['forward'] / 1e9:.0f} GFLOP/s forward)"
            )
            print(f"            temporary memory {cold[f'temporary bytes {kind}'] / 1e9:.2f} GB")
        kept, temporary = cold["kept bytes"], cold["temporary bytes gradient"]
        print(f"  the process takes at most {cold['peak bytes'] / 1e9:.2f} GB")
        print(f"  describe counts {kept / 1e9:.2f} GB that are kept for the gradient")
        print(f"  the temporary memory of the compiled gradient is {temporary / kept:.2f} of this count")


def sweep(sizes: list[int], peak: float | None) -> None:
    """Print the images per second, forward and gradient, in float32, in float32 with fast products, and in bfloat16."""
    import jax

    from benchmarks.common import interleaved
    from score_sde.core import keys

    precisions = {"fp32": ("float32", "highest"), "tf32": ("float32", "tensorfloat32"), "bf16": ("bfloat16", "default")}
    for name, words in NETWORKS.items():
        for label, (dtype, precision) in precisions.items():
            for size in sizes:
                network, description, arguments = parts(words, size, dtype)
                params = network.init(keys.stream(0, "init"))
                with jax.default_matmul_precision(precision):
                    compiled = {
                        kind: jax.jit(function).lower(params, *arguments).compile()
                        for kind, function in functions(network).items()
                    }
                seconds = interleaved(called(compiled, params, arguments), repeats=5)
                # A gradient has the operations of three network evaluations.
                for kind, cost in (("forward", 1), ("gradient", 3)):
                    rate = size / seconds[kind]
                    share = f", {rate * cost * description.flops / peak / 1e10:.1f} % of peak" if peak else ""
                    print(f"{name} {label} batch {size:>5} {kind:<9} {rate:10.1f} images/s{share}", flush=True)


def main(argv: list[str]) -> None:
    if _CHILD.value:
        print(json.dumps(measure(NETWORKS[_CHILD.value], _BATCH.value)))
        return
    from benchmarks.common import machine

    print(machine())
    if _SWEEP.value:
        sweep([int(size) for size in _SWEEP.value], _PEAK.value)
    else:
        full_size()


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)
    app.run(main)
