"""This module sets the precision of float32 products, and chooses the dtype that fits a platform.

By default JAX multiplies float32 numbers on a CPU in float32, on a GPU from Ampere on in TF32 (10 bits of the
mantissa), and on a TPU in bfloat16 (7 bits).
"""

from __future__ import annotations

import contextlib
from typing import Any

import jax

from score_sde.core.errors import InputError

# With 'default', JAX and its setting jax_default_matmul_precision determine the precision.
PRECISIONS = ("default", "high", "highest")

_FIRST_GPU_WITH_BFLOAT16 = 8.0  # compute capability of Ampere


def check_precision(name: str, value: Any) -> None:
    """Raise InputError if `value` is not a precision of products; `name` is the entry or argument in the message."""
    if not isinstance(value, str) or value not in PRECISIONS:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(PRECISIONS)}.")


def products(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which float32 products are traced in this precision.

    Args:
        precision: 'highest' for full float32 on every platform; 'high' for TF32 on GPUs and three bfloat16 passes on
            TPUs; 'default' for the default of JAX, or the setting jax_default_matmul_precision.
    """
    return contextlib.nullcontext() if precision == "default" else jax.default_matmul_precision(precision)


def fitting_dtype() -> str:
    """Return 'bfloat16' if the devices multiply it faster (TPUs, and GPUs from Ampere on), otherwise 'float32'."""
    device = jax.local_devices()[0]
    if device.platform == "tpu":
        return "bfloat16"
    if device.platform in ("gpu", "cuda"):
        try:
            return "bfloat16" if float(device.compute_capability) >= _FIRST_GPU_WITH_BFLOAT16 else "float32"
        except (AttributeError, ValueError):  # GPUs of other makers have no such number
            return "float32"
    return "float32"
