"""Is an accelerator right, and how fast is it: one script for a bare GPU or TPU machine, within its minutes.

python benchmarks/accelerator.py --minutes=4 [--out=FILE.jsonl] [--tiny]

It compares with the CPU of the same machine first, in full float32 products and in bfloat16. Then it measures training,
evaluation and likelihood of the CIFAR-10 networks at full size, the twin in PyTorch where PyTorch is installed, the
kernels that take longest, memory by remat policy, and fused steps. Every line is JSON, printed as it comes; the last
lines are a table. What there is no time for is left out, and said. `--tiny` is for a CPU: it measures nothing.

Compiled programs, and a GPU's choices among kernels, are kept in JAX_COMPILATION_CACHE_DIR: a second run says what a
warm start takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
# One process has the device: almost all of its memory may be taken.
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
    sys.exit(f"error: {', '.join(missing)} cannot be imported; expected on PYTHONPATH: carry the wheels.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    run, device = Run(options.minutes, options.out), jax.devices()[0]
    without = [] if importlib.util.find_spec("torch") else ["the twin (PyTorch is not installed)"]
    where = {"machine": machine(), "device": device.device_kind, "score_sde": ss.__version__}
    run.tell(**where, tiny=options.tiny, skips=without)
    right(run, device, options.tiny)
    fast(run, device, options.tiny)
    run.tell(wrong=run.wrong, seconds_left=round(run.end - time.perf_counter()))
    print(run.table())
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
