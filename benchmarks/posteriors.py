"""This benchmark measures the calibration of posterior methods on closed forms: the table of docs/inverse.md.

    python benchmarks/posteriors.py [--measurements=400] [--draws=20] [--only=Moments,Particles] [--write]

Gaussian data: three numbers with standard deviation 0.5 and correlations 0.9, 0.6 and 0.8, of which the first two are
measured with noise 0.1. The columns x1 and x3 are spread and bias in standard deviations of the exact posterior: the
standard deviation of the draws given y, and the root mean square over y of the part of the error that is linear in y.
Coverage is the share of draws of x3 in the central 90 % of the exact posterior. Ranks is the chi square per degree of
freedom of the rank of the true x3 among the draws, near 1 if ranks are uniform. Modes is the probability of the mode at
1 of two modes at -1 and 1 with standard deviation 0.2, given y = 0.3 with noise 0.5.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from typing import Any

import jax
import numpy as np
from scipy import stats

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import score_sde as ss
from benchmarks import common
from score_sde import inverse
from score_sde.verify.posterior import Gaussian

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "inverse.md"

SDE = ss.VP()
COV = 0.25 * np.array([[1.0, 0.9, 0.6], [0.9, 1.0, 0.8], [0.6, 0.8, 1.0]])
NOISE, SEEN = 0.1, 2
GAUSSIAN = Gaussian(SDE, np.zeros(3), COV)
MODES = ss.GaussianMixture(SDE, [0.5, 0.5], [[-1.0], [1.0]], 0.2)
MODE_Y, MODE_NOISE = 0.3, 0.5


@dataclasses.dataclass(frozen=True)
class Method:
    """`Method` is a row of the table: a variance of `Posterior` or a sampler, with its grid.

    Attributes:
        name: the name in the table.
        variance: the variance of a `Posterior`, or None for a sampler of its own.
        sampler: function of (operator, noise_std); returns the sampler.
        grid: the time grid.
        clean: whether the measurement has no noise, as the method assumes.
        modes: whether the method is measured on the modes.
    """

    name: str
    variance: Any
    sampler: Any
    grid: Any
    clean: bool = False
    modes: bool = True


PULLED = [0]


def _count(rows: Any) -> None:
    PULLED[0] += int(rows)


class Counted(ss.Guide):
    """`Counted` counts the vector-Jacobian products of the denoiser, rows by rows."""

    def predict(self, x: Any, t: Any, cond: Any = None, *, keys: Any = None) -> ss.Prediction:
        @jax.custom_vjp
        def same(x: Any) -> Any:
            return x

        def back(_: Any, g: Any) -> Any:
            jax.debug.callback(_count, len(x))
            return (g,)

        same.defvjp(lambda x: (x, None), back)
        return self.denoiser.predict(same(x), t, cond)


def methods() -> list[Method]:
    """Return the rows of the table."""
    fine, walk = ss.time_grid.log_snr(SDE, 30), ss.time_grid.log_snr(SDE, 200)
    levels = ss.time_grid.uniform(SDE, 1000)
    rows = [
        Method(f"Posterior, {name}, Heun", variance, lambda operator, noise: ss.Heun(), fine)
        for name, variance in (
            ("Moments()", inverse.Moments()),
            ("Moments(1)", inverse.Moments(1)),
            ("RowSums()", inverse.RowSums()),
            ("Isotropic(0.5)", inverse.Isotropic(0.5)),
            ("Isotropic(1)", inverse.Isotropic(1.0)),
            ("Prior(true C)", inverse.Prior(COV)),
            ("Prior(0.25)", inverse.Prior(0.25)),
            ("Flat(1)", inverse.Flat(1.0)),
        )
    ]
    rows[5:6] = [dataclasses.replace(rows[5], modes=False)]

    def own(name: str, make: Any, grid: Any, **options: Any) -> Method:
        return Method(name, None, make, grid, **options)

    rows.insert(1, Method("Posterior, Moments(), Ancestral", inverse.Moments(), lambda o, n: ss.Ancestral(), walk))
    rows.append(Method("Posterior, None, Ancestral", inverse.Zero(), lambda o, n: ss.Ancestral(), levels))
    return [
        *rows,
        own("Particles(4)", lambda o, n: inverse.Particles(n, 4, operator=o), ss.time_grid.log_snr(SDE, 60)),
        own("Particles(16)", lambda o, n: inverse.Particles(n, 16, operator=o), ss.time_grid.log_snr(SDE, 60)),
        own("Particles(64)", lambda o, n: inverse.Particles(n, 64, operator=o), ss.time_grid.log_snr(SDE, 60)),
        own("DAPS()", lambda o, n: inverse.DAPS(n, operator=o), walk),
        own("DPS(0.3), as published", lambda o, n: inverse.DPS(0.3, operator=o), levels),
        own("DPS(1), as published", lambda o, n: inverse.DPS(1.0, operator=o), levels),
        own("Replacement, y without noise", lambda o, n: inverse.Replacement(), levels, clean=True, modes=False),
        own(
            "RePaint(10, 10), y without noise",
            lambda o, n: inverse.RePaint(resample=10, jump=10),
            ss.time_grid.uniform(SDE, 25),
            clean=True,
            modes=False,
        ),
        own(
            "RePaint(20, 1), y without noise",
            lambda o, n: inverse.RePaint(resample=20, jump=1),
            ss.time_grid.log_snr(SDE, 60),
            clean=True,
            modes=False,
        ),
    ]


def of_gaussian(method: Method, measurements: int, draws: int) -> dict[str, Any]:
    """Return the figures of a method on Gaussian data."""
    rng, noise = np.random.default_rng(0), 1e-6 if method.clean else NOISE
    truth = rng.multivariate_normal(np.zeros(3), COV, measurements)
    y = truth[:, :SEEN] + noise * rng.standard_normal((measurements, SEEN))
    gain = COV[:, :SEEN] @ np.linalg.inv(COV[:SEEN, :SEEN] + noise**2 * np.eye(SEEN))
    means, cov = y @ gain.T, COV - gain @ COV[:SEEN]
    n = measurements * draws
    if method.clean:
        cond = {"y": np.pad(y, ((0, 0), (0, 1))), "mask": np.broadcast_to(np.arange(3) < SEEN, (measurements, 3))}
    else:
        cond = {"y": y}
    cond = {name: np.repeat(value, draws, axis=0) for name, value in cond.items()}
    operator = inverse.Linear(np.eye(3)[:SEEN])
    denoiser = GAUSSIAN if method.variance is None else inverse.Posterior(GAUSSIAN, operator, noise, method.variance)
    options: dict[str, Any] = dict(seed=0, denoise=False)
    sampler = method.sampler(operator, noise)
    out = ss.sample(denoiser, sampler, method.grid, (3,), n=n, cond=cond, batch_size=n, **options)
    vjps = counted_vjps(method, operator, noise, {name: value[:1] for name, value in cond.items()})
    drawn = out.x.reshape(measurements, draws, 3).astype(float)
    errors = (drawn - means[:, None]) / np.sqrt(np.maximum(np.diag(cov), 1e-12))
    spread = np.sqrt(errors.var(axis=1, ddof=1).mean(axis=0))
    # The error of the mean is linear in y for data and operators like these; a fit has less noise than single means.
    design = np.column_stack([np.ones(measurements), y])
    fitted = design @ np.linalg.lstsq(design, errors.mean(axis=1), rcond=None)[0]
    bias = np.sqrt(np.maximum((fitted**2).mean(axis=0) - design.shape[1] * spread**2 / n, 0))
    ranks = (drawn[:, :, 2] < truth[:, None, 2]).sum(axis=1)
    counts = np.histogram(ranks, bins=np.linspace(-0.5, draws + 0.5, 8))[0]
    widths = np.histogram(np.arange(draws + 1), bins=np.linspace(-0.5, draws + 0.5, 8))[0]
    expected = measurements * widths / (draws + 1)
    return {
        "x1": None if method.clean else (spread[0], bias[0]),
        "x3": (spread[2], bias[2]),
        "coverage": float((np.abs(errors[:, :, 2]) < stats.norm.ppf(0.95)).mean()),
        "ranks": float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1)),
        "nfe": int(out.nfe[0]),
        "vjps": vjps,
    }


def counted_vjps(method: Method, operator: inverse.Operator, noise: float, cond: dict[str, Any]) -> int:
    """Return the number of vector-Jacobian products that one sample computes."""
    denoiser: ss.Denoiser = Counted(GAUSSIAN)
    if method.variance is not None:
        denoiser = inverse.Posterior(denoiser, operator, noise, method.variance)
    PULLED[0] = 0
    sampler = method.sampler(operator, noise)
    out = ss.sample(denoiser, sampler, method.grid, (3,), n=1, seed=0, cond=cond, denoise=False)
    jax.effects_barrier()
    # Where `sample` counts products, it traces each step twice, and a callback keeps the compiler from removing one.
    return PULLED[0] // (1 if out.vjps is None else 2)


def mode_probability(method: Method, n: int = 4000) -> float:
    """Return the share of samples at the mode at 1."""
    operator = inverse.Linear(np.eye(1))
    denoiser: ss.Denoiser = MODES
    if method.variance is not None:
        denoiser = inverse.Posterior(MODES, operator, MODE_NOISE, method.variance)
    sampler = method.sampler(operator, MODE_NOISE)
    cond = {"y": np.full((n, 1), MODE_Y)}
    x = ss.sample(denoiser, sampler, method.grid, (1,), n=n, seed=0, cond=cond, batch_size=1000).x
    return float((x > 0).mean())


def rows(measurements: int, draws: int, only: list[str]) -> list[str]:
    """Return the lines of the table, and print each one when it is measured."""
    density = stats.norm([-1.0, 1.0], np.hypot(0.2, MODE_NOISE)).pdf(MODE_Y)
    lines = [
        "| method | steps | nfe | vjps | x1 | x3 | coverage | ranks | modes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| exact posterior | | | | 1.00/0.00 | 1.00/0.00 | 0.900 | 1.0 | {density[1] / density.sum():.3f} |",
    ]
    print("\n".join(lines))
    for method in methods():
        if only and not any(text in method.name for text in only):
            continue
        found = of_gaussian(method, measurements, draws)
        cells = [
            method.name,
            str(len(method.grid) - 1),
            str(found["nfe"]),
            str(found["vjps"]),
            *("" if found[name] is None else "{:.2f}/{:.2f}".format(*found[name]) for name in ("x1", "x3")),
            f"{found['coverage']:.3f}",
            f"{found['ranks']:.1f}",
            f"{mode_probability(method):.3f}" if method.modes else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=400, help="measurements of the Gaussian data")
    parser.add_argument("--draws", type=int, default=20, help="draws for each measurement")
    parser.add_argument("--only", default="", help="only the rows whose names contain one of these texts")
    parser.add_argument("--write", action="store_true", help="write the table to docs/inverse.md")
    options = parser.parse_args()
    lines = rows(options.measurements, options.draws, [text for text in options.only.split(",") if text])
    print(common.machine())
    if options.write:
        common.write_section("posteriors", "\n".join([*lines, "", f"Measured on {common.machine()}."]), PAGE)


if __name__ == "__main__":
    main()
