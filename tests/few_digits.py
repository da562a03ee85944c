"""A data set and a network of the user's own, named by their dotted paths: small, so that they compile at once."""

import dataclasses
import math

import jax
import jax.numpy as jnp

import score_sde as ss
from score_sde import data
from score_sde.core.conditions import is_absent
from score_sde.networks import layers


class FewDigits(data.Digits):
    """The digits with 7 test images, a number that nothing divides."""

    def source(self, split):
        records = super().source(split)
        return [records[i] for i in range(7 if split == "test" else 32)]


@dataclasses.dataclass(frozen=True)
class Affine(ss.networks.Network):
    """A matrix on the flattened image under dropout, scaled by time, and a vector for each class."""

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
