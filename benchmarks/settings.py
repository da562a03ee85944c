"""This benchmark compares the settings of sampling on trained digits, and writes a table of docs/samplers.md.

python benchmarks/settings.py --runs RUN [RUN ...] [--n=1000] [--write]

Each run is a workdir of configs/digits.py. A row has the energy distance of n samples from all images, on pixels from 0
to 1, and the share of samples for which a support vector machine, trained on the real digits, is more than 90 % sure.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import score_sde as ss
from benchmarks.common import energy_distance, machine, write_section
from benchmarks.quality import in_markdown
from score_sde.sampling import time_grid

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "samplers.md"
SETTINGS = {
    "Ancestral()": (ss.Ancestral(), (("default", 250), ("log_snr", 100))),
    "Heun()": (ss.Heun(), (("default", 40),)),
    "UniPC()": (ss.UniPC(), (("log_snr", 10), ("log_snr", 25))),
    "DPMSolverPP(eta=1)": (ss.DPMSolverPP(eta=1.0), (("log_snr", 25),)),
    "SASolver(2)": (ss.SASolver(2), (("log_snr", 10), ("log_snr", 25), ("log_snr", 50))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--n", type=int, default=1000, help="samples of a row")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    head = ["model", "sampler", "grid", "evaluations", "1,000 x energy distance", "sure of", "seconds"]
    rows, n = [head, ["---"] * len(head)], options.n
    digits = load_digits()
    images = digits.data / 16
    judge = SVC(C=10, gamma=0.001, probability=True, random_state=0).fit(digits.data, digits.target)
    for run in options.runs:
        model = ss.load(run)
        name = type(model.denoiser.sde).__name__
        for label, (sampler, grids) in SETTINGS.items():
            for grid, steps in grids:
                times = getattr(time_grid, grid)(model.denoiser.sde, steps)
                began = time.perf_counter()
                drawn = model.sample(n, seed=1, sampler=sampler, grid=times)
                seconds = time.perf_counter() - began
                x = np.asarray(drawn.x, float).reshape(n, -1) / model.codec.maximum
                distance = energy_distance(x, images)
                sure = float((judge.predict_proba(16 * x).max(axis=1) > 0.9).mean())
                shown = f"{distance:.1f}", f"{100 * sure:.0f} %", f"{seconds:.0f}"
                rows.append([name, f"`{label}`", f"{grid}, {steps} steps", str(int(drawn.nfe[0])), *shown])
                print(rows[-1], flush=True)
    text = f"{in_markdown(rows)}\n\n{n} samples, with compiling, on {machine()}."
    print(text)
    if options.write:
        write_section("settings digits", text, PAGE)


if __name__ == "__main__":
    main()
