"""This module measures the quality of a few samples while a model trains."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from score_sde import config as config_
from score_sde import metrics
from score_sde.core.errors import InputError
from score_sde.experiment import Experiment
from score_sde.jobs.actions import Drawing, Moment
from score_sde.jobs.generator import Generator
from score_sde.jobs.quality import Compared
from score_sde.jobs.quality.base import order_of
from score_sde.parallel import Jit, processes


def read_measures(settings: Any) -> tuple[Compared, ...]:
    """Return the metrics that config.train.measure names.

    Raises:
        InputError: for an unknown name or wrong settings, or for a metric that cannot be measured in training.
    """
    from score_sde.jobs import evaluations  # imported late: evaluations.py imports the package of the metrics

    specs = config_.read_specs("train.measure", settings.measure)
    found = tuple(config_.build(evaluations, spec, base=Compared) for spec in specs)
    names = [type(metric).name for metric in found]
    if len(set(names)) < len(names) or any(metric.of != "samples" for metric in found):
        raise InputError(f"train.measure is {settings.measure!r}; expected each metric once, of samples.")
    if settings.measure_every and not found:
        raise InputError("train.measure is empty; expected metrics such as 'Kernel(n=500)', or train.measure_every=0.")
    return found


class Measure(Drawing):
    """`Measure` draws samples with the first average, and logs their metrics with standard errors.

    The features of the real examples are computed once. The first process computes the features.
    """

    def __init__(
        self, every: int, experiment: Experiment, frozen: Mapping[str, Any], devices: Jit, generator: Generator
    ) -> None:
        super().__init__(every, experiment, frozen, devices, generator)
        self._measures = read_measures(experiment.config.train)
        if every and processes.is_first():  # wrong data, or missing weights, are an error before the first step
            self._real  # noqa: B018

    def run(self, at: Moment) -> None:
        drawn = self.drawn(at, max(metric.n for metric in self._measures), "metrics")
        if drawn is None or not processes.is_first():
            return
        record: dict[str, float] = {}
        for metric, real in zip(self._measures, self._real, strict=True):
            fake = self._features(metric, drawn[: metric.n])
            for name, value in metric.compare(real, fake).items():
                record |= {name: float(value), f"{name}_stderr": value.stderr}
        at.log.write(at.step, **record)

    @functools.cached_property
    def _real(self) -> list[np.ndarray]:
        """Return the features of the real examples for each metric."""
        found = []
        for metric in self._measures:
            source = self._experiment.dataset.source(metric.reference)
            examples = self._experiment.examples(metric.reference, source)
            values = examples.batch(order_of(examples)[: metric.n])["values"]
            found.append(self._features(metric, values))
        return found

    def _features(self, metric: Compared, values: np.ndarray) -> np.ndarray:
        size = self._experiment.config.eval.batch_size
        maximum = self._experiment.codec.maximum
        return metrics.extract(metric.network, values, maximum=maximum, batch_size=size)["features"]
