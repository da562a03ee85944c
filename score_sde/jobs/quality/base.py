"""This module defines `Quality`, the base class of metrics that compare features of samples and of real examples."""

from __future__ import annotations

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from score_sde import config as config_
from score_sde import metrics
from score_sde.core import npz
from score_sde.core.checks import check_types, require_whole, shown
from score_sde.core.errors import InputError
from score_sde.data import Examples
from score_sde.experiment import Experiment
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.features import Features, compute
from score_sde.metrics import FeatureNetwork

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
    path = pathlib.Path(str(specs[0].get("weights") or "")).expanduser()
    return _built(config_.write_specs(specs), path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=16)
def _built(text: str, changed: int) -> FeatureNetwork:
    """Return one object for each text and time of change of its file, so that weights are read once."""
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
        if self.of in self.splits:
            raise InputError(
                f"{type(self).__name__} has of={self.of!r}, and compares with examples of the same split; expected "
                "another split, or another reference."
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits with which the tested examples are compared."""
        return ()

    @property
    def reads_splits(self) -> tuple[str, ...]:
        return tuple(sorted({*self.splits, *({self.of} & {*SPLITS})}))

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
        of = {key: at.identity[key] for key in ("checkpoint_step", "checkpoint_digest", "sample", "precision")}
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
    """Return the features of n examples of a split in the order of `order_of`, or of all if n is 0 or larger."""
    examples = at.split(split)
    order = order_of(examples)
    known = at.identity["data" if split == "test" else f"data_{split}"]
    return compute(
        at.root / "real",
        network,
        identity_of(at.experiment, split, at.precision) | {"data": known, "order": "seed 0"},
        min(n or len(examples), len(examples)),
        lambda numbers: examples.batch(order[numbers])["values"],
        maximum=at.experiment.codec.maximum,
        outputs=outputs,
        batch_size=at.batch_size,
        devices=at.devices.local,
    )


def order_of(examples: Examples) -> np.ndarray:
    """Return a fixed random order of a split: the first examples of a folder belong to the first classes."""
    return np.random.default_rng(0).permutation(len(examples))


def identity_of(experiment: Experiment, split: str, precision: str) -> dict[str, Any]:
    """Return what the features of real examples depend on, besides the content of the files and the network."""
    settings = {name: value for name, value in config_.to_dict(experiment.config.data).items() if name not in _UNUSED}
    codec = {"shape": list(experiment.codec.data_shape), "maximum": experiment.codec.maximum}
    return {"split": split, "settings": settings, "codec": codec, "precision": precision}


# Entries of config.data on which the values of an example do not depend, or that the digest of the data contains.
_UNUSED = ("batch_size", "flip", "given", "conditions", "drop", "dir", "path")


@dataclasses.dataclass(frozen=True)
class Compared(Quality):
    """`Compared` is the base class of metrics that compare samples with as many real examples.

    Such a metric may also be measured in training (`train.measure`).

    Attributes:
        reference: the split of the real examples, 'train' or 'test'.
    """

    reference: str = "test"

    def __post_init__(self) -> None:
        check_split(self.reference)
        super().__post_init__()

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.reference,)

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
    if not isinstance(name, str) or name not in SPLITS:
        raise InputError(f"reference is {shown(name)}; expected 'train' or 'test'.")


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, float | np.floating) else value
