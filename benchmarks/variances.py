"""This benchmark measures bounds and reverse variances of trained models, and writes two tables of docs/variances.md.

python benchmarks/variances.py --runs=runs/variances --data=digits [--n=1000] [--first=200] [--write]

Each folder of --runs is a workdir of configs/digits.py or configs/fashion_mnist.py, and gives its name to a row. The
first table has the variational bound and the likelihood of the flow. The second table has the energy distance between
samples and test images, at a few steps, by the variance of `Ancestral`.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np

import score_sde as ss
from benchmarks.common import machine, write_section
from benchmarks.family import relative_energy_distance
from benchmarks.quality import in_markdown
from score_sde.core import keys as keys_
from score_sde.data.base import read
from score_sde.experiment import Experiment

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "variances.md"
STEPS = (10, 25, 50)
LEVELS, EXAMPLES = 100, 200  # of the table of moments
BATCH = 200
REPEATS = 4
FIXED = ("posterior", "forward")


def examples(model: Any, split: str, n: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the first n images of a split, and the condition of a conditional model."""
    source = Experiment.from_config(model.config).dataset.source(split)
    batch = read(source, np.arange(min(n, len(source))))
    return batch["values"], {"label": batch["label"]} if "label" in model.conditions else {}


def in_batches(function: Any, values: np.ndarray, cond: dict[str, Any]) -> np.ndarray:
    """Return function(values, cond, seed) of batches, concatenated."""
    parts = []
    for number, low in enumerate(range(0, len(values), BATCH)):
        rows = slice(low, low + BATCH)
        parts.append(function(values[rows], {name: value[rows] for name, value in cond.items()}, number))
    return np.concatenate(parts)


def shown(values: np.ndarray, digits: int = 3) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) / math.sqrt(len(values)):.{digits}f}"


def moments(model: Any) -> ss.MomentTable:
    """Return the table of noise moments, measured on training images."""
    values, cond = examples(model, "train", EXAMPLES)
    sde = model.denoiser.sde
    times = np.round(np.linspace(1, sde.levels, LEVELS)) / sde.levels

    def measure(part: np.ndarray, cond: dict[str, Any], number: int) -> np.ndarray:
        keys = keys_.examples(keys_.stream(number, "likelihood"), np.arange(len(part)))
        dequantise = bool(Experiment.from_config(model.config).objective.dequantises)  # type: ignore[attr-defined]
        x0, _ = model.codec.encode(part, keys_.fold(keys, "encode") if dequantise else None)
        return ss.noise_moments(model.denoiser, x0, keys, times, cond=cond or None)

    gamma = in_batches(measure, values, cond)
    stderr = gamma.std(axis=0, ddof=1) / math.sqrt(len(gamma))
    return ss.MomentTable(times, np.asarray(sde.log_snr(times)), gamma.mean(axis=0), stderr)


def bounds(name: str, model: Any, table: ss.MomentTable | None, first: int, draws: int) -> list[str]:
    """Return the row of a model in the table of bounds."""
    values, cond = examples(model, "test", first)
    sde, own = model.denoiser.sde, model.denoiser.parametrization.variance
    kinds = (*FIXED, *(["learned"] if own else [])) if sde.levels is not None else ("posterior",)
    dequantise = bool(Experiment.from_config(model.config).objective.dequantises)  # type: ignore[attr-defined]
    cells = {}
    for kind in kinds:

        def measure(part: np.ndarray, cond: dict[str, Any], number: int, kind: str = kind) -> np.ndarray:
            options: dict[str, Any] = dict(draws=draws, seed=number, dequantise=dequantise)
            options |= dict(variance=kind) if sde.levels else {}
            return np.asarray(model.variational_bound(part, **options, **cond).value)

        cells[kind] = shown(in_batches(measure, values, cond))
    if table is not None:
        guide = ss.Analytic(model.denoiser, table, largest=bound_of(model))

        def analytic(part: np.ndarray, cond: dict[str, Any], number: int) -> np.ndarray:
            keys = keys_.examples(keys_.stream(number, "likelihood"), np.arange(len(part)))
            of = dict(codec=model.codec, variance="optimal", draws=draws, cond=cond or None, dequantise=dequantise)
            return np.asarray(ss.variational_bound(guide, part, keys, **of).value)

        cells["analytic"] = shown(in_batches(analytic, values, cond))

    def flow(part: np.ndarray, cond: dict[str, Any], number: int) -> np.ndarray:
        return np.asarray(model.bits_per_dim(part, seed=number, rtol=1e-3, atol=1e-3, **cond).value)

    of_flow = shown(in_batches(flow, values, cond))
    one = "" if sde.levels is not None else f"{cells.pop('posterior')} (continuous time)"
    row = [
        name,
        "yes" if dequantise else "no",
        *(cells.get(kind, "") for kind in FIXED),
        cells.get("learned", one),
        cells.get("analytic", ""),
        of_flow,
    ]
    print(row, flush=True)
    return row


def bound_of(model: Any) -> float | None:
    """Return the bound of Var[x_0 | x_t] for the data's range."""
    low, high = model.codec.clip_range
    return (high - low) ** 2 / 4


def distances(name: str, model: Any, table: ss.MomentTable, n: int) -> list[list[str]]:
    """Return the rows of a model in the table of samples."""
    real, _ = examples(model, "test", n)
    own = model.denoiser.parametrization.variance
    chain, rows = model.denoiser.sde, []
    guide = [dict(name="Analytic", table=table, largest=bound_of(model))]
    columns: list[tuple[str, str, Any]] = [(kind, kind, "") for kind in FIXED]
    if own:
        columns.append(("own", "learned" if own == "fraction" else "optimal", ""))
    columns += [("analytic", "optimal", guide)]
    if not own:
        columns += [("analytic, optimal grid", "optimal", guide)]
    for what, kind, guidance in columns:
        row = [name, what]
        for steps in STEPS:
            grid = ss.time_grid.linspace(chain, steps)
            if what.endswith("grid"):
                grid = ss.time_grid.optimal(chain, steps - 1, table)
            sampler = ss.Ancestral(variance=kind)
            found = []
            for seed in range(REPEATS):
                drawn = model.sample(n // REPEATS, seed=seed, sampler=sampler, grid=grid, guidance=guidance)
                assert int(drawn.nfe[0]) == steps
                found.append(1e3 * relative_energy_distance(drawn.x, real))
            row.append(shown(np.asarray(found), 1))
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/variances"))
    parser.add_argument("--data", default="digits", help="the name of the tables: digits or fashion")
    parser.add_argument("--only", default="", help="names of the folders, separated by semicolons")
    parser.add_argument("--n", type=int, default=1000, help="samples")
    parser.add_argument("--first", type=int, default=200, help="test images of the bounds")
    parser.add_argument("--draws", type=int, default=250, help="levels or times of a bound for each image")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folders = [pathlib.Path(options.runs / name) for name in options.only.split(";") if name]
    folders = folders or sorted(path for path in options.runs.iterdir() if (path / "config.json").exists())
    of_bounds = [["model", "dequantised", "posterior", "forward", "learned", "analytic", "flow"], ["---"] * 7]
    of_samples = [["model", "variance", *(f"{steps} evaluations" for steps in STEPS)], ["---"] * (2 + len(STEPS))]
    for folder in folders:
        model = ss.load(folder)
        name = f"{folder.name} ({model.config.objective.name}, {model.step:,} steps)"
        table = None if model.denoiser.sde.levels is None else moments(model)
        of_bounds.append(bounds(name, model, table, options.first, options.draws))
        if table is not None:
            of_samples += distances(name, model, table, options.n)
    remark = (
        f"Bits per dimension of {options.first} test images, {options.draws} levels drawn for each; the flow with "
        f"tolerances 1e-3. Measured on {machine()}."
    )
    about = (
        f"1,000 times the relative energy distance to {options.n} test images: mean of {REPEATS} seeds with "
        f"{options.n // REPEATS} samples each, and its standard error. Measured on {machine()}."
    )
    texts = {f"bounds {options.data}": (of_bounds, remark), f"samples {options.data}": (of_samples, about)}
    for section, (rows, remark) in texts.items():
        print(in_markdown(rows), remark, sep="\n\n")
        if options.write:
            write_section(section, f"{in_markdown(rows)}\n\n{remark}", PAGE)


if __name__ == "__main__":
    main()
