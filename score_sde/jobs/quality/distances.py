"""This module defines evaluations by distances of distributions: Frechet, FID, sFID, kernel, inception score."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from score_sde import metrics
from score_sde.core.checks import require_whole, shown
from score_sde.core.errors import InputError
from score_sde.jobs.evaluation import Context
from score_sde.jobs.features import Features
from score_sde.jobs.quality.base import SPLITS, Compared, Quality, Report, Spec, real_features
from score_sde.metrics import statistics


@dataclasses.dataclass(frozen=True)
class Frechet(Quality):
    """`Frechet` measures the Frechet distance between samples and real examples, its bias and its limit in n.

    Attributes:
        reference: 'train' or 'test' for all examples of a split, or the path of a file of statistics.
        blocks: the number of blocks of the jackknife.
    """

    reference: str = "train"
    blocks: int = 10
    name: ClassVar[str] = "frechet"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("blocks", self.blocks, 2)
        if self.n < 2 * self.blocks:
            raise InputError(f"n is {self.n} for {self.blocks} blocks; expected at least {2 * self.blocks} samples.")

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.reference,) if self.reference in SPLITS else ()

    def settings(self) -> dict[str, Any]:
        """Return the settings, with the content of a file of statistics in the place of its path."""
        if self.reference in SPLITS:
            return super().settings()
        stats = self._statistics()
        stats.check(self.network)  # before samples are drawn
        return super().settings() | {"reference": stats.about()}

    def _statistics(self) -> statistics.Statistics:
        return statistics.read(self.reference, spatial="spatial" in self.outputs)

    def measure(self, at: Context, tested: Features) -> Report:
        (output,) = self.outputs
        if self.reference in SPLITS:
            moments = real_features(at, self.network, self.reference, 0, self.outputs).moments(name=output)[0]
            mean, cov, count = moments.mean, moments.cov, moments.n
        else:
            stats = self._statistics()
            mean, cov, count = stats.mean, stats.cov, stats.n or 0
        blocks = tested.moments(self.blocks, output)
        if blocks[0].total.shape != mean.shape:
            raise InputError(
                f"The reference has {len(mean)} features, and {tested.protocol['network']} returns "
                f"{len(blocks[0].total)}; expected statistics of the same network."
            )
        result = metrics.frechet_jackknife(mean, cov, blocks)
        found = {
            self.name: result.value,
            "stderr": result.value.stderr,
            "extrapolated": result.extrapolated,
            "extrapolated_stderr": result.extrapolated.stderr,
            "bias": result.bias,
            "reference_n": count,
            "reference_bias": metrics.frechet_bias(cov, count) if count > 1 else None,
            "singular": tested.n <= len(mean),
        }
        line = (
            f"{self.name} {result.value:.4g} +- {result.value.stderr:.2g}, {result.extrapolated:.4g} for n to infinity"
        )
        return found, line + f"; n is at most the {len(mean)} dimensions" * bool(found["singular"])


@dataclasses.dataclass(frozen=True)
class FID(Frechet):
    """`FID` is the Frechet distance with features of the Inception of 2015.

    Attributes:
        weights: the path of the network's file.
        resize: the interpolation of the protocol, as in `metrics.Inception`.
    """

    n: int = 50_000
    features: Spec = "Inception"
    weights: str = ""
    resize: str = "tensorflow"
    name: ClassVar[str] = "fid"

    def __post_init__(self) -> None:
        if not isinstance(self.features, str) or self.features != "Inception":
            raise InputError(
                f"FID has features={shown(self.features)}; expected Inception: other networks have `Frechet`."
            )
        object.__setattr__(self, "features", dict(name="Inception", weights=self.weights, resize=self.resize))
        super().__post_init__()

    def settings(self) -> dict[str, Any]:
        """Return the settings without the path of the weights, whose digest is in the protocol."""
        return {name: value for name, value in super().settings().items() if name not in ("weights", "resize")}


@dataclasses.dataclass(frozen=True)
class SFID(FID):
    """`SFID` is the FID of the spatial features of guided-diffusion (Nash et al. 2021, arXiv:2103.03841)."""

    name: ClassVar[str] = "sfid"
    outputs: ClassVar[tuple[str, ...]] = ("spatial",)


@dataclasses.dataclass(frozen=True)
class Kernel(Compared):
    """`Kernel` measures the kernel distance between samples and as many real examples, without bias at any n."""

    n: int = 5000
    name: ClassVar[str] = "kernel"

    def __post_init__(self) -> None:
        require_whole("n of Kernel", self.n, 4)
        super().__post_init__()

    def compare(self, real: np.ndarray, fake: np.ndarray) -> dict[str, metrics.Estimate]:
        return {"kernel_distance": metrics.kernel_distance(real, fake)}


@dataclasses.dataclass(frozen=True)
class InceptionScore(Quality):
    """`InceptionScore` measures exp(mean KL(p(y | x), p(y))) with the logits of the feature network.

    Attributes:
        parts: the number of parts ("splits") over which the score is averaged.
    """

    n: int = 50_000
    parts: int = 10
    name: ClassVar[str] = "inception_score"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("parts", self.parts, 1)
        if self.n < 2 * self.parts:
            raise InputError(f"n is {self.n} for {self.parts} parts; expected at least {2 * self.parts} samples.")

    def measure(self, at: Context, tested: Features) -> Report:
        score = metrics.inception_score(tested.all("logits"), self.parts)
        found = {"inception_score": score, "stderr": score.stderr, "std": score.stderr * np.sqrt(self.parts - 1)}
        return found, f"inception score {score:.4g} +- {score.stderr:.2g}"
