"""A data set and a network of the user's own, named by their dotted paths: small, so that they compile at once."""

import dataclasses
import math

import jax
import jax.numpy as jnp

import score_sde as ss
from score_sde import data
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
    num_classes: int | None = None
    dropout: float = 0.1

    def init(self, key):
        size = math.prod(self.shape)
        matrix = 0.3 * jnp.eye(size) + 0.02 * jax.random.normal(key, (size, size))
        return {"matrix": matrix, "classes": 0.1 * jax.random.normal(key, ((self.num_classes or 0) + 1, size))}

    def apply(self, params, x, time_label, cond=None, *, keys=None):
        label = jnp.zeros(len(x), int) if cond is None else cond["label"]
        flat = layers.dropout(x.reshape(len(x), -1), self.dropout, keys, layer=0)
        flat = flat @ params["matrix"] * (1 + time_label[:, None] / 999)
        return (flat + params["classes"][label]).reshape(x.shape)
