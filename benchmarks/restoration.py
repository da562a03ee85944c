"""This benchmark measures restored Fashion-MNIST images by method, and writes the table of docs/inverse.md.

python benchmarks/restoration.py --workdir=runs/fashion [--n=200] [--draws=16] [--only=box,Flat] [--write]

Each row is the evaluation `Restoration` of one run of the command line, which reuses existing results of the workdir.
The workdir needs a classifier: score-sde --workdir=runs/fashion --mode=classifier.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.common import machine, write_section
from benchmarks.quality import evaluated, in_markdown

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "inverse.md"
TASKS = {
    "box": ("the central quarter is hidden", "operator=Mask(), mask='box'"),
    "half": ("means of 2 x 2 pixels", "operator=Downsample(factor=2)"),
}
# (task, method, steps)
SETTINGS = (
    ("box", "Posterior(variance=Moments(iterations=1))", 10),
    ("box", "Posterior(variance=RowSums())", 10),
    ("box", "Posterior(variance=Isotropic(data_std=0.7))", 10),
    ("box", "Posterior(variance=Flat())", 10),
    ("box", "Replacement", 50),
    ("box", "DPS(zeta=0.5)", 50),
    ("half", "Posterior(variance=Moments(iterations=1))", 10),
    ("half", "Posterior(variance=RowSums())", 10),
    ("half", "Posterior(variance=Flat())", 10),
    ("half", "Replacement", 50),
    ("half", "DPS(zeta=0.3)", 50),
)
COLUMNS = (
    "task",
    "method",
    "nfe",
    "vjps",
    "PSNR, draw",
    "PSNR, mean",
    "SSIM, draw",
    "SSIM, mean",
    "distance, draw",
    "distance, mean",
    "coverage",
    "spread",
    "residual",
)


def row(workdir: pathlib.Path, setting: tuple[str, str, int], n: int, draws: int) -> list[str]:
    """Run the evaluation of one row, and return its cells."""
    task, method, steps = setting
    features = f"\"Classifier(weights='{workdir / 'classifier.npz'}')\""
    what = (
        f"Restoration({TASKS[task][1]}, noise_std=0.05, method='{method}', steps={steps}, n={n}, draws={draws}, "
        f"features={features})"
    )
    found: dict[str, Any]
    (found,) = evaluated(workdir, [f"--config.eval.what={what}", "--config.eval.batch_size=400"])

    def shown(name: str, digits: int) -> str:
        return f"{found[name]:.{digits}f} ± {found[name + '_stderr']:.{digits}f}"

    return [
        TASKS[task][0],
        f"`{method}`, {steps} steps",
        f"{found['nfe']:.0f}",
        f"{found.get('vjps', 0):.0f}",
        *(shown(name, 2) for name in ("psnr_draw", "psnr_mean")),
        *(shown(name, 3) for name in ("ssim_draw", "ssim_mean")),
        *(shown(name, 1) for name in ("distance_draw", "distance_mean")),
        shown("coverage", 3),
        f"{found['spread']:.2f}",
        f"{found['residual']:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/fashion"))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--only", default="", help="only the rows that contain one of these texts")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    only = [text for text in options.only.split(",") if text]
    wanted = [one for one in SETTINGS if not only or any(text in " ".join(map(str, one)) for text in only)]
    rows = [row(options.workdir.resolve(), one, options.n, options.draws) for one in wanted]
    table = in_markdown([list(COLUMNS), ["---"] * len(COLUMNS), *rows])
    print(table, machine(), sep="\n\n")
    if options.write:
        calibrated = (options.draws - 1) / (options.draws + 1)
        remark = (
            f"{options.n} test images, {options.draws} draws each; a calibrated method has coverage {calibrated:.3f}."
        )
        write_section("restoration", f"{table}\n\n{remark} Measured on {machine()}.", PAGE)


if __name__ == "__main__":
    main()
