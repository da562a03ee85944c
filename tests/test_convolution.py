"""The convolution of the networks has the values and derivatives of JAX's convolution, also in loops and under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.networks.convolution import convolve

NUMBERS = ("NHWC", "HWIO", "NHWC")
CASES = [
    dict(size=3),
    dict(size=5),
    dict(size=1),
    dict(size=3, rhs_dilation=(2, 2)),
    dict(size=3, padding=((1, 1), (1, 1))),
    # The following are left to JAX.
    dict(size=3, strides=(2, 2)),
    dict(size=3, padding="VALID"),
    dict(size=2),
    dict(size=3, feature_group_count=2),
]


def pair(case, rng):
    """Return (ours, JAX's, x, kernel) of a case."""
    case = dict(case)
    size, strides, padding = case.pop("size"), case.pop("strides", (1, 1)), case.pop("padding", "SAME")
    groups = case.get("feature_group_count", 1)
    kernel = jnp.asarray(rng.standard_normal((size, size, 4 // groups, 6)))
    x = jnp.asarray(rng.standard_normal((2, 7, 8, 4)))
    options = dict(dimension_numbers=NUMBERS, **case)
    return (
        lambda x, kernel: convolve(x, kernel, strides, padding, **options),
        lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, strides, padding, **options),
        x,
        kernel,
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_derivatives(x64, case):
    rng = np.random.default_rng(0)
    ours, theirs, x, kernel = pair(case, rng)
    out = theirs(x, kernel)
    dx, dkernel = (jnp.asarray(rng.standard_normal(like.shape)) for like in (x, kernel))
    g = jnp.asarray(rng.standard_normal((3, *out.shape)))
    near = dict(rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(ours(x, kernel), out, **near)

    def both(make):
        for a, b in zip(jax.tree.leaves(make(ours)), jax.tree.leaves(make(theirs)), strict=True):
            np.testing.assert_allclose(a, b, **near)

    both(lambda conv: jax.vjp(conv, x, kernel)[1](g[0]))
    both(lambda conv: jax.jvp(conv, (x, kernel), (dx, dkernel))[1])
    both(lambda conv: jax.vmap(jax.vjp(conv, x, kernel)[1])(g))  # several cotangents
    both(lambda conv: jax.vmap(conv, (0, None))(jnp.stack([x, dx]), kernel))
    both(lambda conv: jax.vmap(conv, (None, 0))(x, jnp.stack([kernel, dkernel])))
    both(lambda conv: jax.lax.fori_loop(0, 2, lambda _, v: v + jax.vjp(lambda y: conv(y, kernel), x)[1](g[0])[0], x))

    def curved(conv):
        return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(conv(x, kernel))), (0, 1))

    both(lambda conv: jax.jvp(curved(conv), (x, kernel), (dx, dkernel))[1])  # forward over reverse
    both(lambda conv: jax.grad(lambda *at: sum(jnp.sum(part**2) for part in curved(conv)(*at)), (0, 1))(x, kernel))
    both(lambda conv: jax.grad(jax.checkpoint(lambda x: jnp.sum(conv(x, kernel) ** 2)))(x))


def test_bfloat16_keeps_its_dtype_and_precision_is_that_of_the_call():
    ours, theirs, x, kernel = pair(CASES[0], np.random.default_rng(1))
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert ours(x, kernel).dtype == jnp.bfloat16
    pulled = jax.vjp(ours, x, kernel)[1](jnp.ones_like(ours(x, kernel)))
    expected = jax.vjp(theirs, x, kernel)[1](jnp.ones_like(ours(x, kernel)))
    for a, b in zip(pulled, expected, strict=True):
        assert a.dtype == b.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=0.05, atol=0.05)
    with jax.default_matmul_precision("highest"):
        text = jax.jit(lambda x, kernel: jax.vjp(ours, x, kernel)[1](ours(x, kernel))).lower(
            x.astype(jnp.float32), kernel.astype(jnp.float32)
        )
    lines = [line for line in text.as_text().splitlines() if "convolution" in line]
    assert lines and all("HIGHEST" in line for line in lines)
