"""This benchmark makes the pictures of docs/editing.md, and measures the seams of painted parts.

python benchmarks/editing.py --workdir=runs/fashion --colour=runs/colour [--n=200] [--write] [--pictures]

The workdir has a class-conditional model of Fashion-MNIST (--config=fashion_mnist). The other one has a model of
coloured digits, which the script trains if the folder is missing. A seam is the mean absolute difference of two
neighbouring pixels, one inside and one outside of the painted part, in units of the largest pixel value.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np

import score_sde as ss
from benchmarks.common import machine, write_section
from benchmarks.quality import in_markdown
from score_sde import plots
from score_sde.data.base import read
from score_sde.editing.region import filled
from score_sde.experiment import Experiment

DOCS = pathlib.Path(__file__).parent.parent / "docs"
BOX = (7, 7, 21, 21)  # left, top, right, bottom
METHODS = ("Posterior(variance=Moments(iterations=1))", "Posterior(variance=Flat())", "Replacement")


def test_images(model: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first n test images and their classes."""
    examples = read(Experiment.from_config(model.config).dataset.source("test"), np.arange(n))
    return examples["values"], examples["label"]


def coloured(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return grey images of 17 levels, each in one random colour, uint8 (n, height, width, 3)."""
    hue = 2 * np.pi * np.random.default_rng(seed).random((len(images), 1))
    colour = 0.5 + 0.5 * np.cos(hue - 2 * np.pi * np.arange(3) / 3)
    colour = 0.15 + 0.85 * colour / colour.max(axis=1, keepdims=True)
    return np.round(images / 16 * 255 * colour[:, None, None]).astype(np.uint8)


def colour_model(workdir: pathlib.Path) -> Any:
    """Return the model of coloured digits; train it if the workdir is missing."""
    if not (workdir / "config.json").exists():
        train = ss.data.all_examples(ss.data.Digits().source("train"))["values"]
        ss.fit(np.concatenate([coloured(train, seed) for seed in range(4)]), steps=3000).save(workdir)
    return ss.load(workdir)


def save(name: str, edited: list[ss.editing.Edited]) -> None:
    """Write the comparisons of some pictures below each other."""
    rows = [one.comparison() for one in edited]
    plots.save_png(DOCS / f"editing_{name}.png", np.concatenate(rows))
    print(name, edited[0].about, flush=True)


def pictures(model: Any, colour: Any) -> None:
    """Write one picture for each edit."""
    images, labels = test_images(model, 60)
    boot, pullover, trousers = (images[np.flatnonzero(labels == label)[0]] for label in (9, 2, 1))
    bag, coat = (images[np.flatnonzero(labels == label)[0]] for label in (8, 4))
    edit = ss.editing
    save("inpaint", model.edit([boot, pullover], edit.Inpaint(mask=BOX), n=5))
    scene = np.zeros((84, 112, 1), np.uint8)
    for place, picture in (((10, 8), bag), ((40, 40), boot), ((6, 76), trousers)):
        scene[place[0] : place[0] + 28, place[1] : place[1] + 28] = picture
    save("masked", [model.edit(scene, edit.Inpaint(mask=(48, 44, 60, 60), area="masked", padding=8), n=5)])
    panorama = edit.Outpaint(left=20, right=20, overlap=0.4)
    save("outpaint", model.edit([pullover, boot], panorama, n=3))
    strengths = [model.edit(coat, edit.ImageToImage(strength=s), n=5) for s in (0.25, 0.5, 0.75)]
    save("strength", strengths)
    guidance = "ClassifierFree(weight=2.5)"
    save("class", [model.edit(pullover, edit.ChangeClass(label=label), n=5, guidance=guidance) for label in (0, 8)])
    small = np.asarray(np.round(np.stack([boot, coat]).reshape(2, 14, 2, 14, 2, 1).mean(axis=(2, 4))), np.uint8)
    save("enlarge", model.edit(list(small), edit.SuperResolve(factor=2), n=5))
    blurred = np.asarray(ss.inverse.Blur(1.0)(np.stack([boot, coat]).astype(float)))
    save("deblur", model.edit(list(np.round(blurred).astype(np.uint8)), edit.Deblur(std=1.0), n=5))
    save("sharpen", model.edit(list(np.round(blurred).astype(np.uint8)), edit.Sharpen(factor=2), n=5))
    test = ss.data.all_examples(ss.data.Digits().source("test"))["values"][:3]
    save("colour", colour.edit(coloured(test, seed=9), edit.Colourise(), n=5))


def across(images: np.ndarray) -> np.ndarray:
    """Return the absolute differences across the border of the box for each image, (n, pairs), as shares of white."""
    left, top, right, bottom = BOX
    x = images[..., 0].astype(float) / 255
    pairs = [
        x[:, top:bottom, left] - x[:, top:bottom, left - 1],
        x[:, top:bottom, right - 1] - x[:, top:bottom, right],
        x[:, top, left:right] - x[:, top - 1, left:right],
        x[:, bottom - 1, left:right] - x[:, bottom, left:right],
    ]
    return np.abs(np.concatenate(pairs, axis=1))


def seams(model: Any, n: int) -> list[list[str]]:
    """Return the rows of the table of seams."""
    images, _ = test_images(model, n)
    real = across(images).mean(axis=1)
    known = np.ones(images.shape[1:3], bool)
    left, top, right, bottom = BOX
    known[top:bottom, left:right] = False
    blurred = np.stack([filled(image, known) for image in images])
    other = np.where(known[..., None], images, np.roll(images, 1, axis=0))
    rows = [["painted by", "seam", "divided by that of real images"], ["---"] * 3]

    def add(name: str, seam: np.ndarray) -> None:
        error = seam.std(ddof=1) / np.sqrt(n)
        rows.append([name, f"{seam.mean():.4f} ± {error:.4f}", f"{seam.mean() / real.mean():.2f}"])
        print(rows[-1], flush=True)

    add("nothing (real images)", real)
    for method in METHODS:
        edited = model.edit(images, ss.editing.Inpaint(mask=BOX, method=method), n=1)
        add(f"`{method}`", across(np.stack([one.answers[0] for one in edited])).mean(axis=1))
    add("the same part of another image", across(other).mean(axis=1))
    add("means of known pixels (`fill`, no model)", across(blurred).mean(axis=1))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/fashion"))
    parser.add_argument("--colour", type=pathlib.Path, default=pathlib.Path("runs/colour"))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--pictures", action="store_true", help="only write the pictures")
    options = parser.parse_args()
    model = ss.load(options.workdir)
    if options.pictures:
        pictures(model, colour_model(options.colour))
        return
    table = in_markdown(seams(model, options.n))
    remark = f"{options.n} test images, one answer each, 40 steps of Heun's method (Ancestral in Replacement)."
    print(table, remark, machine(), sep="\n\n")
    if options.write:
        write_section("seams", f"{table}\n\n{remark} Measured on {machine()}.", DOCS / "editing.md")


if __name__ == "__main__":
    main()
