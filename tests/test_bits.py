"""Bits per dimension: each term against what it must be, and data that must be refused."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import score_sde as ss
from score_sde.likelihood import BitsPerDim

KEYS = jax.random.split(jax.random.key(0), 64)
SDE = ss.VP()
# Pixels 0..16 on [-1, 1]: each coordinate N(0, 0.3^2), so 8 + 2.4 N(0, 1) on the pixels' own scale.
GAUSSIAN = ss.GaussianMixture(SDE, [1.0], [np.zeros((2, 2, 1))], 0.3)
TRANSFORM = ss.QuantizedTransform(16)
EXACT = {"trace": "exact", "prior": GAUSSIAN.marginal(1.0)}
PIXELS = np.random.default_rng(0).integers(3, 14, (32, 2, 2, 1))


def test_quantised_data_cost_what_the_closed_form_says():
    """The mean over dequantisation draws of -log2 of a Gaussian density on the pixels' own scale."""
    uniform = ss.UniformDequantization()
    out = ss.bits_per_dim(GAUSSIAN, PIXELS, KEYS[:32], transform=TRANSFORM, dequantization=uniform, draws=8, **EXACT)
    # E over u in [-1/2, 1/2) of (v + u - 8)^2 is (v - 8)^2 + 1/12; the data are met at t_min.
    std = math.sqrt(float(SDE.alpha(1e-5) ** 2 * 0.3**2 + SDE.variance(1e-5))) * 8
    squares = ((PIXELS - 8.0) ** 2 + 1 / 12).mean(axis=(1, 2, 3))
    expected = (0.5 * squares / std**2 + math.log(std * math.sqrt(2 * math.pi))) / math.log(2)
    noise = 1.5 * np.abs(PIXELS - 8.0).max() / std**2 / math.log(2) / math.sqrt(12 * 8 * 4)
    assert np.abs(out.value - expected).max() < 3 * noise
    assert abs((out.value - expected).mean()) < 4 * noise / math.sqrt(32)
    # It bounds the cost of the integrated probability from above, and not by much.
    low, high = (stats.norm.logcdf((PIXELS - 8 + side) / std) for side in (-0.5, 0.5))
    probability = -(high + np.log1p(-np.exp(low - high))).mean(axis=(1, 2, 3)) / math.log(2)
    gap = (expected - probability).mean()
    assert 0 < gap < 0.02
    assert (out.value - probability).mean() > 0


def test_the_terms_add_up_and_are_the_known_ones():
    uniform = ss.UniformDequantization()
    out = ss.bits_per_dim(GAUSSIAN, PIXELS, KEYS[:32], transform=TRANSFORM, dequantization=uniform, probes=4, draws=2)
    np.testing.assert_allclose(out.value, out.prior + out.divergence + out.log_det + out.dequantization, atol=1e-12)
    np.testing.assert_allclose(out.log_det, 3.0, atol=1e-6)  # 16 steps on [-1, 1] are 8 to the unit: 3 bits
    np.testing.assert_allclose(out.dequantization, 0.0)
    one = ss.bits_per_dim(GAUSSIAN, PIXELS, KEYS[:32], transform=TRANSFORM, dequantization=uniform)
    assert np.isnan(one.stderr).all()
    assert (out.nfe > one.nfe).all()


class Halves(eqx.Module):
    """Pixels already divided by 255, to [-1, 1]: the same data on another scale."""

    def forward(self, values):
        return 2 * jnp.asarray(values) - 1

    def log_det(self, values):
        return jnp.full(len(values), values[0].size * math.log(2.0))


def test_where_plus_seven_comes_from():
    """7 = log2(256 / 2): the scale's part for pixels 0..255, or 8 of the bins' width and -1 of the scale."""
    pixels = np.full((4, 2, 2, 1), 128)
    whole = ss.bits_per_dim(
        GAUSSIAN, pixels, KEYS[:4], transform=ss.QuantizedTransform(255), dequantization=ss.UniformDequantization()
    )
    divided = ss.bits_per_dim(
        GAUSSIAN, pixels / 255, KEYS[:4], transform=Halves(), dequantization=ss.UniformDequantization(1 / 255)
    )
    np.testing.assert_allclose(whole.log_det, math.log2(255 / 2), rtol=1e-5)
    np.testing.assert_allclose(whole.dequantization, 0)
    np.testing.assert_allclose(divided.log_det, -1, rtol=1e-5)
    np.testing.assert_allclose(divided.dequantization, math.log2(255), rtol=1e-5)
    np.testing.assert_allclose(whole.value, divided.value, atol=1e-3)


def test_continuous_data_have_a_density():
    """Without dequantisation: -log2 of the density on the data's scale, here of N(0.5, 0.15^2), and negative."""
    values = np.random.default_rng(1).normal(0.5, 0.05, (16, 2, 2, 1))
    out = ss.bits_per_dim(GAUSSIAN, values, None, transform=Halves(), dequantization=None, **EXACT)
    std = math.sqrt(float(SDE.alpha(1e-5) ** 2 * 0.3**2 + SDE.variance(1e-5))) / 2
    expected = -stats.norm.logpdf(values, 0.5, std).mean(axis=(1, 2, 3)) / math.log(2)
    np.testing.assert_allclose(out.value, expected, atol=2e-3)
    assert out.value.mean() < 0
    np.testing.assert_array_equal(out.dequantization, 0)


def test_an_example_is_a_function_of_itself_and_its_key():
    options = {"transform": TRANSFORM, "dequantization": ss.UniformDequantization(), "draws": 2, "probes": 2}
    all_of_them = ss.bits_per_dim(GAUSSIAN, PIXELS[:8], KEYS[:8], **options)
    some = ss.bits_per_dim(GAUSSIAN, PIXELS[5:7], KEYS[5:7], **options)
    np.testing.assert_allclose(some.value, all_of_them.value[5:7], atol=1e-3)
    others = ss.bits_per_dim(GAUSSIAN, PIXELS[5:7], KEYS[15:17], **options)
    assert np.abs(others.value - some.value).min() > 1e-3


def test_the_summary_splits_the_error():
    """Values with a known spread between examples and known probe errors: the two parts are recovered."""
    rng = np.random.default_rng(0)
    n, data, probe = 40_000, 0.3, 0.4
    stderr = probe * np.sqrt(rng.chisquare(3, n) / 3)
    value = 2 + data * rng.standard_normal(n) + probe * rng.standard_normal(n)
    zeros = np.zeros(n)
    s = BitsPerDim(value, stderr, *[zeros] * 7).summary()
    assert s.n == n
    assert abs(s.bits_per_dim - 2) < 4 * 0.5 / math.sqrt(n)
    assert s.stderr == pytest.approx(0.5 / math.sqrt(n), rel=0.02)
    assert s.probe_stderr == pytest.approx(0.4 / math.sqrt(n), rel=0.02)
    assert s.data_stderr == pytest.approx(0.3 / math.sqrt(n), rel=0.03)
    assert s.stderr**2 == pytest.approx(s.probe_stderr**2 + s.data_stderr**2)
    one = BitsPerDim(value, zeros * np.nan, *[zeros] * 7).summary()
    assert math.isnan(one.probe_stderr) and math.isnan(one.data_stderr) and one.stderr == s.stderr


class NoLogDet:
    def forward(self, values):
        return values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": PIXELS[:2] + 14}, "values contain .*outside the range.*QuantizedTransform"),
        ({"values": PIXELS[:2] - 30}, "outside the range"),
        ({"values": np.full((2, 2, 2, 1), np.nan)}, "values contain nan"),
        ({"dequantization": None}, "dtype int.* and dequantisation is off"),
        ({"dequantization": None, "values": PIXELS[:2].astype(float)}, "whole numbers and dequantisation is off"),
        ({"values": PIXELS[:2] + 0.25}, "no multiple of the bins' width 1"),
        ({"transform": NoLogDet()}, "NoLogDet has no log_det"),
        ({"draws": 0}, "draws is 0"),
        ({"dequantization": None, "values": PIXELS[:2] + 0.25, "draws": 3}, "draws is 3 without"),
        ({"probes": -1}, "probes is -1"),
        ({"keys": None}, "keys is None"),
        ({"keys": None, "trace": "exact"}, "dequantisation needs one key per example"),
        ({"keys": np.zeros(2, np.uint32)}, "expected one key each"),
        ({"values": 3}, r"values have shape \(\)"),
        ({"keys": KEYS[:3]}, r"keys have shape \(3,\).* for 2"),
    ],
)
def test_bad_input_is_refused(change, words):
    arguments = {"values": PIXELS[:2], "keys": KEYS[:2], "transform": TRANSFORM}
    arguments |= {"dequantization": ss.UniformDequantization()} | change
    with pytest.raises(ss.InputError, match=words):
        ss.bits_per_dim(GAUSSIAN, arguments.pop("values"), arguments.pop("keys"), **arguments)
    with pytest.raises(ss.InputError, match="width=0"):
        ss.UniformDequantization(0)
