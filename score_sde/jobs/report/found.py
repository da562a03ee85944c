"""This module reads the results, samples and pictures of a run from its workdir."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def results(workdir: pathlib.Path, name: str, step: int | None) -> list[tuple[pathlib.Path, dict[str, Any]]]:
    """Return the results NAME.json with their paths, of the checkpoint of `step`, or of all checkpoints for None."""
    found = []
    for path in sorted((workdir / "eval").glob(f"**/{name}.json")):
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and step in (None, content.get("checkpoint_step")):
            found.append((path, content))
    return found


def samples(workdir: pathlib.Path, step: int) -> tuple[pathlib.Path, dict[str, Any]] | None:
    """Return the folder and the identity of a checkpoint's samples; of several folders, the first in sorted order."""
    for path in sorted((workdir / "samples").glob("**/samples.json")):
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if (
            isinstance(content, dict)
            and content.get("checkpoint_step") == step
            and (path.parent / "samples.npz").exists()
        ):
            return path.parent, content
    return None


def pictures_by_step(workdir: pathlib.Path, most: int) -> dict[int, bytes]:
    """Return at most `most` pictures that training drew, spaced evenly over the steps: {step: PNG file}."""
    paths = {
        int(match[1]): path for path in (workdir / "samples").glob("step_*.png") if (match := _STEP.match(path.name))
    }
    steps = sorted(paths)
    chosen = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))]
    return {step: paths[step].read_bytes() for step in chosen}


_STEP = re.compile(r"step_(\d+)\.png$")


def curve(records: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return the steps at which a log has a value of this name, and the values."""
    points = [(record["step"], record[name]) for record in records if isinstance(record.get(name), int | float)]
    return [step for step, _ in points], [float(value) for _, value in points]


def seconds(records: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of all training steps, from the seconds per step between two records."""
    total, last = 0.0, 0
    for record in records:
        if "seconds_per_step" in record:
            total += record["seconds_per_step"] * (record["step"] - last)
            last = record["step"]
    return total
