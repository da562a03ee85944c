"""This module defines the sections of a report; each section is a function of the page and the subject."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from score_sde import config as config_
from score_sde import data, plots
from score_sde.core.machine import machine
from score_sde.core.progress import in_words
from score_sde.experiment import Experiment, Model
from score_sde.jobs.log import MACHINES, read_records
from score_sde.jobs.report import drawings, found, quality
from score_sde.jobs.report.neighbours import nearest
from score_sde.jobs.report.page import Page
from score_sde.jobs.report.trajectories import trajectories
from score_sde.losses import Trained

_GRID, _COLUMNS = 64, 8  # pictures and columns of a grid
_OVER_TRAINING = 6
_NEIGHBOURS = 8  # samples that are shown with their neighbours
_COMPARED = 256  # samples and held-out examples whose distances are compared


@dataclasses.dataclass(frozen=True)
class Subject:
    """`Subject` holds the run that is reported.

    Attributes:
        experiment: the experiment built from the config.
        workdir: the workdir.
        trained: the newest checkpoint.
        model: the object that the objective makes from the checkpoint.
        draws: whether samples may be drawn.
    """

    experiment: Experiment
    workdir: pathlib.Path
    trained: Trained
    model: Any
    draws: bool

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """Return the log of the training."""
        return read_records(self.workdir / "train.jsonl")

    @functools.cached_property
    def train(self) -> data.Examples:
        return self.experiment.examples("train")

    @functools.cached_property
    def test(self) -> data.Examples:
        return self.experiment.examples("test")

    @functools.cached_property
    def samples(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Return at most 1,000 samples of the checkpoint and their identity; None if there are no samples."""
        there = found.samples(self.workdir, self.trained.step)
        if there is None:
            return None
        with np.load(there[0] / "samples.npz") as arrays:
            name = "images" if "images" in arrays else "points"
            return arrays[name][:1000], there[1]

    @property
    def of(self) -> str:
        """Return the checkpoint in words."""
        return f"step {self.trained.step}, checkpoint {self.trained.digest or 'without a digest'}"

    def picture(self, examples: np.ndarray, columns: int | None = None) -> np.ndarray:
        """Return examples as a picture."""
        maximum = self.experiment.codec.maximum
        if examples.ndim != 4 or maximum is None or columns is None:
            return plots.picture(examples, maximum)
        return plots.image_grid(examples, maximum, columns=columns)


def what_was_run(page: Page, at: Subject) -> None:
    """Add the config in words, the machines, and the whole config, which is hidden at first."""
    config, experiment = at.experiment.config, at.experiment
    leaves = jax.tree.leaves(at.trained.params)
    parameters = sum(math.prod(np.shape(leaf)) for leaf in leaves)
    objective = {name: value for name, value in config_.to_dict(config.objective).items() if name != "name"}
    page.table(
        [
            ("data", f"{config.data.name}, examples of shape {experiment.codec.data_shape}"),
            ("SDE", _told(config.sde)),
            ("parametrisation", _told(config.parametrization)),
            ("network", f"{_told(config.network)}: {parameters:,} parameters"),
            ("objective", f"{config.objective.name}: {', '.join(f'{k}={v}' for k, v in objective.items())}"),
            ("training", f"{config.train.steps:,} steps of {config.data.batch_size} examples, seed {config.seed}"),
            ("shown", f"{at.of}, average: {next(iter(sorted(config.averages)), 'none')}"),
            *(("trained on", told) for told in _machines(at)),
            ("report written on", machine()),
        ]
    )
    page.details("the whole config", config_.to_json(config))


def _machines(at: Subject) -> list[str]:
    """Return the machines that trained; each with its first step if there are several machines."""
    records = read_records(at.workdir / MACHINES)
    named = [record for record in records if isinstance(record.get("machine"), str)]
    changes = [record for i, record in enumerate(named) if i == 0 or record["machine"] != named[i - 1]["machine"]]
    several = len(changes) > 1
    return [record["machine"] + f" (from step {record['step']})" * several for record in changes]


def the_data(page: Page, at: Subject) -> None:
    """Add the number of examples and the description that the data set gives."""
    page.section("Data")
    page.text(f"{len(at.train):,} examples for training, {len(at.test):,} held out.")
    lines = at.experiment.dataset.lines()
    if lines:
        page.details("description of the data", "\n".join(lines))


def losses(page: Page, at: Subject) -> None:
    """Add the loss and the held-out loss over the steps, and the held-out loss over the noise levels."""
    page.section("Loss")
    lines = {
        told: found.curve(at.records, name) for told, name in (("loss", "loss"), ("held-out loss", "heldout_loss"))
    }
    lines = {name: line for name, line in lines.items() if line[0]}
    if not lines:
        page.text("The workdir has no training log.")
    else:
        last = ", ".join(f"{name} {ys[-1]:.4g} at step {xs[-1]}" for name, (xs, ys) in lines.items())
        page.plot(
            drawings.curves(lines, "step", "loss"),
            f"{last}; from train.jsonl; loss is averaged over the steps since the previous record",
        )
    norms = found.curve(at.records, "gradient_norm")
    if norms[0]:
        page.plot(drawings.curves({"gradient norm": norms}, "step", "norm"), "before clipping; from train.jsonl")
    for path, result in found.results(at.workdir, "loss_per_level", at.trained.step):
        line = {"held-out loss": (result["log_snr"], result["loss"])}
        page.plot(
            drawings.curves(line, "log signal-to-noise ratio", "loss", yscale="linear"),
            f"at {len(result['t'])} noise levels, {result.get('n', '?')} examples each; {_of(at, path, result)}",
        )


def over_training(page: Page, at: Subject) -> None:
    """Add samples of the same seed at several steps."""
    drawn = found.pictures_by_step(at.workdir, _OVER_TRAINING)
    if drawn:
        page.section("Samples over training")
        page.text(f"All samples have the seed {at.experiment.config.sample.seed} and use averaged weights.")
        page.pictures({f"step {step}": picture for step, picture in drawn.items()})


def samples_and_data(page: Page, at: Subject) -> None:
    """Add final samples beside held-out examples."""
    page.section("Samples beside data")
    if at.samples is None:
        page.text("This checkpoint has no samples: --mode=sample draws samples.")
        return
    values, of = at.samples
    n = min(_GRID, len(values), len(at.test))
    real = at.test.batch(np.arange(n))["values"]
    page.pictures({"samples": at.picture(values[:n], _COLUMNS), "held-out data": at.picture(real, _COLUMNS)})
    settings = {name: of[name] for name in ("sampler", "grid", "seed", "guidance", "cond", "clip", "n") if name in of}
    page.text("", f"samples 0 to {n - 1} of {at.of}; {', '.join(f'{k}={v}' for k, v in settings.items())}")


def paths(page: Page, at: Subject) -> None:
    """Add the states from noise to samples, and the model's estimate of the data at each state."""
    if not (at.draws and isinstance(at.model, Model)):
        return
    page.section("Denoising")
    shown = trajectories(at.experiment, at.model, at.workdir)
    told = ", ".join(f"{t:.3g}" for t in shown.times)
    columns = len(shown.times)
    flat = {
        "x_t, scaled to the standard deviation of data": shown.states,
        "E[x_0 | x_t], the mean of the data given x_t": shown.means,
    }
    if len(at.experiment.codec.data_shape) == 3:
        page.pictures({name: at.picture(v.reshape(-1, *v.shape[2:]), columns) for name, v in flat.items()})
    else:
        page.pictures({f"x_t at t = {t:.3g}": at.picture(shown.states[:, i]) for i, t in enumerate(shown.times)})
    page.text("", f"samples 0 to {len(shown.states) - 1} of {at.of}, at the times {told}; sampler {shown.sampler}")


def memory(page: Page, at: Subject) -> None:
    """Add the nearest training examples of samples, which show whether the model memorises."""
    if at.samples is None:
        return
    page.section("Nearest training examples")
    values = at.samples[0]
    close = nearest(values[:_COMPARED], at.train, 3)
    held_out = at.test.batch(np.arange(min(_COMPARED, len(at.test))))["values"]
    usual = nearest(held_out, at.train, 1)
    ours, theirs = float(np.median(close.distances[:, 0])), float(np.median(usual.distances[:, 0]))
    copies = int((close.distances[:, 0] < 0.5 * usual.distances[:, 0].min()).sum())
    page.number(
        f"{ours / theirs:.2f}" if theirs else "-",
        f"median distance of samples to their nearest training example ({ours:.3g}), divided by that of held-out "
        f"examples ({theirs:.3g}). Near 1 or above, samples are no closer to training examples than new data are. The "
        "distance is the root mean square difference on the data's own scale. Compared: "
        f"{len(close.distances)} samples and {len(usual.distances)} held-out examples with {close.searched:,} of "
        f"{close.of:,} training examples. For {copies} samples the distance is less than half of the smallest "
        "distance of a held-out example.",
    )
    page.plot(
        drawings.histogram({"samples": close.distances[:, 0], "held-out": usual.distances[:, 0]}, "distance", "count"),
        "distance to the nearest training example",
    )
    if len(at.experiment.codec.data_shape) == 3:
        n = min(_NEIGHBOURS, len(values))
        rows = [np.concatenate([values[i : i + 1], at.train.batch(close.numbers[i])["values"]]) for i in range(n)]
        columns = 1 + close.numbers.shape[1]
        page.pictures({"a sample, and its nearest training examples": at.picture(np.concatenate(rows), columns)})


def bits(page: Page, at: Subject) -> None:
    """Add the bits per dimension with their terms, and the held-out loss."""
    for path, result in found.results(at.workdir, "likelihood", at.trained.step):
        page.section("Bits per dimension")
        page.number(
            f"{result['bits_per_dim']:.4f} ± {result['stderr']:.4f} bits/dim",
            f"{result['is']}; mean and standard error over {result['n']} held-out examples; {_of(at, path, result)}",
        )
        parts = [
            (f"error from {name}", f"± {value:.4g} bits/dim")
            for name, value in result["stderr_parts"].items()
            if value is not None
        ]
        terms = [(f"{name}, bits/dim", f"{value:.5g}") for name, value in result["terms"].items()]
        page.table([*parts, *terms, ("evaluations per example", f"{result['nfe']:.0f}, at most {result['nfe_max']}")])
        archive = path.parent / "likelihood.npz"
        if archive.exists():
            with np.load(archive) as arrays:
                each = arrays["bits_per_dim"]
            page.plot(drawings.histogram({"examples": each}, "bits/dim", "examples"), f"each example; {archive.name}")
    for path, result in found.results(at.workdir, "loss", at.trained.step):
        page.text(f"Held-out loss {result['loss']:.4f} ± {result['stderr'] or 0:.4f}.", _of(at, path, result))


def metrics(page: Page, at: Subject) -> None:
    """Add the metrics of sample quality."""
    quality.quality(page, at.workdir, at.trained.step)


def times(page: Page, at: Subject) -> None:
    """Add the seconds of training, evaluation and sampling."""
    page.section("Seconds")
    rows = []
    spent = found.seconds(at.records)
    if spent:
        per_step = found.curve(at.records, "seconds_per_step")[1]
        rows.append(("training steps", in_words(spent), f"{np.median(per_step):.3g} s per step, from train.jsonl"))
    for name in ("likelihood", "loss", "loss_per_level"):
        for path, result in found.results(at.workdir, name, at.trained.step):
            rows.append((name, in_words(result["seconds"]), str(path.relative_to(at.workdir))))
    there = found.samples(at.workdir, at.trained.step)
    if there is not None and "seconds" in there[1]:
        rows.append(("samples", in_words(there[1]["seconds"]), f"{there[1]['n']} samples"))
    page.table(rows) if rows else page.text("Nothing was timed.")


ALL: tuple[Callable[[Page, Subject], None], ...] = (
    what_was_run,
    the_data,
    losses,
    over_training,
    samples_and_data,
    paths,
    memory,
    metrics,
    bits,
    times,
)


def _told(spec: Any) -> str:
    entries = config_.to_dict(spec)
    return f"{entries.pop('name')}({', '.join(f'{name}={value}' for name, value in entries.items())})"


def _of(at: Subject, path: pathlib.Path, result: dict[str, Any]) -> str:
    """Return the file of a result, and what the result was computed from."""
    known = (
        "checkpoint_step",
        "checkpoint_digest",
        "split",
        "data",
        "seed",
        "probes",
        "rtol",
        "atol",
        "draws",
        "precision",
    )
    told = ", ".join(f"{name} {result[name]}" for name in known if name in result)
    return f"{path.relative_to(at.workdir)}: {told}"
