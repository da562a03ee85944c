"""This module defines the objective that learns the size of the loss at each noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array
from score_sde.data import Batch
from score_sde.losses.denoising import Denoising
from score_sde.losses.objective import Across, Losses

_WAVES = 64
_WIDTH = 16.0  # log-SNR over which the slowest wave turns once is twice this


class LevelUncertainty(Denoising):
    """`LevelUncertainty` divides the loss by its learned size at each noise level (Karras et al. 2024).

    With L the loss of `Denoising` and u(t) a learned function of log-SNR, the network minimises L exp(-u(t)), and u
    minimises L exp(-u(t)) + u(t) (arXiv:2312.02696, Eq. 14), so that exp(u(t)) is the mean of L at t, and each level
    has the same part in the gradient. The parameters of u are the group `uncertainty`; the model does not need them.
    `PixelVariance` has a variance for each pixel.

    Args:
        parts: objects that the config makes.
        **options: arguments of `Denoising`.
    """

    UNCERTAINTY = "uncertainty"

    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        params, state = super().init(key)
        return params | {self.UNCERTAINTY: {"weights": jnp.zeros(2 * _WAVES + 1)}}, state

    def uncertainty(self, params: Mapping[str, Any], t: Array) -> Array:
        """Return u(t), in the shape of t: a sum of sines and cosines of log-SNR."""
        level = jnp.clip(self.parts.sde.log_snr(t), -40, 40) / (2 * _WIDTH)
        angles = 2 * math.pi * level[..., None] * np.arange(1, _WAVES + 1) / 8
        waves = jnp.concatenate([jnp.ones_like(level)[..., None], jnp.sin(angles), jnp.cos(angles)], axis=-1)
        # Fast waves are small, so that u is smooth before much is known.
        damping = np.concatenate([[1.0], *(2 * [1 / np.sqrt(np.arange(1, _WAVES + 1))])])
        u: Array = waves @ (params["weights"] * damping)
        return u

    def __call__(
        self,
        params: dict[str, Any],
        state: Any,
        batch: Batch,
        key: Array,
        *,
        step: Array,
        averages: Mapping[str, dict[str, Any]],
        frozen: Mapping[str, Any],
        across: Across,
        train: bool,
    ) -> tuple[Losses, Any, dict[str, Array]]:
        t, factor = self.drawn(batch, key, state, train)
        loss = self.at_time(t, params, batch, key, frozen=frozen, train=train)
        u = self.uncertainty(params[self.UNCERTAINTY], t)
        losses = {
            self.GROUP: factor * loss * jnp.exp(-jax.lax.stop_gradient(u)),
            self.UNCERTAINTY: factor * (jax.lax.stop_gradient(loss) * jnp.exp(-u) + u),
        }
        return losses, self.observed(state, t, loss, across), {}

    def total(self, losses: Losses) -> Array:
        """Return L exp(-u) + u for each example."""
        return losses[self.UNCERTAINTY]


__all__ = ["LevelUncertainty"]
