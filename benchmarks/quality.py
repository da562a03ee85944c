"""This benchmark measures the samples of a trained model by sampler and number of evaluations, beside the floor.

python benchmarks/quality.py --workdir=runs/fashion [--n=2000] [--write]

Each row is one run of the command line, which reuses existing samples, features and results of the workdir. The floor
is the row of real examples in the place of samples. With --write the table goes to docs/metrics.md. The workdir needs a
classifier: score-sde --workdir=runs/fashion --mode=classifier.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.common import machine
from benchmarks.samplers import write

ROOT = pathlib.Path(__file__).parent.parent
# (sampler, its steps, guidance)
SETTINGS = (
    ("DPMSolverPP", 9, "ClassifierFree(weight=2.5)"),
    ("DPMSolverPP", 19, "ClassifierFree(weight=2.5)"),
    ("Heun", 10, "ClassifierFree(weight=2.5)"),
    ("Heun", 25, "ClassifierFree(weight=2.5)"),
    ("Ancestral", 50, "ClassifierFree(weight=2.5)"),
    ("DPMSolverPP", 19, "ClassifierFree(weight=1.5)"),
    ("DPMSolverPP", 19, ""),
    ("Heun", 25, ""),
)
SIZES = (10_000, 5000, 2000, 1000, 500)  # the first computes the features of all others
COLUMNS = (
    "sampler",
    "guidance",
    "evaluations",
    "kernel x 1000, EfficientNet",
    "kernel x 1000, classifier",
    "Frechet, EfficientNet",
    "its limit",
    "Frechet, classifier",
    "precision",
    "recall",
    "density",
    "coverage",
)


def metrics(workdir: pathlib.Path, n: int, of: str) -> str:
    """Return the text of eval.what.

    The floor: the Frechet distances, whose reference is the training split, are those of test examples; the other
    metrics, whose reference is the test split, are those of training examples.
    """
    classifier = f"\"Classifier(weights='{workdir / 'classifier.npz'}')\""
    tested = "" if of == "samples" else f", of='{of}'"
    held_out = "" if of == "samples" else ", of='train'"
    return ", ".join(
        (
            f"Kernel(n={n}{held_out})",
            f"Kernel(n={n}, features={classifier}{held_out})",
            f"Frechet(n={n}{tested})",
            f"Frechet(n={n}, features={classifier}{tested})",
            f"PrecisionRecall(n={n}{held_out})",
            f"DensityCoverage(n={n}{held_out})",
        )
    )


def evaluated(workdir: pathlib.Path, flags: list[str]) -> list[dict[str, Any]]:
    """Run --mode=eval, and return its results in the order of eval.what."""
    command = [sys.executable, "main.py", f"--workdir={workdir}", "--mode=eval", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    print(done.stdout, flush=True)
    paths = [line.split("results: ")[1].strip() for line in done.stdout.splitlines() if "results: " in line]
    return [json.loads(pathlib.Path(path).read_text()) for path in paths]


def run(workdir: pathlib.Path, n: int, setting: tuple[str, int, str] | None) -> list[str]:
    """Run the evaluations of one row, and return its cells."""
    what = metrics(workdir, n, "samples" if setting else "test")
    flags = [f"--config.eval.what={what}"]
    if setting:
        name, steps, guidance = setting
        grid = "karras" if name != "Ancestral" else "default"
        flags += [f"--config.sample.sampler.name={name}", f"--config.sample.grid.name={grid}"]
        flags += [f"--config.sample.grid.n={steps}", f"--config.sample.guidance={guidance}", f"--config.sample.n={n}"]
    kernel, of_classes, frechet, of_classes_too, both, density = evaluated(workdir, flags)
    evaluations = ""
    if setting:
        cost = 2 if setting[0] == "Heun" else 1
        evaluations = str((cost * setting[1] + 1) * (2 if setting[2] else 1))
    return [
        f"`{setting[0]}`, {setting[1]} steps" if setting else "real examples",
        f"{setting[2].partition('=')[2].rstrip(')') or 'none'}" if setting else "",
        evaluations,
        f"{1000 * kernel['kernel_distance']:.1f} ± {1000 * kernel['kernel_distance_stderr']:.1f}",
        f"{1000 * of_classes['kernel_distance']:.1f} ± {1000 * of_classes['kernel_distance_stderr']:.1f}",
        f"{frechet['frechet']:.1f}",
        f"{frechet['extrapolated']:.1f} ± {frechet['extrapolated_stderr']:.1f}",
        f"{of_classes_too['frechet']:.2f} ± {of_classes_too['stderr']:.2f}",
        *(f"{both[name]:.2f}" for name in ("improved_precision", "improved_recall")),
        *(f"{density[name]:.2f}" for name in ("density", "coverage")),
    ]


def bias(workdir: pathlib.Path) -> str:
    """Return a table of the distances between n test images and the training images, by n."""
    rows = [["n", "Frechet", "its limit", "kernel x 1000"], ["---"] * 4]
    for n in SIZES:
        what = f"Frechet(n={n}, of='test'), Kernel(n={n}, of='test', reference='train')"
        frechet, kernel = evaluated(workdir, [f"--config.eval.what={what}"])
        limit = f"{frechet['extrapolated']:.2f} ± {frechet['extrapolated_stderr']:.2f}"
        distance = f"{1000 * kernel['kernel_distance']:.2f} ± {1000 * kernel['kernel_distance_stderr']:.2f}"
        rows.append([f"{n:,}", f"{frechet['frechet']:.1f}", limit, distance])
    return in_markdown(rows)


def in_markdown(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/fashion"))
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    workdir = options.workdir.resolve()
    print(machine())
    tables = {"bias": bias(workdir)}
    rows = [run(workdir, options.n, setting) for setting in (None, *SETTINGS)]
    tables["quality"] = in_markdown([list(COLUMNS), ["---"] * len(COLUMNS), *rows])
    print(*tables.values(), sep="\n\n")
    if options.write:
        write(ROOT / "docs" / "metrics.md", tables)


if __name__ == "__main__":
    main()
