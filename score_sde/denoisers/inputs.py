"""This module checks the inputs of denoisers on the host before any computation; traced values are not checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import given
from score_sde.core.arrays import Array, as_array, is_concrete
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError

if TYPE_CHECKING:
    from score_sde.denoisers.base import Denoiser


def as_denoiser(thing: Any) -> Denoiser:
    """Return the denoiser: `thing` itself, or the denoiser of a model.

    Raises:
        InputError: if `thing` is not a denoiser and has no denoiser.
    """
    from score_sde.denoisers.base import Denoiser

    if isinstance(thing, Denoiser):
        return thing
    if isinstance(getattr(thing, "denoiser", None), Denoiser):
        return as_denoiser(thing.denoiser)
    what = f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"
    raise InputError(f"denoiser is {what}; expected a Denoiser, such as GaussianMixture(...), or what load returns.")


def as_points(x: ArrayLike, name: str = "x", least: int = 2) -> Array:
    """Return examples on the model's scale as an array (batch, *shape) of at least float32, with `least` axes or more.

    Raises:
        InputError: for values that are not numbers or not finite, for whole numbers, and for one example without a
            batch axis.
    """
    if not isinstance(x, jax.Array):
        x = as_array(x, name)
        if x.dtype.kind not in "biufV":  # V: bfloat16 and similar dtypes
            raise InputError(f"{name} has dtype {x.dtype}; expected floating point numbers on the model's scale.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"{name} has dtype {x.dtype}; expected floating point numbers on the model's scale: whole numbers are "
            "encoded first (codec.encode), and bits_per_dim takes them as they are."
        )
    x = jnp.asarray(x)
    if x.ndim < least:
        raise InputError(f"{name} has shape {x.shape}; expected (batch, *shape), one example being {name}[None].")
    if is_concrete(x) and not np.isfinite(np.asarray(x, np.float32)).all():
        raise InputError(f"{name} contains NaN or infinity; expected finite data on the model's scale.")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_shape(denoiser: Denoiser, shape: tuple[int, ...], name: str = "x") -> None:
    """Raise InputError if `shape` differs from the denoiser's shape of one example, where that shape is known."""
    own = denoiser.shape
    if own is None or tuple(shape) == tuple(own):
        return
    hint = ""
    if tuple(shape[1:]) == tuple(own):
        hint = ": the denoiser's shape is that of one example, without the batch axis"
    elif (*shape, 1) == tuple(own):
        hint = ": the single channel needs its own axis"
    raise InputError(f"{name} has the shape {tuple(shape)}; expected {tuple(own)}, that of the denoiser{hint}.")


def check_times(t: ArrayLike, name: str) -> np.ndarray:
    """Return times as a NumPy array on the host, or raise InputError if the times are not numbers."""
    times = as_array(t, name)
    if times.dtype.kind not in "iufV":
        raise InputError(f"{name} has dtype {times.dtype}; expected times as numbers.")
    return times.astype(float)


def checked(denoiser: Denoiser, x: ArrayLike, t: ArrayLike, cond: Cond) -> tuple[Array, ArrayLike, Cond]:
    """Return (x, t, cond) as the methods of a denoiser need them.

    Raises:
        InputError: for examples, times or conditions that the denoiser does not accept.
    """
    if isinstance(x, jax.core.Tracer):
        return x, t, cond
    x = as_points(x, least=1 if denoiser.shape == () else 2)
    check_shape(denoiser, x.shape[1:])
    if is_concrete(denoiser.sde, t):
        times = check_times(t, "t")
        if times.shape not in ((), x.shape[:1]):
            raise InputError(f"t has shape {times.shape}; expected () or ({len(x)},), one time per example.")
        # The SDE's own times may have been rounded to float32, so the comparison is in float32.
        denoiser.sde.check_times(times.astype(np.float32), "t")
    cond = given.checked(cond, denoiser.reads, len(x))
    denoiser.check_cond(cond)
    return x, t, cond
