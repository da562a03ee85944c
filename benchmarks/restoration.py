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

import numpy as np
from PIL import Image

import score_sde as ss
from benchmarks.common import machine, write_section
from benchmarks.quality import evaluated, in_markdown
from score_sde.data.base import read
from score_sde.experiment import Experiment

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


def picture(workdir: pathlib.Path, images: int = 5, draws: int = 6) -> None:
    """Write docs/inverse.png: the image, what is measured, draws of the posterior, their mean and their spread."""
    model = ss.load(workdir)
    source = Experiment.from_config(model.config).dataset.source("test")
    truth = read(source, np.arange(images))["values"]
    x = np.asarray(model.codec.encode(truth, None)[0])
    hidden = np.zeros((1, 28, 28, 1), bool)
    hidden[:, 7:21, 7:21] = True
    mask = np.broadcast_to(~hidden, x.shape)
    y = np.where(mask, x + 0.05 * np.random.default_rng(0).standard_normal(x.shape), 0)
    drawn = model.sample(
        images * draws,
        guidance="Posterior(operator=Mask(), noise_std=0.05, variance=Moments(iterations=1))",
        y=np.repeat(y, draws, axis=0),
        mask=np.repeat(mask, draws, axis=0),
        grid=ss.time_grid.log_snr(model.denoiser.sde, 20),
    ).x.reshape(images, draws, 28, 28)
    seen = np.asarray(model.codec.quantize(model.codec.decode(y)))[..., 0]
    shown = [truth[..., 0], seen, *drawn.transpose(1, 0, 2, 3), drawn.mean(axis=1), 2 * drawn.std(axis=1)]
    rows = np.stack(shown, axis=1).clip(0, 255).astype(np.uint8)
    sheet = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    sheet = sheet.transpose(0, 2, 1, 3).reshape(images * 30, -1)
    Image.fromarray(sheet.repeat(2, axis=0).repeat(2, axis=1)).save(PAGE.with_suffix(".png"), optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/fashion"))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--only", default="", help="only the rows that contain one of these texts")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", action="store_true", help="only write docs/inverse.png")
    options = parser.parse_args()
    if options.picture:
        picture(options.workdir.resolve())
        return
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
