"""This script causes faults in training runs on purpose, and counts the runs that are lost.

python tests/faults.py                runs the whole suite in about half an hour
python tests/faults.py --part 0.3     runs the part that docs/reliability.md describes

A run is lost if the run ends differently from an uninterrupted run (parameters, average, optimizer state and
log, bit for bit), if something that was reported as saved is gone, or if the run stops without one clear
line. The exit status is 1 if a run is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

STEPS = 300
JOB = [
    *("--config=configs/digits.py", "--mode=train", "--config.network.channels=8", "--config.data.batch_size=16"),
    *("--config.train.log_every=7", "--config.train.eval_every=60"),
    *("--config.train.sample_every=0", "--config.sample.grid.n=2"),
    *("--config.train.keep.last=3", "--config.train.keep.every=0", "--config.network.attention=()"),
]


class Suite:
    """`Suite` holds the runs, the outcome of an uninterrupted run, and the counts of each fault."""

    def __init__(self, folder: pathlib.Path, seed: int, steps: int = STEPS, every: int = 15) -> None:
        self.folder, self.random, self.steps, self.every = folder, random.Random(seed), steps, every
        self.data = folder / "data"
        self.table: dict[str, list[int]] = {}
        self.whole = folder / "whole"
        done = self.run(self.whole)
        assert done.returncode == 0, done.stderr
        self.expected = self.outcome(self.whole)

    def start(self, workdir: pathlib.Path, *more: str) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
        return subprocess.Popen(
            [sys.executable, "main.py", *JOB, f"--workdir={workdir}", f"--config.data.dir={self.data}"]
            + [f"--config.train.steps={self.steps}", f"--config.train.checkpoint_every={self.every}", *more],
            cwd=ROOT,
            env=environment | {"XDG_CACHE_HOME": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, workdir: pathlib.Path, *more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(workdir, *more)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def outcome(self, workdir: pathlib.Path) -> tuple:
        """Return the digests of everything in the last checkpoint, and the log without the seconds."""
        text = (workdir / "checkpoints" / str(self.steps) / "about" / "metadata").read_text()
        records = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
        log = [{k: v for k, v in record.items() if k != "seconds_per_step"} for record in records]
        return json.loads(text)["digests"], log

    def count(self, fault: str, kept: bool, why: str = "") -> None:
        tried = self.table.setdefault(fault, [0, 0])
        tried[0] += 1
        tried[1] += not kept
        if not kept:
            print(f"LOST by {fault}: {why}", flush=True)

    def finishes(self, workdir: pathlib.Path) -> tuple[bool, str]:
        """Continue a run; return whether the run ends as the uninterrupted run, and the reason if not."""
        done = self.run(workdir)
        if done.returncode:
            return False, done.stderr[-500:]
        return self.outcome(workdir) == self.expected, "another outcome"

    def copy(self, name: str) -> pathlib.Path:
        """Return a copy of a run that was stopped half way; the caller damages the copy."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.half(), target)
        return target

    def half(self) -> pathlib.Path:
        path = self.folder / "half"
        if not path.exists():
            process = self.start(path)
            middle = self.steps // 2 // self.every * self.every
            while not (path / "checkpoints" / str(middle)).exists():
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate()
            assert process.returncode == 0 and "is saved" in out, out
        return path


def steps(workdir: pathlib.Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def one_line(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")


def kills(suite: Suite, n: int, sign: signal.Signals) -> None:
    """Kill a run at random moments, again and again, until the run ends by itself."""
    name = f"{sign.name} at a random moment"
    done = 0
    while done < n:
        workdir = suite.folder / "killed"
        shutil.rmtree(workdir, ignore_errors=True)
        in_this_run, kept, why = 0, True, ""
        while True:
            before = steps(workdir)
            process = suite.start(workdir)
            try:
                out, err = process.communicate(timeout=suite.random.uniform(1.0, 8.0))
                kept, why = kept and process.returncode == 0, err[-500:]
                break
            except subprocess.TimeoutExpired:
                training = steps(workdir) != before
                process.send_signal(sign)
                out, err = process.communicate()
                if sign == signal.SIGTERM and training:
                    reported = re.search(r"step (\d+)(, the last one,)? is saved", out)
                    if process.returncode or not reported or int(reported[1]) not in steps(workdir):
                        kept, why = False, f"SIGTERM ended with {process.returncode}: {out} {err}"
                in_this_run += 1
                if before and (not steps(workdir) or steps(workdir)[-1] < before[-1]):
                    kept, why = False, f"checkpoints {before} became {steps(workdir)}"
                if in_this_run + done >= n:
                    kept, why = suite.finishes(workdir) if kept else (kept, why)
                    break
        kept = kept and suite.outcome(workdir) == suite.expected
        for _ in range(in_this_run):
            suite.count(name, kept, why)
        done += in_this_run


def parts(suite: Suite):
    """Return the trainer of the runs, which restores a checkpoint as training does."""
    from score_sde.experiment import Experiment, read_config
    from score_sde.jobs import Trainer

    return Trainer(Experiment.from_config(read_config(suite.half())), suite.half())


def damaged_checkpoints(suite: Suite, n: int) -> None:
    """Damage one file of the newest checkpoint: the loaded checkpoint is correct, or is refused."""
    from score_sde.experiment import Checkpoints, digest

    trainer = parts(suite)

    def newest(workdir: pathlib.Path) -> tuple[int, dict[str, str]]:
        """Return the step and the digests of the checkpoint from which training would continue."""
        with Checkpoints(workdir) as checkpoints:
            restored, _ = trainer.newest(checkpoints)
        digests = {name: digest(item) for name, item in restored.items.items()}
        return restored.step, digests | {"notes": restored.digests["notes"]}

    good = {}
    for step in steps(suite.half()):
        text = (suite.half() / "checkpoints" / str(step) / "about" / "metadata").read_text()
        good[step] = json.loads(text)["digests"]

    def flip(path: pathlib.Path) -> None:
        content = bytearray(path.read_bytes())
        position = suite.random.randrange(len(content))
        content[position] ^= 1 << suite.random.randrange(8)
        path.write_bytes(content)

    def cut(path: pathlib.Path) -> None:
        path.write_bytes(path.read_bytes()[: suite.random.randrange(path.stat().st_size)])

    for name, damage in (("flipped bit", flip), ("truncated file", cut), ("file gone", pathlib.Path.unlink)):
        for i in range(n):
            workdir = suite.copy("damaged")
            folder = workdir / "checkpoints" / str(steps(workdir)[-1])
            files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
            victim = suite.random.choice(files)
            damage(victim)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                step, digests = newest(workdir)
            kept = digests == good[step]
            why = f"{victim} gave another model"
            if kept and i % 10 == 0:
                kept, why = suite.finishes(workdir)
            suite.count(f"{name} in the newest checkpoint", kept, why)
    workdir = suite.copy("damaged")
    (workdir / "checkpoints" / "299").mkdir()
    suite.count("empty folder as the newest checkpoint", *suite.finishes(workdir))


def torn_log(suite: Suite, n: int) -> None:
    for _ in range(n):
        workdir = suite.copy("torn")
        log = workdir / "train.jsonl"
        log.write_bytes(log.read_bytes() + b'{"step": 999, "loss": 0.1}\n{"step": 15'[: suite.random.randrange(1, 39)])
        suite.count("log torn in its last line", *suite.finishes(workdir))


def full_disk(suite: Suite, n: int) -> None:
    mount = suite.folder / "small"
    mount.mkdir()
    for _ in range(n):
        size = suite.random.randrange(8, 4000)
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount], capture_output=True
        ).returncode:
            print("full disk: skipped, no tmpfs can be mounted here")
            return
        try:
            done = suite.run(mount / "run")
            kept, why = one_line(done), f"{size} kB: {done.stderr[-800:]}"
            before = steps(mount / "run") if (mount / "run").exists() else []
            subprocess.run(["mount", "-o", "remount,size=64m", mount], check=True)
            if kept:
                kept, why = suite.finishes(mount / "run")
            suite.count("disk full", kept, f"{why} (had {before})")
        finally:
            subprocess.run(["umount", "-l", mount], check=True)


def unwritable(suite: Suite, n: int) -> None:
    mount = suite.folder / "readonly"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mount], capture_output=True).returncode:
        print("unwritable folder: skipped, no tmpfs can be mounted here")
        return
    try:
        for filled in range(n):
            if filled:
                shutil.copytree(suite.half(), mount / "run", dirs_exist_ok=True)
            subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
            done = suite.run(mount / "run")
            kept, why = one_line(done), done.stderr[-800:]
            subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
            if kept and filled:
                kept, why = suite.finishes(mount / "run")
            suite.count("unwritable folder", kept, why)
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def not_a_number(suite: Suite, n: int) -> None:
    """Train with a rate for which the loss diverges: the error is one line, and the last checkpoint is finite."""
    import jax
    import numpy as np

    import score_sde as ss

    for i in range(n):
        workdir = suite.folder / f"nan{i}"
        rate = f"--config.optimizer.schedule.peak_value={10.0 ** (20 + 6 * i)}"
        done = suite.run(workdir, rate, "--config.train.checkpoint_every=1", "--config.train.log_every=5")
        kept, why = one_line(done) and "not finite" in done.stderr, done.stderr[-500:]
        if kept and steps(workdir):
            leaves = jax.tree.leaves(ss.load(workdir, average=None).denoiser.params)
            kept, why = all(np.isfinite(leaf).all() for leaf in leaves), "not finite in the checkpoint"
        suite.count("loss that is not a number", kept, why)


def damaged_data(suite: Suite, n: int) -> None:
    """Damage a data record: the error is one line, and the run continues after the data are prepared again."""
    for i in range(n):
        workdir = suite.copy("records")
        shutil.copytree(suite.data, suite.folder / "spare", dirs_exist_ok=True)
        path = next(suite.data.rglob("*train*array_record*"))
        content = bytearray(path.read_bytes())
        if i % 2:
            path.write_bytes(content[: suite.random.randrange(len(content) // 2)])
        else:
            for k in range(8):
                content[len(content) * (k + 1) // 10] ^= 0xFF
            path.write_bytes(content)
        done = suite.run(workdir)
        kept, why = one_line(done) and "cannot be read" in done.stderr, done.stderr[-800:]
        shutil.rmtree(suite.data / "digits")  # the remedy that the error names
        if kept:
            kept, why = suite.finishes(workdir)
        suite.count("data record that cannot be read", kept, why)


def second_run(suite: Suite, n: int) -> None:
    for _ in range(n):
        workdir = suite.folder / "two"
        shutil.rmtree(workdir, ignore_errors=True)
        first = suite.start(workdir)
        while not steps(workdir) and first.poll() is None:
            time.sleep(0.02)
        second = suite.run(workdir)
        first.communicate()
        kept = one_line(second) and "Another run" in second.stderr and suite.outcome(workdir) == suite.expected
        suite.count("second run in the same workdir", kept, second.stderr[-500:])


PARTS: list[tuple[Callable[[Suite, int], None], int]] = [
    (lambda suite, n: kills(suite, n, signal.SIGKILL), 40),
    (lambda suite, n: kills(suite, n, signal.SIGTERM), 10),
    (damaged_checkpoints, 40),
    (torn_log, 3),
    (full_disk, 6),
    (unwritable, 2),
    (not_a_number, 2),
    (damaged_data, 2),
    (second_run, 1),
]


def run_suite(folder: pathlib.Path, part: float, seed: int = 0) -> dict[str, list[int]]:
    """Return {fault: [tried, runs lost]}; the suite tries the fraction `part` of the full numbers."""
    suite = Suite(folder, seed)
    for fault, n in PARTS:
        fault(suite, max(1, round(part * n)))
    return suite.table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=float, default=1.0, help="of the full numbers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        table = run_suite(pathlib.Path(folder), arguments.part, arguments.seed)
    print("| fault | tried | runs lost |\n| --- | --- | --- |")
    for fault, (tried, lost) in table.items():
        print(f"| {fault} | {tried} | {lost} |")
    print(f"| all | {sum(t for t, _ in table.values())} | {sum(lost for _, lost in table.values())} |")
    print(f"({time.perf_counter() - began:.0f} s)")
    sys.exit(any(lost for _, lost in table.values()))


if __name__ == "__main__":
    main()
