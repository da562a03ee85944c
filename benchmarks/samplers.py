"""This script measures the order of convergence and the error of every sampler, for docs/samplers.md.

python benchmarks/samplers.py [--quick]

No network is involved: the denoiser is the closed form of a Gaussian or of a mixture, so that the sampler alone causes
the error. The script writes the tables between the marks in docs/samplers.md, and the plots beside docs/samplers.md.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import re
import sys
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

import score_sde as ss
from benchmarks.common import machine
from score_sde.core import keys as keys_
from score_sde.sampling import time_grid

DOCS = pathlib.Path(__file__).parent.parent / "docs"
SDES: dict[str, tuple[ss.SDE, Callable[[ss.SDE, int], np.ndarray]]] = {
    "VP": (ss.VP(), time_grid.karras),
    "VE": (ss.VE(sigma_max=20.0), time_grid.karras),
    "EDM": (ss.EDM(sigma_max=20.0), time_grid.karras),
    "RectifiedFlow": (ss.RectifiedFlow(), time_grid.uniform),
}
DETERMINISTIC: dict[str, ss.Sampler] = {
    "Euler()": ss.Euler(),
    "DDIM()": ss.DDIM(),
    "EulerMaruyama(noise=0)": ss.EulerMaruyama(noise=0.0),
    "Heun()": ss.Heun(),
    "DPM2()": ss.DPM2(),
    "DPMSolverPP()": ss.DPMSolverPP(),
    "DPMSolverPP2S()": ss.DPMSolverPP2S(),
    "LMS(order=2)": ss.LMS(order=2),
    "LMS(order=3)": ss.LMS(order=3),
    "LMS(order=4)": ss.LMS(order=4),
    "DPMSolverPP(3)": ss.DPMSolverPP(3),
    "UniPC(2)": ss.UniPC(2),
    "UniPC(3)": ss.UniPC(3),
    "PNDM()": ss.PNDM(),
}
STOCHASTIC: dict[str, ss.Sampler] = {
    "EulerMaruyama()": ss.EulerMaruyama(),
    "ReverseDiffusion()": ss.ReverseDiffusion(),
    "Ancestral()": ss.Ancestral(),
    "Ancestral('forward')": ss.Ancestral("forward"),
    "DDIM(eta=0.5)": ss.DDIM(eta=0.5),
    "EulerAncestral()": ss.EulerAncestral(),
    "DPM2Ancestral()": ss.DPM2Ancestral(),
    "Heun(gamma=0.1)": ss.Heun(gamma=0.1),
    "SRA1()": ss.SRA1(),
    "DPMSolverPPSDE()": ss.DPMSolverPPSDE(),
    "DPMSolverPP(eta=1)": ss.DPMSolverPP(eta=1.0),
    "DPMSolverPP(3, eta=1)": ss.DPMSolverPP(3, eta=1.0),
    "SASolver(2)": ss.SASolver(2),
    "SASolver(3)": ss.SASolver(3),
}
# More steps add more churn if every step has the same gamma, so these samplers have no order.
UNORDERED = ("Heun(gamma=0.1)",)
# These samplers need two network evaluations per step; PNDM needs four in each of its first three steps.
TWICE = (ss.Heun, ss.DPM2, ss.DPMSolverPP2S, ss.SRA1, ss.DPMSolverPPSDE)
EVALUATIONS = (5, 10, 20, 35, 50)
STEPS = (32, 64, 128, 256)
STD, N = 0.5, 5000


def mixture(sde: ss.SDE) -> ss.GaussianMixture:
    return ss.GaussianMixture(sde, [0.3, 0.7], [[1.5, 0.0], [-0.8, 0.6]], [0.3, 0.5])


def part_of_the_way(sde: ss.SDE, n: int) -> np.ndarray:
    """Return n steps, even in log-SNR, over the middle of the time range, where every sampler is defined."""
    ends = np.asarray(sde.log_snr(np.asarray([0.8, 0.2]) * float(sde.t_max)))
    return np.asarray(sde.time_of(np.linspace(*ends, n + 1)))


def flow_error(sampler: ss.Sampler, sde: ss.SDE, n: int) -> float:
    """Return the largest distance of 64 points of a mixture from the probability flow, which is solved to 1e-12."""
    grid, model = part_of_the_way(sde, n), mixture(sde)
    x = model.marginal(grid[0]).sample(jax.random.split(jax.random.key(0), 64))
    options = {"n": 64, "seed": 0, "x": x, "denoise": False}
    exact = ss.sample(model, ss.ProbabilityFlow(1e-12, 1e-12), grid[[0, -1]], (2,), **options).x
    return float(np.abs(ss.sample(model, sampler, grid, (2,), **options).x - exact).max())


def variance_error(sampler: ss.Sampler, sde: ss.SDE, n: int) -> float:
    """Return the relative error of the variance of N(0, 0.5^2) at the last time, computed without samples.

    On a Gaussian a step is a x + b z, so the variance goes from V to a^2 V + b^2. The steps
    from x = 0 and x = 1 give a and b.
    """
    grid, model = part_of_the_way(sde, n), ss.GaussianMixture(sde, [1.0], [[0.0]], STD)
    key = keys_.examples(keys_.stream(0, "sample"), np.zeros(2, np.uint32))
    z = keys_.normal(key, (1,), jnp.float64)[0, 0]

    @jax.jit
    def step(t: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        at_0, at_1 = sampler.step(key, model, jnp.asarray([[0.0], [1.0]]), t, s, sampler.init(jnp.zeros((2, 1))))[0]
        return (at_1 - at_0)[0], (at_0 / z)[0]

    def exact(t: float) -> float:
        return float(sde.alpha(t)) ** 2 * STD**2 + float(sde.variance(t))

    variance = exact(grid[0])
    for t, s in itertools.pairwise(grid):
        a, b = step(jnp.asarray(t), jnp.asarray(s))
        variance = float(a) ** 2 * variance + float(b) ** 2
    return abs(variance / exact(grid[-1]) - 1)


def orders(steps: tuple[int, ...]) -> dict[str, dict[str, list[float]]]:
    """Return {sampler: {SDE: the error at each of `steps`}}."""
    errors_of: dict[str, dict[str, list[float]]] = {}
    for group, error in ((DETERMINISTIC, flow_error), (STOCHASTIC, variance_error)):
        for name, sampler in group.items():
            if name in UNORDERED:
                continue
            errors_of[name] = {sde_name: [error(sampler, sde, n) for n in steps] for sde_name, (sde, _) in SDES.items()}
            print(name, {sde_name: f"{_order(errors):.2f}" for sde_name, errors in errors_of[name].items()}, flush=True)
            # Hundreds of programs exhaust the memory maps that a process may have.
            jax.clear_caches()
    return errors_of


def energy_distances(evaluations: tuple[int, ...]) -> tuple[dict[str, dict[str, list[float]]], float]:
    """Return {sampler: {SDE: the energy distance at each of `evaluations`}}, and the energy distance of exact draws."""
    keys = (jax.random.split(jax.random.key(k), N) for k in (1, 2))
    data, second_data = (np.asarray(mixture(ss.VP()).data.sample(key), np.float64) for key in keys)
    within = cdist(data, data).mean()

    def distance(x: np.ndarray) -> float:
        return float(2 * cdist(x, data).mean() - cdist(x, x).mean() - within)

    distances_of: dict[str, dict[str, list[float]]] = {}
    for name, sampler in (DETERMINISTIC | STOCHASTIC).items():
        if name in ("EulerMaruyama(noise=0)", "LMS(order=2)", "LMS(order=3)"):
            continue
        distances_of[name] = {}
        for sde_name, (sde, grid_of) in SDES.items():
            distances = []
            for count in evaluations:
                steps = _steps_within(sampler, count)
                try:
                    x = ss.sample(mixture(sde), sampler, grid_of(sde, steps), (2,), n=N, seed=0, batch_size=N).x
                except ss.InputError:
                    break
                distances.append(distance(x.astype(np.float64)))
            distances_of[name][sde_name] = distances
        print(name, distances_of[name], flush=True)
        jax.clear_caches()
    return distances_of, distance(second_data)


def _steps_within(sampler: ss.Sampler, evaluations: int) -> int:
    """Return the number of steps, at least 1, for which a walk with its last denoising has so many evaluations."""
    available = evaluations - 1
    if isinstance(sampler, ss.PNDM):
        return max(available - 9 if available > 12 else available // 4, 1)
    return max(available // (2 if isinstance(sampler, TWICE) else 1), 1)


def _order(errors: list[float]) -> float:
    """Return the slope between the two finest grids whose error is above rounding."""
    above_rounding = [error for error in errors if error > 1e-11]
    return float(np.log2(above_rounding[-2] / above_rounding[-1])) if len(above_rounding) > 1 else float("nan")


def table(header: list[str], rows: dict[str, list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([f"`{name}`", *cells] for name, cells in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(page: pathlib.Path, tables: dict[str, str]) -> None:
    """Write each table between the marks of the table."""
    text = page.read_text()
    for mark, rows in tables.items():
        pattern = rf"(<!-- {mark} -->\n).*?(\n<!-- end of {mark} -->)"
        text, count = re.subn(pattern, lambda m, rows=rows: m[1] + rows + m[2], text, flags=re.DOTALL)
        assert count == 1, f"{page} has {count} pairs of marks for {mark}; expected 1."
    page.write_text(text)


def plot(
    path: pathlib.Path,
    values_of: dict[str, dict[str, list[float]]],
    xs: tuple[int, ...],
    x: str,
    y: str,
    floor: float | None = None,
) -> None:
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    panels = figure.subplots(1, len(SDES), sharey=True)
    for axes, sde_name in zip(panels, SDES, strict=True):
        for i, (name, rows) in enumerate(values_of.items()):
            style = {"color": f"C{i % 10}", "marker": "os^v"[i // 5 % 4], "ls": "-" if name in DETERMINISTIC else "--"}
            axes.loglog(xs[: len(rows[sde_name])], rows[sde_name], label=name, ms=4, lw=1, **style)
        if floor is not None:
            axes.axhline(floor, color="grey", lw=0.8, ls=":")
        axes.set(title=sde_name, xlabel=x, xticks=xs, xticklabels=xs)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(y)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="use fewer steps, and write no file")
    quick = parser.parse_args().quick
    print(machine())
    steps, evaluations = (STEPS, EVALUATIONS) if not quick else ((16, 32), (10,))
    with jax.enable_x64(True):
        errors = orders(steps)
    distances, floor = energy_distances(evaluations)
    if quick:
        return
    rows = {name: [f"{_order(by_sde[sde_name]):.2f}" for sde_name in SDES] for name, by_sde in errors.items()}
    tables = {"orders": table(["sampler", *SDES], rows)}
    for sde_name in SDES:
        rows = {
            name: [f"{1e3 * value:.1f}" for value in by_sde[sde_name]]
            for name, by_sde in distances.items()
            if by_sde[sde_name]
        }
        tables[sde_name] = table(["sampler", *map(str, evaluations)], rows)
    tables["floor"] = f"Two sets of {N} exact draws have a distance of {1e3 * floor:.1f}."
    write(DOCS / "samplers.md", tables)
    plot(DOCS / "samplers_orders.png", errors, steps, "steps", "error")
    label = "energy distance"
    plot(DOCS / "samplers_evaluations.png", distances, evaluations, "evaluations", label, floor)


if __name__ == "__main__":
    main()
