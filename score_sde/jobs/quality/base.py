"""This module defines `Quality`, the base class of metrics that compare features of samples and of real examples."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from score_sde import config as config_
from score_sde import metrics
from score_sde.core import npz
from score_sde.core.checks import check_types, require_whole
from score_sde.core.errors import InputError
from score_sde.data import digest
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.features import Features, compute
from score_sde.metrics import FeatureNetwork
from score_sde.parallel import processes

Spec = str | Mapping[str, Any]
Report = tuple[dict[str, Any], str]
SPLITS = ("train", "test")


def network_of(spec: Spec) -> FeatureNetwork:
    """Return the feature network that a spec names: 'EfficientNetLite0(size=224)', or a dictionary with a name.

    Raises:
        InputError: for an unknown name, or wrong arguments.
    """
    specs = config_.read_specs("features", spec)
    if len(specs) != 1:
        raise InputError(f"features is {spec!r}; expected one feature network, such as 'EfficientNetLite0'.")
    return _built(config_.write_specs(specs))


@functools.lru_cache(maxsize=16)
def _built(text: str) -> FeatureNetwork:
    """Return one object for each text, so that weights are read once."""
    network: FeatureNetwork = config_.build(metrics, config_.read_specs("features", text)[0], base=FeatureNetwork)
    return network


@dataclasses.dataclass(frozen=True)
class Quality(Evaluation):
    """`Quality` is the base class of metrics of features.

    Attributes:
        n: the number of samples, and of real examples where the metric compares two sets.
        features: the feature network, as text or as a spec.
        of: 'samples', or a split of the data, 'train' or 'test', which is measured in their place: the floor.
    """

    n: int = 10_000
    features: Spec = "EfficientNetLite0"
    of: str = "samples"
    outputs: ClassVar[tuple[str, ...]] = ("features",)

    def __post_init__(self) -> None:
        check_types(self)
        require_whole(f"n of {type(self).__name__}", self.n, 2)
        network_of(self.features)
        if self.of not in ("samples", *SPLITS):
            raise InputError(f"of is {self.of!r}; expected 'samples', 'train' or 'test'.")

    @property
    def needs_samples(self) -> bool:  # type: ignore[override]
        return self.of == "samples"

    @property
    def network(self) -> FeatureNetwork:
        return network_of(self.features)

    def settings(self) -> dict[str, Any]:
        """Return the settings, with the protocol of the feature network in the place of its spec."""
        return super().settings() | {"features": self.network.protocol()}

    def run(self, at: Context) -> Report:
        tested = self.tested(at)
        found, line = self.measure(at, tested)
        found = {name: _number(value) for name, value in found.items()}
        what = "samples" if self.of == "samples" else f"examples of {self.of}"
        reference = found.get("reference_n")
        against = f" against {reference} of {getattr(self, 'reference', '')}" if reference else ""
        told = f"{line} ({tested.n} {what}{against}; features of {tested.protocol['network']})"
        return found | {"examples": tested.n}, told

    @abc.abstractmethod
    def measure(self, at: Context, tested: Features) -> Report:
        """Return the results and one line of text about the tested features."""

    def tested(self, at: Context) -> Features:
        """Return the features of the samples, or of the split in their place."""
        if self.of != "samples":
            return real_features(at, self.network, self.of, self.n, self.outputs)
        folder = at.drawn(self.n)
        name = "images" if len(at.experiment.codec.data_shape) == 3 else "points"
        values = npz.mapped(folder / "samples.npz", name)
        of = {"samples": {key: at.identity[key] for key in ("checkpoint_step", "checkpoint_digest", "sample")}}
        return compute(
            folder,
            self.network,
            of,
            self.n,
            lambda numbers: values[numbers],
            maximum=at.experiment.codec.maximum,
            outputs=self.outputs,
            batch_size=at.batch_size,
            devices=at.devices.local,
        )


def real_features(at: Context, network: FeatureNetwork, split: str, n: int, outputs: tuple[str, ...]) -> Features:
    """Return the features of the first n examples of a split, or of all examples if n is 0 or larger than the split."""
    experiment = at.experiment
    examples = at.examples
    if split != "test":
        source = processes.first_alone(lambda: experiment.dataset.source(split))
        examples = experiment.examples(split, source)
    n = min(n or len(examples), len(examples))
    return compute(
        at.root / "real",
        network,
        {"split": split, "data": digest(examples.source)},
        n,
        lambda numbers: examples.batch(numbers)["values"],
        maximum=experiment.codec.maximum,
        outputs=outputs,
        batch_size=at.batch_size,
        devices=at.devices.local,
    )


@dataclasses.dataclass(frozen=True)
class Compared(Quality):
    """`Compared` is the base class of metrics that compare samples with as many real examples.

    Such a metric may also be measured in training (`train.measure`).

    Attributes:
        reference: the split of the real examples, 'train' or 'test'.
    """

    reference: str = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_split(self.reference)

    @abc.abstractmethod
    def compare(self, real: np.ndarray, fake: np.ndarray) -> dict[str, metrics.Estimate]:
        """Return the results by name, from features (n, d) and (m, d)."""

    def measure(self, at: Context, tested: Features) -> Report:
        real = real_features(at, self.network, self.reference, self.n, self.outputs)
        results = self.compare(real.all(), tested.all())
        line = ", ".join(f"{name.replace('_', ' ')} {v:.4g} +- {v.stderr:.2g}" for name, v in results.items())
        errors = {f"{name}_stderr": value.stderr for name, value in results.items()}
        return {**results, **errors, "reference_n": real.n}, line


def check_split(name: str) -> None:
    if name not in SPLITS:
        raise InputError(f"reference is {name!r}; expected 'train' or 'test'.")


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, float | np.floating) else value
