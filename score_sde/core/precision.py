"""The precision of float32 products, and the dtype that fits a platform.

JAX multiplies float32 numbers on a CPU in float32, on a GPU from Ampere on in TF32 (10 bits of the mantissa), and on a
TPU in bfloat16 (7 bits), unless it is told otherwise.
"""

from __future__ import annotations

import contextlib
from typing import Any

import jax

from score_sde.core.errors import InputError

# 'default' leaves the choice to JAX and to its setting jax_default_matmul_precision.
PRECISIONS = ("default", "high", "highest")

_FIRST_GPU_WITH_BFLOAT16 = 8.0  # compute capability of Ampere


def check_precision(name: str, value: Any) -> None:
    """Raise InputError for what is no precision of products, by the name of its entry or argument."""
    if not isinstance(value, str) or value not in PRECISIONS:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(PRECISIONS)}.")


def products(precision: str) -> contextlib.AbstractContextManager[Any]:
    """A context in which float32 products are traced in this precision.

    Args:
        precision: 'highest' for full float32 on every platform; 'high' for TF32 on GPUs and three bfloat16 passes on
            TPUs; 'default' for what JAX does anyway, or is told by jax_default_matmul_precision.
    """
    return contextlib.nullcontext() if precision == "default" else jax.default_matmul_precision(precision)


def fitting_dtype() -> str:
    """'bfloat16' where the devices multiply it faster than float32: TPUs, and GPUs from Ampere on; else 'float32'."""
    device = jax.local_devices()[0]
    if device.platform == "tpu":
        return "bfloat16"
    if device.platform in ("gpu", "cuda"):
        try:
            return "bfloat16" if float(device.compute_capability) >= _FIRST_GPU_WITH_BFLOAT16 else "float32"
        except (AttributeError, ValueError):  # a GPU of another maker, whose capability is no such number
            return "float32"
    return "float32"
