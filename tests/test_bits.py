"""Each term of the bits per dimension has its closed form, and invalid data are refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import score_sde as ss
from score_sde.likelihood import BitsPerDim

KEYS = jax.random.split(jax.random.key(0), 64)
SDE = ss.VP()
# Pixels 0..16 are mapped to [-1, 1], so N(0, 0.3^2) in each coordinate is 8 + 2.4 N(0, 1) on the scale of the pixels.
GAUSSIAN = ss.GaussianMixture(SDE, [1.0], [np.zeros((2, 2, 1))], 0.3)
CODEC = ss.QuantizedCodec((2, 2, 1), 16)
EXACT = {"trace": "exact", "prior": GAUSSIAN.marginal(1.0)}
PIXELS = np.random.default_rng(0).integers(3, 14, (32, 2, 2, 1))


def test_quantised_data_cost_what_the_closed_form_says():
    """The value is the mean over dequantisation draws of -log2 of a Gaussian density on the scale of the pixels."""
    out = ss.bits_per_dim(GAUSSIAN, PIXELS, KEYS[:32], codec=CODEC, draws=8, **EXACT)
    assert out.is_bound
    # E over u in [-1/2, 1/2) of (v + u - 8)^2 is (v - 8)^2 + 1/12; the density is the marginal at t_min.
    std = math.sqrt(float(SDE.alpha(1e-5) ** 2 * 0.3**2 + SDE.variance(1e-5))) * 8
    squares = ((PIXELS - 8.0) ** 2 + 1 / 12).mean(axis=(1, 2, 3))
    expected = (0.5 * squares / std**2 + math.log(std * math.sqrt(2 * math.pi))) / math.log(2)
    noise = 1.5 * np.abs(PIXELS - 8.0).max() / std**2 / math.log(2) / math.sqrt(12 * 8 * 4)
    assert np.abs(out.value - expected).max() < 3 * noise
    assert abs((out.value - expected).mean()) < 4 * noise / math.sqrt(32)
    # The value is an upper bound of the cost of the integrated probability, and the gap is small.
    low, high = (stats.norm.logcdf((PIXELS - 8 + side) / std) for side in (-0.5, 0.5))
    probability = -(high + np.log1p(-np.exp(low - high))).mean(axis=(1, 2, 3)) / math.log(2)
    gap = (expected - probability).mean()
    assert 0 < gap < 0.02
    assert (out.value - probability).mean() > 0


def test_the_terms_add_up_and_are_the_known_ones():
    out = ss.bits_per_dim(GAUSSIAN, PIXELS, KEYS[:32], codec=CODEC, probes=4, draws=2)
    assert set(out.terms) == {"scale", "dequantization"}
    np.testing.assert_allclose(out.value, out.prior + out.divergence + sum(out.terms.values()), atol=1e-12)
    np.testing.assert_allclose(out.terms["scale"], 3.0, atol=1e-6)  # 16 steps on [-1, 1] are 8 per unit: 3 bits
    np.testing.assert_allclose(out.terms["dequantization"], 0.0)
    single_draw = ss.bits_per_dim(GAUSSIAN, PIXELS, KEYS[:32], codec=CODEC)
    assert np.isnan(single_draw.stderr).all()
    assert (out.nfe > single_draw.nfe).all()


class Divided(ss.Codec):
    """`Divided` is a user's codec of pixels times `width`; the codec fills bins of this width and maps to [-1, 1]."""

    width: float = 1 / 255
    is_bound = True

    def encode(self, values, keys):
        u = jax.vmap(lambda key: jax.random.uniform(key, values.shape[1:], minval=-0.5, maxval=0.5))(keys)
        nats = math.prod(self.data_shape) * jnp.ones(len(values))
        terms = {"scale": nats * math.log(2.0), "noise": nats * math.log(self.width)}
        return 2 * (values + self.width * u) - 1, terms

    def decode(self, x):
        return (x + 1) / 2

    def quantize(self, values):
        return jnp.round(values / self.width) * self.width


def test_a_codec_that_draws_is_not_exact():
    hidden = type("Hidden", (Divided,), {"is_bound": False})
    with pytest.raises(ss.InputError, match=r"Hidden.is_bound is False.*set is_bound = True"):
        ss.bits_per_dim(GAUSSIAN, np.full((4, 2, 2, 1), 0.5), KEYS[:4], codec=hidden((2, 2, 1)))


def test_where_plus_seven_comes_from():
    """7 = log2(256 / 2) is the scale's part for pixels 0..255; divided pixels have 8 (bin width) and -1 (scale)."""
    pixels = np.full((4, 2, 2, 1), 128)
    whole = ss.bits_per_dim(GAUSSIAN, pixels, KEYS[:4], codec=ss.QuantizedCodec((2, 2, 1), 255))
    divided = ss.bits_per_dim(GAUSSIAN, pixels / 255, KEYS[:4], codec=Divided((2, 2, 1)))
    np.testing.assert_allclose(whole.terms["scale"], math.log2(255 / 2), rtol=1e-5)
    np.testing.assert_allclose(whole.terms["dequantization"], 0)
    np.testing.assert_allclose(divided.terms["scale"], -1, rtol=1e-5)
    np.testing.assert_allclose(divided.terms["noise"], math.log2(255), rtol=1e-5)
    np.testing.assert_allclose(whole.value, divided.value, atol=1e-3)


def test_continuous_data_have_a_density():
    """Without dequantisation the value is -log2 of the density on the data's scale, N(0.5, 0.15^2), and is negative."""
    values = np.random.default_rng(1).normal(0.5, 0.05, (16, 2, 2, 1))
    codec = ss.ContinuousCodec((2, 2, 1), mean=0.5, std=0.5)
    out = ss.bits_per_dim(GAUSSIAN, values, None, codec=codec, **EXACT)
    assert not out.is_bound
    std = math.sqrt(float(SDE.alpha(1e-5) ** 2 * 0.3**2 + SDE.variance(1e-5))) / 2
    expected = -stats.norm.logpdf(values, 0.5, std).mean(axis=(1, 2, 3)) / math.log(2)
    np.testing.assert_allclose(out.value, expected, atol=2e-3)
    assert out.value.mean() < 0
    assert set(out.terms) == {"scale"}


def test_an_example_is_a_function_of_itself_and_its_key():
    options = {"codec": CODEC, "draws": 2, "probes": 2}
    all_of_them = ss.bits_per_dim(GAUSSIAN, PIXELS[:8], KEYS[:8], **options)
    some = ss.bits_per_dim(GAUSSIAN, PIXELS[5:7], KEYS[5:7], **options)
    np.testing.assert_allclose(some.value, all_of_them.value[5:7], atol=1e-3)
    others = ss.bits_per_dim(GAUSSIAN, PIXELS[5:7], KEYS[15:17], **options)
    assert np.abs(others.value - some.value).min() > 1e-3


def test_the_summary_splits_the_error():
    """The summary recovers a known spread between examples and known probe errors."""
    rng = np.random.default_rng(0)
    n, data, probe = 40_000, 0.3, 0.4
    stderr = probe * np.sqrt(rng.chisquare(3, n) / 3)
    value = 2 + data * rng.standard_normal(n) + probe * rng.standard_normal(n)
    zeros = np.zeros(n)
    summary = BitsPerDim(value, stderr, zeros, zeros, {}, *[zeros] * 3, True).summary()
    assert summary.n == n
    assert abs(summary.bits_per_dim - 2) < 4 * 0.5 / math.sqrt(n)
    assert summary.stderr == pytest.approx(0.5 / math.sqrt(n), rel=0.02)
    assert summary.probe_stderr == pytest.approx(0.4 / math.sqrt(n), rel=0.02)
    assert summary.data_stderr == pytest.approx(0.3 / math.sqrt(n), rel=0.03)
    assert summary.stderr**2 == pytest.approx(summary.probe_stderr**2 + summary.data_stderr**2)
    single_probe = BitsPerDim(value, zeros * np.nan, zeros, zeros, {}, *[zeros] * 3, True).summary()
    assert (
        math.isnan(single_probe.probe_stderr)
        and math.isnan(single_probe.data_stderr)
        and single_probe.stderr == summary.stderr
    )


class NoBound(Divided):
    def encode(self, values, keys):
        x, terms = super().encode(values, keys)
        return x, terms | {"reconstruction": None}


class Scalar(Divided):
    def encode(self, values, keys):
        return super().encode(values, keys)[0], {"scale": 3.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": PIXELS[:2] + 14}, "values contain .*; expected whole numbers from 0 to 16"),
        ({"values": PIXELS[:2] - 30}, "expected whole numbers from 0 to 16"),
        ({"values": np.full((2, 2, 2, 1), np.nan)}, "values contain nan"),
        ({"codec": ss.ContinuousCodec((2, 2, 1))}, "values have dtype int"),
        ({"values": PIXELS[:2] + 0.25}, "expected whole numbers"),
        ({"values": PIXELS[:2, :1]}, r"values have shape \(2, 1, 2, 1\)"),
        ({"codec": NoBound((2, 2, 1))}, "NoBound gives no bound of its term 'reconstruction'"),
        ({"codec": Scalar((2, 2, 1))}, r"Scalar gives its term 'scale' the shape \(\)"),
        ({"draws": 0}, "draws is 0"),
        (
            {"codec": ss.ContinuousCodec((2, 2, 1)), "values": PIXELS[:2] + 0.25, "draws": 3},
            "draws is 3, and ContinuousCodec draws nothing",
        ),
        ({"probes": -1}, "probes is -1"),
        ({"keys": None}, "keys is None"),
        ({"keys": None, "trace": "exact"}, "the codec draws .* and needs one key per example"),
        ({"keys": np.zeros(2, np.uint32)}, "expected one key each"),
        ({"values": 3}, r"values have shape \(\)"),
        ({"keys": KEYS[:3]}, r"keys have shape \(3,\).* for 2"),
    ],
)
def test_bad_input_is_refused(change, words):
    arguments = {"values": PIXELS[:2], "keys": KEYS[:2], "codec": CODEC} | change
    with pytest.raises(ss.InputError, match=words):
        ss.bits_per_dim(GAUSSIAN, arguments.pop("values"), arguments.pop("keys"), **arguments)
