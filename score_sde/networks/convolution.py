"""This module defines a convolution whose gradient in x is a convolution of the same form.

XLA's CPU compiler has a fast kernel for a plain convolution everywhere, but for the transposed convolution of JAX's
gradient outside loops only: inside a loop, such as the walk of a sampler with `Posterior`, the transposed convolution
takes 28 times as long (docs/performance.md). JAX's own tools for another transposition (linear_call) have no rule for
vmap, so that the convolution is a primitive of its own. It is linear in x and in the kernel.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from score_sde.core.arrays import Array

NAME = "same_convolution"  # of the primitive, for those who read a jaxpr
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
    """Return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options), with the same derivatives.

    The shapes are (batch, height, width, channels) and (height, width, channels, outputs). A convolution with a stride,
    groups, an even kernel, or a padding that does not keep the size is left to JAX.
    """
    window = kernel.shape[:2]
    dilation = tuple(options.get("rhs_dilation") or (1, 1))
    plain = set(strides) == {1} and set(options.get("lhs_dilation") or (1,)) == {1}
    plain = plain and options.get("feature_group_count", 1) == options.get("batch_group_count", 1) == 1
    plain = plain and options.get("preferred_element_type") is None and x.dtype == kernel.dtype
    plain = plain and x.ndim == 4 and _is_plain(options.get("dimension_numbers"), x, kernel)
    # The padding of a dilated odd window that keeps the size is the same on both sides.
    same = tuple((d * (size - 1) // 2,) * 2 for d, size in zip(dilation, window, strict=True))
    kept = padding == "SAME" or (not isinstance(padding, str) and tuple(map(tuple, padding)) == same)
    if not plain or not kept or any(size % 2 == 0 for size in window):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    of_jax: Any = jax.config
    precision = options.get("precision")
    return _PRIMITIVE.bind(
        x,
        kernel,
        padding=same,
        dilation=dilation,
        # The primitive is lowered outside jax.default_matmul_precision, in which it was called.
        precision=of_jax.jax_default_matmul_precision if precision is None else precision,
    )


def _is_plain(numbers: Any, x: Array, kernel: Array) -> bool:
    """Return whether the dimension numbers are NHWC, HWIO, NHWC."""

    def resolved(given: Any) -> Any:
        return jax.lax.conv_dimension_numbers(x.shape, kernel.shape, given)

    return bool(numbers is not None and resolved(numbers) == resolved(_LAYOUT))


def _plain(x: Array, kernel: Array, *, padding: Any, dilation: Any, precision: Any) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
        precision=precision,
    )


def _gradient_in_x(g: Any, x: Any, kernel: Array, **options: Any) -> Any:
    """Return the transposed convolution of g: on a CPU as a convolution with the flipped kernel, elsewhere as JAX's."""
    if type(g) is ad.Zero:
        return ad.Zero(x.aval)

    def transposed(kernel: Array, g: Array) -> Array:
        like = jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype)
        (result,) = jax.linear_transpose(lambda x: _plain(x, kernel, **options), like)(g)
        return result

    def flipped(kernel: Array, g: Array) -> Array:
        return _PRIMITIVE.bind(g, jnp.swapaxes(kernel[::-1, ::-1], 2, 3), **options)

    return jax.lax.platform_dependent(kernel, g, cpu=flipped, default=transposed)


def _gradient_in_kernel(g: Any, x: Array, kernel: Any, **options: Any) -> Any:
    if type(g) is ad.Zero:
        return ad.Zero(kernel.aval)
    like = jax.ShapeDtypeStruct(kernel.aval.shape, kernel.aval.dtype)
    (result,) = jax.linear_transpose(lambda kernel: _plain(x, kernel, **options), like)(g)
    return result


def _batched(arguments: Any, axes: Any, **options: Any) -> Any:
    x, kernel = arguments
    if axes[1] is not None:  # several kernels: JAX's own convolution, vectorised
        return jax.vmap(lambda x, kernel: _plain(x, kernel, **options), axes)(x, kernel), 0
    x = jnp.moveaxis(x, axes[0], 0)
    out = _PRIMITIVE.bind(x.reshape(-1, *x.shape[2:]), kernel, **options)
    return out.reshape(*x.shape[:2], *out.shape[1:]), 0


_PRIMITIVE = Primitive(NAME)
_PRIMITIVE.def_impl(jax.jit(_plain, static_argnames=("padding", "dilation", "precision")))
_PRIMITIVE.def_abstract_eval(
    lambda x, kernel, **options: jax.core.ShapedArray(
        *(lambda out: (out.shape, out.dtype))(jax.eval_shape(lambda a, b: _plain(a, b, **options), x, kernel))
    )
)
mlir.register_lowering(_PRIMITIVE, mlir.lower_fun(_plain, multiple_results=False))
ad.defbilinear(_PRIMITIVE, _gradient_in_x, _gradient_in_kernel)
batching.primitive_batchers[_PRIMITIVE] = _batched
