"""This module defines `NetworkDenoiser`, a denoiser made from a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike

from score_sde.core.arrays import Array, to_time
from score_sde.core.checks import shown
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser
from score_sde.denoisers.parametrization import Parametrization
from score_sde.denoisers.prediction import Prediction
from score_sde.sde import SDE

Apply = Callable[..., Array]


class NetworkDenoiser(Denoiser):
    """`NetworkDenoiser` makes a denoiser from a network.

    The network receives input_scale x + input_shift. The output times output_scale is F of the parametrisation.

    Attributes:
        sde: the SDE.
        parametrization: meaning of the network's output.
        apply: the network, (params, x, time_label, cond=None, *, keys=None) -> output, with time_label of shape
            (batch,) or (batch, k). An optional attribute `conditions` declares the conditions that the network reads.
        params: parameters of the network, a pytree of arrays.
    """

    parametrization: Parametrization
    apply: Apply = eqx.field(static=True)
    params: Any

    def __check_init__(self) -> None:
        for name, kind in (("sde", SDE), ("parametrization", Parametrization)):
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise InputError(f"{name} of NetworkDenoiser is {shown(part)}; expected an object of {kind.__name__}.")
        self.parametrization.check(self.sde)

    @property
    def reads(self) -> Conditions:
        return Conditions(getattr(self.apply, "conditions", None))

    @property
    def shape(self) -> tuple[int, ...] | None:
        shape = getattr(self.apply, "shape", None)
        return None if shape is None else tuple(shape)

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        t = jnp.broadcast_to(to_time(t), x.shape[:1])
        meaning = self.parametrization
        label = meaning.label(self.sde, t)
        output = self.apply(self.params, meaning.network_input(self.sde, x, t), label, cond, keys=keys)
        wanted = (*x.shape[:-1], meaning.outputs * x.shape[-1])
        if output.shape != wanted:
            each = "the shape of x" if meaning.outputs == 1 else "two numbers for each of x, mean and variance"
            raise InputError(
                f"The network {type(self.apply).__name__} returns shape {output.shape} for x of shape {x.shape}; "
                f"expected {wanted}, {each}."
            )
        # A network may compute in bfloat16, but the division by alpha needs the precision of x.
        return meaning.predict(self.sde, x, t, output.astype(x.dtype))
