"""This module tests FIR resampling against explicit zero-stuffing, filtering and decimation, and against SciPy."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import score_sde as ss
from score_sde.networks import resample

KERNELS = [(1, 3, 3, 1), (1, 1), (1, 2, 1), (1, 4, 6, 4, 1), (1, 2, 5), (1, 0, 0, 2, 7, 1), (3,)]


def stuffed(x):
    """Return x of shape (height, width) with a zero after every pixel, along both axes."""
    out = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
    out[::2, ::2] = x
    return out


def filtered(x, kernel, before, after, gain):
    """Return the valid part of the 2-D convolution of the padded image with the outer product of the taps."""
    taps = np.asarray(kernel, float) / np.sum(kernel)
    for name, amount in (("before", before), ("after", after)):
        if amount < 0:
            x = x[-amount:, -amount:] if name == "before" else x[:amount, :amount]
        else:
            x = np.pad(x, ((amount, 0), (amount, 0)) if name == "before" else ((0, amount), (0, amount)))
    return gain * scipy.signal.convolve2d(x, np.outer(taps, taps), mode="valid")


def reference_down(x, kernel):
    spare = len(kernel) - 2
    return filtered(x, kernel, (spare + 1) // 2, spare // 2, 1)[::2, ::2]


def reference_up(x, kernel):
    spare = len(kernel) - 2
    return filtered(stuffed(x), kernel, (spare + 1) // 2 + 1, spare // 2, 4)


def each_image(reference, x):
    return np.stack([np.stack([reference(image[..., c]) for c in range(x.shape[-1])], -1) for image in x])


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_fir_against_stuffing_filtering_and_decimating(kernel, x64):
    x = np.random.default_rng(0).standard_normal((2, 6, 10, 3))
    for function, reference in ((resample.fir_downsample, reference_down), (resample.fir_upsample, reference_up)):
        expected = each_image(lambda image, of=reference: of(image, kernel), x)
        np.testing.assert_allclose(function(jnp.asarray(x), kernel), expected, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_convolutions_with_a_filter(kernel, x64):
    """Filtered convolutions agree with SciPy channel by channel; SciPy's correlation is the convolution of networks."""
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 6, 4, 2)), rng.standard_normal((3, 3, 2, 3))

    def conv(image):  # (height, width, 2) -> (height - 2, width - 2, 3)
        outs = [
            sum(scipy.signal.correlate2d(image[..., i], weight[..., i, o], "valid") for i in (0, 1)) for o in range(3)
        ]
        return np.stack(outs, -1)

    def per_channel(image, function):
        return np.stack([function(image[..., c]) for c in range(image.shape[-1])], -1)

    spare = len(kernel)
    down = [
        conv(per_channel(image, lambda c: filtered(c, kernel, (spare + 1) // 2, spare // 2, 1)))[::2, ::2]
        for image in x
    ]
    np.testing.assert_allclose(resample.fir_conv_downsample(jnp.asarray(x), weight, kernel), down, atol=1e-12)

    spare = len(kernel) - 4
    up = []
    for image in x:
        wide = np.pad(per_channel(image, stuffed)[:-1, :-1], ((2, 2), (2, 2), (0, 0)))
        up.append(per_channel(conv(wide), lambda c: filtered(c, kernel, (spare + 1) // 2 + 1, spare // 2 + 1, 4)))
    np.testing.assert_allclose(resample.fir_conv_upsample(jnp.asarray(x), weight, kernel), up, atol=1e-12)


def test_precisions_are_kept(x64):
    """The output has the dtype of the input, for bfloat16, float32 and float64."""
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        x = jnp.ones((1, 4, 4, 2), dtype)
        for function in (resample.fir_downsample, resample.fir_upsample):
            assert jax.jit(lambda x, f=function: f(x, (1, 3, 3, 1)))(x).dtype == dtype


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(sum), st.integers(1, 4), st.integers(1, 4))
@pytest.mark.slow
def test_any_filter_against_scipy(kernel, height, width):
    x = np.random.default_rng(0).standard_normal((1, 2 * height, 2 * width, 2)).astype("f")
    for function, reference in ((resample.fir_downsample, reference_down), (resample.fir_upsample, reference_up)):
        expected = each_image(lambda image, of=reference: of(image, kernel), x)
        np.testing.assert_allclose(function(jnp.asarray(x), kernel), expected, atol=2e-6)


@pytest.mark.parametrize("kernel", [(1, 3, 3, 1), (1, 1), (1, 2, 1), (1, 4, 6, 4, 1)], ids=str)
def test_up_then_down_preserves_constants(kernel):
    """A constant is preserved away from the zero-padded border; the filter (1, 1) preserves the border too."""
    x = jnp.full((1, 12, 8, 5), 3.0)
    again = np.asarray(resample.fir_downsample(resample.fir_upsample(x, kernel), kernel))
    edge = 0 if kernel == (1, 1) else len(kernel) // 2
    np.testing.assert_allclose(again[:, edge : 12 - edge, edge : 8 - edge], 3.0, rtol=1e-6)


def test_the_filter_of_ones_is_mean_and_repetition():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 6, 3)), jnp.float32)
    np.testing.assert_allclose(resample.fir_downsample(x, (1, 1)), resample.downsample(x), atol=1e-6)
    np.testing.assert_allclose(resample.fir_upsample(x, (1, 1)), resample.upsample(x), atol=1e-6)


def test_no_platform_gets_a_depthwise_convolution():
    x = jnp.ones((1, 8, 8, 6))
    for function in (resample.fir_upsample, resample.fir_downsample):
        program = jax.grad(lambda x, f=function: (f(x, (1, 3, 3, 1)) ** 2).sum())
        text = jax.export.export(jax.jit(program), platforms=["cpu", "cuda", "tpu"])(x).mlir_module()
        assert "stablehlo.pad" in text and "stablehlo.convolution" not in text


@pytest.mark.parametrize("kernel", [(), (0, 0), (1, -2), (1, float("nan")), "abc", 3])
def test_what_is_no_filter_is_refused(kernel):
    with pytest.raises(ss.InputError, match="taps of a filter"):
        resample.check_kernel(kernel)
