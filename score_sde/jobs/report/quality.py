"""This module adds the metrics of sample quality to a report, and states where their protocols differ."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from score_sde.jobs.report import found
from score_sde.jobs.report.page import Page

NAMES = (
    "kernel",
    "frechet",
    "fid",
    "sfid",
    "inception_score",
    "precision_recall",
    "density_coverage",
    "memorisation",
)
# Results are comparable if these entries agree; the checkpoint, the sampler and the seed are what one compares.
_PROTOCOL = (
    "features",
    "n",
    "reference",
    "split",
    "data",
    "data_train",
    "precision",
    "k",
    "parts",
    "blocks",
    "quantile",
)


def quality(page: Page, workdir: pathlib.Path, step: int) -> None:
    """Add one table for each metric that was measured for a checkpoint."""
    title = "Sample quality"
    for name in NAMES:
        results = found.results(workdir, name, step)
        if not results:
            continue
        if title:
            page.section(title)
            title = ""
        page.table(
            [(result["summary"], sampled(result), str(path.relative_to(workdir))) for path, result in results],
            (name.replace("_", " "), "samples", "file"),
        )
        differing = differences([result for _, result in results])
        if differing:
            page.text(f"These results differ in {', '.join(differing)}: they are not comparable.")
        page.details(f"Protocols of {name.replace('_', ' ')}", "\n".join(_protocol(*result) for result in results))


def sampled(result: Mapping[str, Any]) -> str:
    """Return sampler, steps and guidance of the samples of a result; the split if real examples were measured."""
    sample = result.get("sample")
    if not isinstance(sample, dict):
        return f"examples of {result.get('of', 'the data')}"
    sampler, grid = sample.get("sampler", {}), sample.get("grid", {})
    told = f"{sampler.get('name')}, {grid.get('n')} steps of {grid.get('name')}, seed {sample.get('seed')}"
    return told + (f", {sample['guidance']}" if sample.get("guidance") else "")


def differences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the entries of the protocol in which results differ, such as 'features.resize'."""
    flat: list[dict[str, str]] = []
    for result in results:
        entries: dict[str, str] = {}
        for name in _PROTOCOL:
            value = result.get(name)
            for part, entry in value.items() if isinstance(value, dict) else [("", value)]:
                entries[f"{name}.{part}".rstrip(".")] = json.dumps(entry, sort_keys=True)
        flat.append(entries)
    names = sorted({name for entries in flat for name in entries})
    return [name for name in names if len({entries.get(name) for entries in flat}) > 1]


def _protocol(path: pathlib.Path, result: Mapping[str, Any]) -> str:
    kept = {name: result[name] for name in ("checkpoint_step", "checkpoint_digest", *_PROTOCOL) if name in result}
    return f"{path.name}: {json.dumps(kept)}"
