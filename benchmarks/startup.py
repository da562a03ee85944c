"""This script measures the seconds from the command to the end of the first training step.

python benchmarks/startup.py

The first run has an empty compile cache. The next three runs have the compile cache of the first run.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def first_step(cache: str) -> float:
    """Return the seconds until a new process logs the first training step in a new workdir."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={workdir}/run", "--mode=train"]
        options = ["steps=2", "log_every=1", "eval_every=0", "sample_every=0"]
        command += [f"--config.train.{option}" for option in options]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"XDG_CACHE_HOME": cache}, stdout=subprocess.DEVNULL
        )
        log = pathlib.Path(workdir) / "run" / "train.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.wait():
            raise SystemExit(f"error: main.py ended with status {process.returncode}; expected 0.")
        return seconds


def main() -> None:
    from benchmarks.common import machine

    print(machine())
    with tempfile.TemporaryDirectory() as cache:
        print(f"cold (nothing compiled, data not prepared): {first_step(cache):5.1f} s")
        warm = sorted(first_step(cache) for _ in range(3))
        print(f"warm (median of three):                     {warm[1]:5.1f} s")


if __name__ == "__main__":
    main()
