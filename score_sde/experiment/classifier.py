"""This module defines the trained classifier of noised examples, as `load` returns it."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.typing import ArrayLike

from score_sde.core.conditions import Conditions
from score_sde.core.errors import InputError
from score_sde.core.jit import module_jit
from score_sde.data import Codec
from score_sde.denoisers import NetworkClassifier
from score_sde.likelihood.bits import as_values

_BATCH = 256


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("classifier", "codec"),
    meta_fields=("config", "step", "digest"),
)
@dataclasses.dataclass(frozen=True, repr=False)
class Classifier:
    """A `Classifier` is a trained classifier of noised examples, with the codec to the data's own values.

    Attributes:
        classifier: log p(label | x_t), with its weights; `ClassifierGuided` takes it as log_prob.
        codec: the codec between the data's values and the model's scale.
        config: the config of the training run.
        step: the number of training steps of the weights.
        digest: the digest of the weights in their checkpoint; results record this digest.
    """

    classifier: NetworkClassifier
    codec: Codec
    config: ml_collections.ConfigDict
    step: int
    digest: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one example on the model's scale."""
        return self.codec.model_shape

    @property
    def conditions(self) -> Conditions:
        """Return the condition that the classifier reads as a guide."""
        return self.classifier.conditions

    def __repr__(self) -> str:
        name, sde = self.config.data.name, self.config.sde.name
        return (
            f"Classifier of {self.classifier.classes} classes of {name} at step {self.step}: shape {self.shape}, {sde}"
        )

    def probabilities(self, values: ArrayLike) -> np.ndarray:
        """Return the probabilities of the classes, (n, classes), of clean values on the data's own scale.

        The classifier receives the values without noise, at the time of the least noise.
        """
        given = as_values(values, self.codec)
        parts = []
        for low in range(0, len(given), _BATCH):
            # The last batch is padded, so that one program computes all batches.
            rows = np.take(np.asarray(given), np.arange(low, low + min(_BATCH, len(given))), axis=0, mode="clip")
            parts.append(np.asarray(_probabilities(self.classifier, self.codec, rows))[: len(given) - low])
        return np.concatenate(parts)

    def predict(self, values: ArrayLike) -> np.ndarray:
        """Return the most probable class of clean values on the data's own scale, (n,)."""
        return self.probabilities(values).argmax(axis=1)

    def accuracy(self, values: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of clean values whose most probable class is their label."""
        known = np.asarray(labels)
        predicted = self.predict(values)
        if known.shape != predicted.shape:
            raise InputError(f"labels have shape {known.shape}; expected {predicted.shape}, one for each example.")
        return float(np.mean(predicted == known))


@module_jit
def _probabilities(classifier: NetworkClassifier, codec: Codec, values: jax.Array) -> jax.Array:
    x, _ = codec.encode(jnp.asarray(values), None)
    return jax.nn.softmax(classifier.logits(x, classifier.sde.t_stop))
