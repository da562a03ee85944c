"""This benchmark compares diffusion without Gaussian noise with VP on digits, for a table of docs/nongaussian.md.

python benchmarks/nongaussian.py --naive=RUN --one_step=RUN --cold=RUN --vp=RUN [--write]

The four runs are workdirs of configs/digits.py with these words. Each row has the energy distance of n samples from all
images of the data set, on pixels from 0 to 1, the evaluations of a sample, and the seconds of the n samples after
compiling. The last row compares two halves of the data.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np

import score_sde as ss
from benchmarks.common import energy_distance, machine, write_section
from benchmarks.quality import in_markdown
from benchmarks.variances import examples
from score_sde import nongaussian

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "nongaussian.md"


def row(what: str, model: ss.Model, sampler: ss.Sampler, grid: np.ndarray, real: np.ndarray, n: int) -> list[str]:
    """Return a row of the table."""
    model.sample(min(n, 256), seed=2, sampler=sampler, grid=grid)
    began = time.perf_counter()
    drawn = model.sample(n, seed=1, sampler=sampler, grid=grid)
    seconds = time.perf_counter() - began
    distance = energy_distance(np.asarray(drawn.x, float).reshape(n, -1) / model.codec.maximum, real)
    made = [what, str(int(drawn.nfe[0])), f"{distance:.1f}", f"{seconds:.2f}"]
    print(made, flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for word in ("naive", "one_step", "cold", "vp"):
        parser.add_argument(f"--{word}", type=pathlib.Path, required=True)
    parser.add_argument("--n", type=int, default=1000, help="samples of a row")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    naive, one_step, cold, vp = (ss.load(getattr(options, word)) for word in ("naive", "one_step", "cold", "vp"))
    parts = [examples(vp, part, count)[0] for part, count in (("train", 1500), ("test", 297))]
    real = np.concatenate([np.asarray(part, float).reshape(len(part), -1) for part in parts]) / vp.codec.maximum
    n, sde, levels = options.n, vp.denoiser.sde, nongaussian.PixelNoise(64)
    rows = [
        row("VP, `SASolver(2)` on log-SNR", vp, ss.SASolver(2), ss.time_grid.log_snr(sde, 50), real, n),
        row("VP, `UniPC` on log-SNR", vp, ss.UniPC(), ss.time_grid.log_snr(sde, 19), real, n),
        row("algorithm 1, `Stepwise()`", one_step, nongaussian.Stepwise(), nongaussian.every(levels, 1), real, n),
    ]
    for k in (1, 2, 4, 8, 16, 32):
        grid = nongaussian.every(levels, k)
        rows.append(row(f"algorithm 2, `Renoise()`, K = {k}", naive, nongaussian.Renoise(), grid, real, n))
    for what, sampler in (("", nongaussian.Cold()), (", naive", nongaussian.Cold(improved=False))):
        rows += [
            row(f"cold, blur{what}, {steps} steps", cold, sampler, np.linspace(1, 0, steps + 1), real, n)
            for steps in (5, 20, 64)
        ]
    mixed = np.random.default_rng(0).permutation(len(real))
    floor = energy_distance(real[mixed[::2]], real[mixed[1::2]])
    rows.append(["half of the data against the other half", "", f"{floor:.1f}", ""])
    head = ["model and sampler", "evaluations", "1,000 x energy distance", f"seconds of {n} samples"]
    text = f"{in_markdown([head, ['---'] * 4, *rows])}\n\nMeasured on {machine()}."
    print(text)
    if options.write:
        write_section("nongaussian digits", text, PAGE)


if __name__ == "__main__":
    main()
