"""This script checks the results of a GPU or TPU against a CPU, and measures the speed of the GPU or TPU.

python benchmarks/accelerator.py --minutes=4 [--out=FILE.jsonl] [--tiny]

The script first compares the accelerator with the CPU of the same machine, in full float32 products and in bfloat16.
The script then measures training, network evaluation and likelihood of the CIFAR-10 networks at full size, the twin in
PyTorch if PyTorch is installed, the slowest kernels, memory for each remat policy, and fused steps. The script prints
each result as one JSON line at once, and ends with a table. The script skips a measurement for which too little time is
left, and prints the reason. `--tiny` tests the script on a CPU; the figures of `--tiny` have no meaning.

JAX_COMPILATION_CACHE_DIR keeps the compiled programs and the kernels that a GPU selected: a second run measures a warm
start.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
# Only this process uses the device, so JAX may take almost all memory of the device.
os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.92")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", os.environ["XLA_CLIENT_MEM_FRACTION"])
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

NEEDED = ("jax", "flax", "optax", "orbax", "equinox", "diffrax", "ml_collections", "numpy", "scipy", "matplotlib")
try:
    import jax

    import score_sde as ss
    from benchmarks.accelerator_fast import fast
    from benchmarks.accelerator_right import right
    from benchmarks.accelerator_run import Run
    from benchmarks.common import machine
except ImportError as error:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None] or [error.name or str(error)]
    sys.exit(
        f"error: {', '.join(missing)} cannot be imported; "
        "install the missing packages, or add their folder to PYTHONPATH."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    run, device = Run(options.minutes, options.out), jax.devices()[0]
    skipped = [] if importlib.util.find_spec("torch") else ["the twin (PyTorch is not installed)"]
    setup = {"machine": machine(), "device": device.device_kind, "score_sde": ss.__version__}
    run.tell(**setup, tiny=options.tiny, skips=skipped)
    right(run, device, options.tiny)
    fast(run, device, options.tiny)
    run.tell(wrong=run.wrong, seconds_left=round(run.end - time.perf_counter()))
    print(run.table())
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
