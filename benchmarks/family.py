"""This script trains two configs in every variant, and writes the tables of docs/family.md.

python benchmarks/family.py --runs=runs/family

The tables have bits/dim, network evaluations, sampler, energy distance and seconds. Each variant is one run of main.py
in a separate folder. The script does not repeat a complete run.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

from benchmarks.common import machine
from benchmarks.samplers import table, write
from configs import toy, variants
from score_sde import config as config_
from score_sde import data

ROOT = pathlib.Path(__file__).parent.parent
OTHERS = [word for word in variants.SDES if word != "vp"]
MEANINGS = [f"vp,{word}" for word in variants.PARAMETRIZATIONS if word != "noise"]
RUNS = {
    "digits": ["vp", *OTHERS, *MEANINGS],
    "toy": [
        *(f"{law},vp" for law in toy.LAWS),
        *(f"checkerboard,{word}" for word in [*OTHERS, *MEANINGS, "rectified_flow,x0", "vp,likelihood"]),
    ],
}
COLUMNS = [
    "variant",
    "parametrisation",
    "bits/dim",
    "evaluations",
    "sampler",
    "evaluations",
    "energy distance",
    "seconds",
]


def run(name: str, variant: str, folder: pathlib.Path, flags: list[str]) -> None:
    """Run main.py for one variant, and write the seconds of the run to seconds.json."""
    if (folder / "seconds.json").exists():
        return
    command = [sys.executable, "main.py", f"--config=configs/{name}.py:{variant}", f"--workdir={folder}"]
    began = time.perf_counter()
    process = subprocess.run([*command, "--mode=train,eval,sample", *flags], cwd=ROOT, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"error: {name}:{variant} failed: {process.stderr.strip().splitlines()[-1]}")
    (folder / "seconds.json").write_text(json.dumps(round(time.perf_counter() - began, 1)))


def row(folder: pathlib.Path) -> list[str]:
    """Return the cells of a run, without the name of the run."""
    config = config_.from_json((folder / "config.json").read_text())
    likelihood = json.loads((folder / "eval" / "likelihood.json").read_text())
    with np.load(folder / "samples" / "samples.npz") as arrays:
        samples, nfe = arrays["points" if "points" in arrays else "images"], float(arrays["nfe"].mean())
    return [
        config.parametrization.name,
        f"{likelihood['bits_per_dim']:.3f} ± {likelihood['stderr']:.3f}",
        f"{likelihood['nfe']:.0f}",
        config.sample.sampler.name,
        f"{nfe:.0f}",
        f"{1e3 * relative_energy_distance(samples, of_test(config.data.name)):.1f}",
        f"{json.loads((folder / 'seconds.json').read_text()):.0f}",
    ]


def picture(folders: dict[str, pathlib.Path]) -> None:
    """Plot the samples of all runs in the plane in docs/family.png."""
    columns = 6
    rows = -(-len(folders) // columns)
    figure = Figure(figsize=(2 * columns, 2.15 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, (name, folder) in zip(panels, folders.items(), strict=False):
        with np.load(folder / "samples" / "samples.npz") as arrays:
            axes.scatter(*arrays["points"].T, s=0.5, linewidths=0)
        axes.set(aspect="equal", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4))
        axes.set_title(name, fontsize=8)
    figure.savefig(ROOT / "docs" / "family.png", dpi=80)


def of_test(name: str) -> np.ndarray:
    return data.all_examples(getattr(data, name)().source("test"))["values"]


def relative_energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return (2 E|X - Y| - E|X - X'| - E|Y - Y'|) / (2 E|X - Y|), over pairs of different rows.

    The expectation of the numerator is 0 if x and y have the same distribution.
    """
    x, y = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (x, y))
    within = sum(cdist(part, part).sum() / (len(part) * (len(part) - 1)) for part in (x, y))
    between = 2 * cdist(x, y).mean()
    return float((between - within) / between)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs/family", help="the folder of the runs")
    parser.add_argument(
        "--only", default="", help="a regular expression for the variants to run, such as 'toy/checkerboard,.*'"
    )
    arguments = parser.parse_args()
    print(machine())
    flags = {"digits": ["--config.train.steps=1000", "--config.sample.n=300"], "toy": []}
    tables: dict[str, str] = {}
    for name, wanted in RUNS.items():
        rows: dict[str, list[str]] = {}
        for variant in wanted:
            folder = pathlib.Path(arguments.runs) / name / variant
            if re.fullmatch(arguments.only or ".*", f"{name}/{variant}"):
                run(name, variant, folder, flags[name])
            if (folder / "seconds.json").exists():
                rows[variant] = row(folder)
                print(name, variant, *rows[variant], flush=True)
        if rows:
            tables[name] = table(COLUMNS, rows)
        if rows and name == "toy":
            picture({variant: pathlib.Path(arguments.runs) / name / variant for variant in rows})
    write(ROOT / "docs" / "family.md", tables)


if __name__ == "__main__":
    main()
