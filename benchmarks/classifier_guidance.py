"""This benchmark measures classifier guidance on the digits, and writes two tables of docs/guidance.md.

python benchmarks/classifier_guidance.py --workdir=runs/digits --classifier=runs/digits_classifier [--n=1000] [--write]

The workdir has an unconditional model (--config=digits), the other one a classifier (--config=digits:classifier) with
its evaluation AccuracyPerLevel. The judge of the samples is a support vector machine, trained on the real training
digits. Spread is the mean variance of a pixel within a class, divided by that of the test digits.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np
from sklearn.svm import SVC

import score_sde as ss
from benchmarks.common import machine, write_section
from benchmarks.quality import in_markdown
from score_sde import plots
from score_sde.data.base import read
from score_sde.experiment import Experiment

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "guidance.md"
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
SHOWN = 11  # noise levels of the table


def real(split: str, config: object) -> tuple[np.ndarray, np.ndarray]:
    """Return the flattened images and the labels of a split."""
    source = Experiment.from_config(config).dataset.source(split)  # type: ignore[arg-type]
    examples = read(source, np.arange(len(source)))
    return examples["values"].reshape(len(source), -1).astype(float), np.asarray(examples["label"])


def within(values: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean variance of a pixel within a class."""
    return float(np.mean([values[labels == label].var(axis=0, ddof=1).mean() for label in np.unique(labels)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/digits"))
    parser.add_argument("--classifier", type=pathlib.Path, default=pathlib.Path("runs/digits_classifier"))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", type=pathlib.Path, help="write the samples of weight 2, ten for each class, here")
    options = parser.parse_args()
    model = ss.load(options.workdir)
    (train, train_labels), (test, test_labels) = (real(split, model.config) for split in ("train", "test"))
    judge = SVC().fit(train, train_labels)
    right = float(np.mean(judge.predict(test) == test_labels))
    rows = [["weight", "labels as asked", "spread"], ["---"] * 3]
    asked = np.arange(options.n) % 10
    for weight in WEIGHTS:
        guidance = f"ClassifierGuided(workdir={str(options.classifier)!r}, weight={weight})"
        drawn = model.sample(options.n, guidance=guidance).x
        values = drawn.reshape(options.n, -1).astype(float)
        share = float(np.mean(judge.predict(values) == asked))
        error = math.sqrt(share * (1 - share) / options.n)
        rows.append(
            [f"{weight:g}", f"{share:.3f} ± {error:.3f}", f"{within(values, asked) / within(test, test_labels):.2f}"]
        )
        print(rows[-1], flush=True)
        if options.picture and weight == 2:
            plots.save_png(options.picture, plots.picture(drawn[:100], model.codec.maximum))
    found = json.loads((options.classifier / "eval" / "accuracy_per_level.json").read_text())
    levels = [["sigma / alpha", "accuracy", "cross-entropy, nats"], ["---"] * 3]
    for i in np.linspace(0, len(found["log_snr"]) - 1, SHOWN).astype(int):
        level = math.exp(-found["log_snr"][i] / 2)
        accuracy = f"{found['accuracy'][i]:.3f} ± {found['stderr'][i]:.3f}"
        levels.append([f"{level:.3g}", accuracy, f"{found['cross_entropy'][i]:.3f}"])
    where = f"Measured on {machine()}."
    table, of_levels = in_markdown(rows), in_markdown(levels)
    remark = (
        f"{options.n} samples for each weight, Heun, 40 steps. The judge is right on {right:.3f} of the test digits."
    )
    print(table, of_levels, remark, where, sep="\n\n")
    if options.write:
        write_section("classifier guidance", f"{table}\n\n{remark} {where}", PAGE)
        write_section("classifier accuracy", f"{of_levels}\n\n{found['n']} test digits. {where}", PAGE)


if __name__ == "__main__":
    main()
