"""This benchmark measures likelihoods with fixed steps against adaptive ones, and writes a table of docs/samplers.md.

python benchmarks/likelihood_steps.py --runs=RUN [--write]

The errors are those of log p(x) in nats, against a solve at small tolerances with the same probes. --runs is a workdir
of a trained model on digits; the mixture of docs/samplers.md has the exact trace, in float64.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import score_sde as ss
from benchmarks.common import machine, write_section
from benchmarks.quality import in_markdown
from benchmarks.samplers import mixture
from benchmarks.variances import examples
from score_sde.core import keys as keys_

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "samplers.md"
STEPS = (22, 45, 90)


def row(what: str, result: Any, accurate: np.ndarray) -> list[str]:
    """Return a row of the table: mean evaluations of a value and of its estimate, mean error and estimate."""
    error, evaluations = float(np.abs(result.value - accurate).mean()), float(result.nfe.mean())
    taken, estimate = float(result.accepted.mean()) + 1, ""
    fixed = result.solve_error is not None
    if fixed:
        estimate = f"{float(result.solve_error.mean()):.2g}"
    counted = f"{taken:.0f} + {evaluations - taken:.0f}" if fixed else f"{evaluations:.0f}"
    return [what, counted, f"{error:.2g}", estimate]


def measured(
    name: str, denoiser: ss.Denoiser, x: Any, keys: Any, fit_on: tuple[Any, Any], calls: int, **options: Any
) -> list[list[str]]:
    """Return the rows of one model: adaptive solves, steps even in sqrt(t), and fitted steps."""
    sde = denoiser.sde
    accurate = np.asarray(ss.log_prob(denoiser, x, keys, rtol=1e-6, atol=1e-6, **options).value)
    rows = []
    for tolerance in (1e-3, 1e-4, 1e-5):
        result = ss.log_prob(denoiser, x, keys, rtol=tolerance, atol=tolerance, **options)
        rows.append([name, *row(f"adaptive, {tolerance:.0e}", result, accurate)])
        print(rows[-1], flush=True)
    for n in STEPS:
        even = np.linspace(np.sqrt(float(sde.t_max)), np.sqrt(float(sde.t_min)), n + 1) ** 2
        even[[0, -1]] = float(sde.t_max), float(sde.t_min)
        fitted = ss.likelihood_grid(denoiser, *fit_on, n, calls=calls, **options)
        for what, grid in (("even in sqrt(t)", even), ("fitted", fitted)):
            result = ss.log_prob(denoiser, x, keys, grid=grid, **options)
            rows.append([name, *row(f"{n} steps, {what}", result, accurate)])
            print(rows[-1], flush=True)
    return rows


def of_mixtures(calls: int) -> list[list[str]]:
    """Return the rows of the mixture on VP and EDM, in float64 with the exact trace."""
    rows = []
    with jax.enable_x64(True):
        for name, sde in (("mixture, VP", ss.VP()), ("mixture, EDM", ss.EDM())):
            model = mixture(sde)
            drawn = model.marginal(sde.t_min).sample(jax.random.split(jax.random.key(1), 400))
            x = jnp.asarray(np.asarray(drawn, float))
            rows += measured(name, model, x[:200], None, (x[200:], None), calls, trace="exact")
    return rows


def of_run(run: pathlib.Path, n: int, calls: int) -> list[list[str]]:
    """Return the rows of a trained model, on test examples; the grid is fitted on training examples."""
    model = ss.load(run)
    sets = []
    for part, count, seed in (("test", n, 0), ("train", 48, 1)):
        values, _ = examples(model, part, count)
        keys = keys_.examples(keys_.stream(seed, "likelihood"), np.arange(len(values)))
        sets.append((model.codec.encode(values, keys_.fold(keys, "encode"))[0], keys))
    return measured("digits", model.denoiser.smooth(), *sets[0], sets[1], calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, help="workdir of a model of digits without conditions")
    parser.add_argument("--n", type=int, default=100, help="test examples")
    parser.add_argument("--calls", type=int, default=60, help="grids that a fit tries")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = of_mixtures(options.calls)
    if options.runs:
        rows += of_run(options.runs, options.n, options.calls)
    head = ["model", "steps", "evaluations (of the value + of its estimate)", "mean error, nats", "mean estimate"]
    text = f"{in_markdown([head, ['---'] * 5, *rows])}\n\nMeasured on {machine()}."
    print(text)
    if options.write:
        write_section("likelihood steps", text, PAGE)


if __name__ == "__main__":
    main()
