"""A config names this data set and this network by dotted path, as a user's classes; both compile fast."""

import dataclasses
import math

import jax
import jax.numpy as jnp

import score_sde as ss
from score_sde import data
from score_sde.core.conditions import is_absent
from score_sde.networks import layers


class FewDigits(data.Digits):
    """`FewDigits` has 32 training images and 7 test images of the digits; batch sizes from 2 to 6 do not divide 7."""

    def source(self, split):
        records = super().source(split)
        return [records[i] for i in range(7 if split == "test" else 32)]


@dataclasses.dataclass(frozen=True)
class Affine(ss.networks.Network):
    """`Affine` applies dropout and a matrix to the flattened image, scales by time, and adds a vector for the class."""

    shape: tuple[int, ...]
    conditions: ss.Conditions = ss.Conditions()  # noqa: RUF009
    dropout: float = 0.1

    def init(self, key):
        size = math.prod(self.shape)
        classes = self.conditions["label"].classes if self.conditions else 0
        matrix = 0.3 * jnp.eye(size) + 0.02 * jax.random.normal(key, (size, size))
        return {"matrix": matrix, "classes": 0.1 * jax.random.normal(key, (classes + 1, size))}

    def apply(self, params, x, time_label, cond=None, *, keys=None):
        none = len(params["classes"]) - 1
        label = jnp.where(is_absent(cond, "label", len(x)), none, 0 if cond is None else cond.get("label", 0))
        flat = layers.dropout(x.reshape(len(x), -1), self.dropout, keys, layer=0)
        flat = flat @ params["matrix"] * (1 + time_label[:, None] / 999)
        return (flat + params["classes"][label]).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class BrokenFeatures(ss.metrics.Values):
    """The values themselves, and NaN for the fourth example of a batch."""

    def outputs(self, params, x):
        return {"features": jnp.where(jnp.arange(len(x))[:, None] == 3, jnp.nan, x)}

    def protocol(self):
        return {"network": "broken"}
