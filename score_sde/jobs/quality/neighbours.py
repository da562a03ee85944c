"""This module defines the evaluations that compare neighbours: precision, recall, density, coverage, memorisation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from score_sde import metrics
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.jobs.evaluation import Context
from score_sde.jobs.features import Features
from score_sde.jobs.quality.base import Compared, Quality, Report, order_of, real_features


@dataclasses.dataclass(frozen=True)
class PrecisionRecall(Compared):
    """`PrecisionRecall` measures improved precision and recall against as many real examples.

    Attributes:
        k: the number of the neighbour that defines a ball.
    """

    k: int = 3
    name: ClassVar[str] = "precision_recall"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("k", self.k, 1)
        require_whole(f"n of {type(self).__name__} with k={self.k}", self.n, self.k + 1)

    def compare(self, real: np.ndarray, fake: np.ndarray) -> dict[str, metrics.Estimate]:
        precision, recall = metrics.precision_recall(real, fake, self.k)
        return {"improved_precision": precision, "improved_recall": recall}


@dataclasses.dataclass(frozen=True)
class DensityCoverage(PrecisionRecall):
    """`DensityCoverage` measures density and coverage against as many real examples."""

    k: int = 5
    name: ClassVar[str] = "density_coverage"

    def compare(self, real: np.ndarray, fake: np.ndarray) -> dict[str, metrics.Estimate]:
        return metrics.density_coverage(real, fake, self.k)._asdict()


@dataclasses.dataclass(frozen=True)
class Memorisation(Quality):
    """`Memorisation` compares the nearest training examples of samples with those of held-out examples.

    A sample is near if its distance to the nearest training example is below the `quantile` of this distance over the
    held-out examples. If a model does not memorise, the fraction of near samples is about `quantile`, and the
    authenticity is that of the held-out examples.

    Attributes:
        quantile: the fraction of held-out examples that count as near.
    """

    n: int = 1000
    quantile: float = 0.01
    name: ClassVar[str] = "memorisation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.quantile < 1:
            raise InputError(f"quantile is {self.quantile!r}; expected a number between 0 and 1, such as 0.01.")

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test", "train")

    def measure(self, at: Context, tested: Features) -> Report:
        train = real_features(at, self.network, "train", 0, self.outputs).all()
        held_out = real_features(at, self.network, "test", self.n, self.outputs).all()
        number, distance = metrics.nearest(tested.all(), train)
        of_held_out = metrics.nearest(held_out, train).distance
        bound = float(np.quantile(of_held_out, self.quantile))
        near = float((distance < bound).mean())
        # The quantile of the held-out examples has an error too, of the same form.
        of_bound = self.quantile * (1 - self.quantile) / len(of_held_out)
        stderr = float(np.sqrt(near * (1 - near) / len(distance) + of_bound))
        order = order_of(at.split("train"))
        authentic, of_real = (metrics.authenticity(train, features) for features in (tested.all(), held_out))
        found = {
            "near": near,
            "stderr": stderr,
            "median_distance": float(np.median(distance)),
            "median_distance_held_out": float(np.median(of_held_out)),
            "authenticity": authentic,
            "authenticity_held_out": of_real,
            "nearest_pairs": [[int(i), int(order[number[i]])] for i in np.argsort(distance)[:10]],
        }
        told = (
            f"{near:.3f} +- {stderr:.3f} of the samples are nearer to a training example than {self.quantile:g} of the"
        )
        return found, f"{told} held-out examples; authenticity {authentic:.3f}, of the held-out examples {of_real:.3f}"
