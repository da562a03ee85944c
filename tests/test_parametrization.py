"""This module tests that all parametrisations give the same prediction on an ideal network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss

MEANINGS = {
    "noise": ss.Noise(),
    "score": ss.Score(),
    "x0": ss.X0(),
    "velocity": ss.Velocity(),
    "v": ss.VPrediction(),
    "karras": ss.Preconditioned(data_std=0.6),
}
SDES = {
    "vp": ss.VP(),
    "subvp": ss.SubVP(),
    "ve": ss.VE(sigma_max=20.0),
    "cosine": ss.CosineVP(),
    "karras": ss.EDM(),
    "straight": ss.RectifiedFlow(),
    "ddpm": ss.DDPM(50),
}


def mixture(sde):
    return ss.GaussianMixture(sde, [0.4, 0.6], [[1.0, -1.0], [-0.5, 0.5]], [0.3, 0.6])


def output_of(name, sde, t, x0, noise, x):
    """Return the output that the parametrisation defines for x_0 and the noise."""
    alpha, sigma = np.asarray(sde.alpha(t)), np.asarray(sde.sigma(t))
    if name == "velocity":
        rates = [np.asarray(rate) for rate in sde.velocity_rates(t)]
        return rates[0] * x0 + rates[1] * noise
    if name == "karras":  # Karras et al. 2022, Eq. (7), is (x_0 - c_skip x_t) / c_out, here of x_t / alpha.
        level, std = sigma / alpha, 0.6
        c_skip, c_out = std**2 / (level**2 + std**2), level * std / np.sqrt(level**2 + std**2)
        return (x0 - c_skip * x / alpha) / c_out
    return {"noise": noise, "score": -noise / sigma, "x0": x0, "v": alpha * noise - sigma * x0}[name]


@pytest.mark.parametrize("which", SDES)
@pytest.mark.parametrize("name", MEANINGS)
def test_all_are_equal_on_an_ideal_network(x64, name, which):
    sde, meaning = SDES[which], MEANINGS[name]
    if which == "straight" and name in ("noise", "score"):
        with pytest.raises(ss.InputError, match=r"alpha\(t_max\) >= 1e-3"):
            meaning.check(sde)
    if which == "ddpm" and name == "velocity":
        with pytest.raises(ss.InputError, match="levels only"):
            meaning.coefficients(sde, jnp.asarray(0.5))
        return
    for t in sde.nearest(np.asarray([sde.t_stop, 0.05 * sde.t_max, 0.4 * sde.t_max, 0.98 * sde.t_max])):
        x = mixture(sde).marginal(t).sample(jax.random.split(jax.random.key(0), 5))
        exact = mixture(sde).predict(x, t)
        x0, noise = exact.x0, exact.noise
        output = output_of(name, sde, t, np.asarray(x0), np.asarray(noise), np.asarray(x))
        prediction = meaning.predict(sde, x, jnp.asarray(t), jnp.asarray(output))
        np.testing.assert_allclose(prediction.x0, x0, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(prediction.noise, noise, rtol=1e-7, atol=1e-7)


# x_0 and the noise are sums of two products, so the float32 error is a few roundings of the products. The closed forms
# of VPrediction, Preconditioned and Velocity keep the products as small as x_0, noise and x_t at both ends of time.
# Noise and Score multiply by 1 / alpha and X0 multiplies by 1 / sigma, so a product is large at one end of time.
@pytest.mark.parametrize("which", ["vp", "subvp", "ve", "cosine", "karras", "straight"])
@pytest.mark.parametrize("name", MEANINGS)
def test_float32_at_both_ends_of_time(name, which):
    sde, meaning = SDES[which], MEANINGS[name]
    for t in (sde.t_min, sde.t_stop, 0.999 * sde.t_max):
        with jax.enable_x64(True):
            x = mixture(sde).marginal(t).sample(jax.random.split(jax.random.key(0), 5))
            exact = mixture(sde).predict(x, t)
            x0, noise = np.asarray(exact.x0), np.asarray(exact.noise)
            output = output_of(name, sde, t, x0, noise, np.asarray(x))
            parts = meaning.coefficients(sde, jnp.asarray(t))
            sizes = [np.abs(np.asarray(a) * x).max() + np.abs(np.asarray(b) * output).max() for a, b in parts]
        single = [jnp.asarray(np.asarray(value), jnp.float32) for value in (x, output)]
        prediction = meaning.predict(sde, single[0], jnp.float32(t), single[1])
        for half, wanted, size in zip((prediction.x0, prediction.noise), (x0, noise), sizes, strict=True):
            if name in ("v", "karras", "velocity"):
                assert size < 3 * (1 + max(np.abs(part).max() for part in (x0, noise, x))), t
            # The subtraction in output_of, divided by sigma, adds a rounding error of float64.
            bound = 32 * np.finfo(np.float32).eps * size + 1e-15 * np.abs(x).max() / float(sde.sigma(t))
            assert np.abs(half - wanted).max() < bound, t


def test_coefficients_of_velocity_on_a_straight_line_are_those_of_flow_matching(x64):
    """The coefficients give x_0 = x_t - t F and noise = x_t + (1 - t) F, also at t = 1."""
    t = jnp.asarray([0.1, 0.5, 1.0])
    (a, b), (c, d) = ss.Velocity().coefficients(ss.RectifiedFlow(), t)
    np.testing.assert_allclose(a * jnp.ones(3), 1, rtol=1e-12)
    np.testing.assert_allclose(b, -t, rtol=1e-12)
    np.testing.assert_allclose(c * jnp.ones(3), 1, rtol=1e-12)
    np.testing.assert_allclose(d, 1 - t, atol=1e-12)


def test_labels_of_published_networks():
    t = jnp.asarray([0.25, 1.0])
    np.testing.assert_allclose(ss.Preconditioned().label(ss.EDM(), jnp.asarray(3.0)), np.log(3) / 4, rtol=1e-6)
    np.testing.assert_allclose(ss.Noise(time_label="index").label(ss.DDPM(1000), t), [249, 999])
    np.testing.assert_allclose(ss.Score(time_label="index").label(ss.SMLD(1000), t), [750, 0])
    with pytest.raises(ss.InputError, match="VP has no levels"):
        ss.NetworkDenoiser(ss.VP(), ss.Noise(time_label="index"), lambda *a: a, ())
    with pytest.raises(ss.InputError, match="data_std=None"):
        ss.Preconditioned(data_std=None)
    with pytest.raises(ss.InputError, match=r"inf at t_max of RectifiedFlow.*scaled_time"):
        ss.NetworkDenoiser(ss.RectifiedFlow(), ss.Preconditioned(), lambda *a: a, ())


@pytest.mark.parametrize(
    ("sde", "meaning", "stated", "embedding"),
    [
        ("EDM", dict(name="Preconditioned"), {}, "fourier"),
        ("EDM", dict(name="Preconditioned"), dict(embedding="positional"), "positional"),
        ("EDM", dict(name="Preconditioned", time_label="scaled_log_snr"), {}, "positional"),
        ("VE", dict(name="Noise", time_label="log_sigma"), {}, "fourier"),
        ("VP", dict(name="Noise"), {}, "positional"),
        ("DDPM", dict(name="Noise", time_label="index"), {}, "positional"),
    ],
)
def test_the_embedding_fits_the_labels(sde, meaning, stated, embedding):
    """The parametrisation chooses the embedding if the config states no embedding."""
    config = dict(data=dict(name="TwoMoons"), sde=dict(name=sde), parametrization=meaning)
    config["objective"] = dict(name="Denoising", times="knots" if sde == "DDPM" else "uniform")
    experiment = ss.Experiment.from_config(config | dict(network=dict(name="MLP", width=8) | stated))
    assert experiment.network.embedding == embedding
