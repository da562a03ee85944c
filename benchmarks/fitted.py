"""This benchmark measures fitted time grids against default ones, and writes the tables of docs/samplers.md.

python benchmarks/fitted.py [--mixtures] [--runs=RUN --name=digits] [--write]

--mixtures measures samplers on a mixture in the plane over 0.002 to 80 and on four SDEs, with the exact flow as the
truth. --runs is a workdir of a trained model: its samples are compared with test images.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import numpy as np

import score_sde as ss
from benchmarks.common import machine, write_section
from benchmarks.quality import in_markdown
from benchmarks.samplers import mixture
from benchmarks.variances import examples
from score_sde import metrics

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "samplers.md"
SAMPLERS: dict[str, ss.Sampler] = {
    "LMS(4, 'ramp') (k-diffusion)": ss.LMS(4, "ramp"),
    "LMS(4)": ss.LMS(4),
    "DPMSolverPP()": ss.DPMSolverPP(),
    "DPMSolverPP(3)": ss.DPMSolverPP(3),
    "UniPC(2)": ss.UniPC(2),
    "UniPC(3)": ss.UniPC(),
}
SDES: dict[str, ss.SDE] = {"VP": ss.VP(), "VE": ss.VE(), "EDM": ss.EDM(), "RectifiedFlow": ss.RectifiedFlow()}
GRIDS = {"uniform": ss.time_grid.uniform, "karras": ss.time_grid.karras, "log_snr": ss.time_grid.log_snr}


def distance(model: ss.Denoiser, sampler: ss.Sampler, grid: np.ndarray, n: int = 1024) -> float:
    """Return the mean distance of n fresh walks from the exact flow."""
    sde = model.sde
    x = float(sde.prior_std) * np.random.default_rng(11).standard_normal((n, 2))
    options = {"n": n, "seed": 0, "x": x, "denoise": False}
    ends = [float(sde.t_max), float(sde.t_stop)]
    exact = ss.sample(model, ss.ProbabilityFlow(1e-11, 1e-11), ends, (2,), **options).x
    return float(np.linalg.norm(ss.sample(model, sampler, grid, (2,), **options).x - exact, axis=1).mean())


def mixtures() -> tuple[list[list[str]], list[list[str]]]:
    """Return the table of samplers over Karras' range, and the table of SDEs."""
    of_samplers = [["sampler", "grid", *(f"{n} evaluations" for n in (10, 20, 50))], ["---"] * 5]
    edm = mixture(ss.EDM())
    for name, sampler in SAMPLERS.items():
        for grid in ("karras", "log_snr", "fitted"):
            row = [f"`{name}`", grid]
            for n in (10, 20, 50):
                times = ss.time_grid.fitted(edm, sampler, n) if grid == "fitted" else GRIDS[grid](ss.EDM(), n)
                row.append(f"{distance(edm, sampler, times):.2g}")
            print(row, flush=True)
            of_samplers.append(row)
    of_sdes = [["SDE", "evaluations", "best default grid", "its error", "fitted"], ["---"] * 5]
    for name, sde in SDES.items():
        model, sampler = mixture(sde), ss.UniPC()
        for n in (10, 20):
            errors = {}
            for grid, rule in GRIDS.items():
                if grid == "uniform" or float(sde.alpha(sde.t_max)) > 0:
                    errors[grid] = distance(model, sampler, rule(sde, n))
            best = min(errors, key=errors.__getitem__)
            error = distance(model, sampler, ss.time_grid.fitted(model, sampler, n))
            of_sdes.append([name, str(n), best, f"{errors[best]:.2g}", f"{error:.2g}"])
            print(of_sdes[-1], flush=True)
    return of_samplers, of_sdes


def trained(run: pathlib.Path, n: int, count: int, calls: int, evaluations: tuple[int, ...]) -> list[list[str]]:
    """Return the table of a trained model: kernel distance of samples and error of walks, default against fitted."""
    model = ss.load(run)
    real, _ = examples(model, "test", n)
    denoiser = ss.Clipped(model.denoiser, *model.codec.clip_range) if model.codec.clip_range else model.denoiser
    rows = [["sampler", "grid", "evaluations", "kernel distance", "error of a walk", "seconds of the fit"], ["---"] * 6]
    cond = {"label": np.arange(count) % 10} if "label" in model.conditions else None
    for name in ("DPMSolverPP()", "UniPC(3)"):
        sampler = SAMPLERS[name]
        for steps in evaluations:
            # The last denoising is one evaluation.
            began = time.perf_counter()
            budget = count * (2 * max(16 * (steps - 1), 256) + (calls + 8) * steps)
            grid = ss.time_grid.fitted(denoiser, sampler, steps - 1, examples=count, budget=budget, cond=cond)
            seconds, fit = time.perf_counter() - began, grid.fit
            default = ss.time_grid.default(model.denoiser.sde, steps - 1)
            for what, times, error in (
                ("default", default, ""),
                (f"best default ({fit.default})", GRIDS[fit.default](model.denoiser.sde, steps - 1), fit.default_error),
                ("fitted", grid, fit.error),
            ):
                asked = {"label": list(range(10))} if cond else {}
                drawn = model.sample(n, seed=1, sampler=sampler, grid=times, **asked)
                in_pixels = [np.asarray(z, float).reshape(len(z), -1) / model.codec.maximum for z in (real, drawn.x)]
                value = metrics.kernel_distance(*in_pixels)
                shown = f"{1e3 * float(value):.2f} ± {1e3 * value.stderr:.2f}"
                of_walk, of_fit = f"{error:.4f}" if error else "", f"{seconds:.0f}" if what == "fitted" else ""
                rows.append([f"`{name}`", what, str(int(drawn.nfe[0])), shown, of_walk, of_fit])
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtures", action="store_true")
    parser.add_argument("--runs", type=pathlib.Path)
    parser.add_argument("--name", default="digits", help="name of the table of --runs")
    parser.add_argument("--n", type=int, default=297, help="samples")
    parser.add_argument("--examples", type=int, default=32, help="starting points of a fit")
    parser.add_argument("--calls", type=int, default=100, help="walks of a fit")
    parser.add_argument("--evaluations", default="5,10,20,50")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    texts: dict[str, tuple[list[list[str]], str]] = {}
    if options.mixtures:
        jax.config.update("jax_enable_x64", True)
        of_samplers, of_sdes = mixtures()
        remark = "Mean distance of 1,024 fresh walks from the exact flow, float64."
        texts |= {"fitted samplers": (of_samplers, remark), "fitted sdes": (of_sdes, remark)}
    if options.runs:
        evaluations = tuple(int(number) for number in options.evaluations.split(","))
        rows = trained(options.runs, options.n, options.examples, options.calls, evaluations)
        remark = (
            f"1,000 times the kernel distance of {options.n} samples from as many test images, on pixels from 0 to 1. "
            "The error of a walk is its root mean square difference from an accurate walk, on starting points that the "
            "fit has not seen."
        )
        texts[f"fitted {options.name}"] = (rows, remark)
    for section, (rows, remark) in texts.items():
        text = f"{in_markdown(rows)}\n\n{remark} Measured on {machine()}."
        print(text)
        if options.write:
            write_section(section, text, PAGE)


if __name__ == "__main__":
    main()
