"""This script measures samplers with and without corrector steps at equal numbers of network evaluations.

python benchmarks/correctors.py --runs=runs/correctors

The mixtures have closed-form denoisers, so that the sampler alone causes the error. The digits have two networks of
configs/digits.py, which the script trains if --runs does not contain the networks. The script writes the tables between
the marks in docs/samplers.md, and the plot beside docs/samplers.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterable

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import numpy as np
from matplotlib.figure import Figure

import score_sde as ss
from benchmarks.common import energy_distance, machine
from benchmarks.samplers import DOCS, mixture, table, write
from configs import digits
from score_sde.jobs import train
from score_sde.sampling import time_grid

BUDGETS = (20, 50, 100, 200)
SDES: dict[str, ss.SDE] = {"VE": ss.VE(), "VP": ss.VP(), "SubVP": ss.SubVP()}
PREDICTORS: dict[str, ss.Sampler] = {
    "ReverseDiffusion()": ss.ReverseDiffusion(),
    "EulerMaruyama()": ss.EulerMaruyama(),
    "DDIM()": ss.DDIM(),
}
SNRS = (0.05, 0.1, 0.16, 0.25, 0.35, 0.5)
TOLERANCES = (0.1, 0.03, 0.01)
N, N_DIGITS = 10_000, 1000


def pairs(predictor: ss.Sampler, snr: float) -> Iterable[tuple[str, int, ss.Sampler]]:
    """Yield (label, network evaluations per step, sampler) with no, one and two corrector steps."""
    yield "alone", 1, predictor
    for steps in (1, 2):
        yield f"+ {steps}", 1 + steps, ss.PredictorCorrector(predictor, ss.Langevin(snr, steps))


def sweep(draw: Callable[[ss.Sampler, int], float], predictors: dict[str, ss.Sampler]) -> dict[str, list[float]]:
    """Return {'`predictor` + corrector steps': the distance at each budget of network evaluations}."""
    distances = {}
    for name, predictor in predictors.items():
        for label, cost, sampler in pairs(predictor, 0.16):
            distances[f"`{name}` {label}"] = [draw(sampler, budget // cost) for budget in BUDGETS]
            print(name, label, np.round(distances[f"`{name}` {label}"], 2), flush=True)
            jax.clear_caches()
    return distances


def of_mixture(sde: ss.SDE) -> tuple[dict[str, list[float]], list[float], dict[str, list[str]]]:
    """Return (sweep, distances by snr at 50 steps, {tolerance: evaluations, adaptive and EulerMaruyama distances})."""
    model = mixture(sde)
    data = np.asarray(model.data.sample(jax.random.split(jax.random.key(1), N)))

    def run(sampler: ss.Sampler, steps: int) -> ss.Samples:
        return ss.sample(model, sampler, time_grid.uniform(sde, steps), (2,), n=N, seed=0, batch_size=N)

    def draw(sampler: ss.Sampler, steps: int) -> float:
        return energy_distance(run(sampler, steps).x, data)

    by_snr = [draw(ss.PredictorCorrector(ss.ReverseDiffusion(), ss.Langevin(snr)), 50) for snr in SNRS]
    adaptive = {}
    for tolerance in TOLERANCES:
        out = run(ss.AdaptiveReverseSDE(tolerance, tolerance), 1)
        nfe = round(float(out.nfe.mean()))
        distances = energy_distance(out.x, data), draw(ss.EulerMaruyama(), nfe)
        adaptive[f"{tolerance}"] = [f"{nfe}", *(f"{distance:.2f}" for distance in distances)]
    return sweep(draw, PREDICTORS), by_snr, adaptive


def of_digits(workdir: pathlib.Path, variant: str) -> tuple[dict[str, list[float]], list[float], float]:
    """Return (sweep, distances by snr at 50 steps, distance between test digits and training digits)."""
    train(digits.get_config(variant), workdir)
    model = ss.load(workdir)
    real = {split: np.asarray(model.codec.encode(images_of(split), None)[0]) for split in ("train", "test")}
    data = real["train"][:N_DIGITS]

    def draw(sampler: ss.Sampler, steps: int) -> float:
        grid = time_grid.default(model.denoiser.sde, steps)
        x = ss.sample(model.denoiser, sampler, grid, model.shape, n=N_DIGITS, seed=0, batch_size=100).x
        return energy_distance(x, data)

    by_snr = [draw(ss.PredictorCorrector(ss.ReverseDiffusion(), ss.Langevin(snr)), 50) for snr in SNRS]
    print(variant, "by snr", np.round(by_snr, 1), flush=True)
    return (
        sweep(draw, {"ReverseDiffusion()": ss.ReverseDiffusion()}),
        by_snr,
        energy_distance(real["test"][:200], data),
    )


def images_of(split: str) -> np.ndarray:
    source = ss.data.Digits().source(split)
    return np.asarray([source[i]["values"] for i in range(len(source))], np.float32)


def plot(path: pathlib.Path, panels: dict[str, dict[str, list[float]]]) -> None:
    figure = Figure(figsize=(15, 3.6), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for i, (name, values) in enumerate(curves.items()):
            style = {"color": f"C{i // 3}", "ls": ("-", "--", ":")[i % 3], "marker": "os^"[i % 3]}
            axes.loglog(BUDGETS, np.maximum(values, 0.05), label=name.replace("`", ""), ms=4, lw=1, **style)
        axes.set(title=title, xlabel="evaluations", xticks=BUDGETS, xticklabels=BUDGETS)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if title == "VE":
            axes.set_ylabel("1000 x energy distance")
            handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=pathlib.Path, required=True, help="the folder of the trained networks for the digits"
    )
    runs = parser.parse_args().runs
    print(machine())
    panels, snr_rows, tables = {}, {}, {}
    for name, sde in SDES.items():
        panels[name], by_snr, adaptive = of_mixture(sde)
        snr_rows[f"mixture, {name}"] = by_snr
        header = ["tolerance", "evaluations", "AdaptiveReverseSDE", "EulerMaruyama with as many steps"]
        tables[f"adaptive {name}"] = plain(header, adaptive)
    for variant in ("ve", "vp"):
        name = f"digits, {variant.upper()}"
        panels[name], snr_rows[name], floor = of_digits(runs / f"digits_{variant}", variant)
        tables["digits floor"] = (
            f"200 test digits by other writers have a distance of {floor:.1f} from the training digits."
        )
    for name, curves in panels.items():
        rows = {row: [f"{value:.2f}" for value in values] for row, values in curves.items()}
        tables[f"correctors {name}"] = plain(["sampler", *map(str, BUDGETS)], rows)
    rows = {name: [f"{value:.2f}" for value in values] for name, values in snr_rows.items()}
    tables["snr"] = plain(["snr", *map(str, SNRS)], rows)
    write(DOCS / "samplers.md", tables)
    plot(DOCS / "correctors.png", panels)


def plain(header: list[str], rows: dict[str, list[str]]) -> str:
    """Return a Markdown table whose first column has no code font."""
    lines = table(header, {}).splitlines()
    return "\n".join(lines + ["| " + " | ".join([name, *cells]) + " |" for name, cells in rows.items()])


if __name__ == "__main__":
    main()
