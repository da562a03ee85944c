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


def run(workdir: pathlib.Path, n: int, setting: tuple[str, int, str] | None) -> list[str]:
    """Run the evaluations of one row, and return its cells."""
    what = metrics(workdir, n, "samples" if setting else "test")
    command = [sys.executable, "main.py", f"--workdir={workdir}", "--mode=eval", f"--config.eval.what={what}"]
    if setting:
        name, steps, guidance = setting
        grid = "karras" if name != "Ancestral" else "default"
        command += [f"--config.sample.sampler.name={name}", f"--config.sample.grid.name={grid}"]
        command += [f"--config.sample.grid.n={steps}", f"--config.sample.guidance={guidance}", f"--config.sample.n={n}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    print(done.stdout, flush=True)
    paths = [line.split("results: ")[1].strip() for line in done.stdout.splitlines() if "results: " in line]
    kernel, of_classes, frechet, of_classes_too, both, density = (
        json.loads(pathlib.Path(p).read_text()) for p in paths
    )
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/fashion"))
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    workdir = options.workdir.resolve()
    print(machine())
    rows = [run(workdir, options.n, setting) for setting in (None, *SETTINGS)]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(table)
    if options.write:
        write(ROOT / "docs" / "metrics.md", {"quality": table})


if __name__ == "__main__":
    main()
