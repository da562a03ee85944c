"""Denoisers and parametrisations agree with log densities differentiated by JAX, and with SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import score_sde as ss

WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[1.0, -1.0], [-0.5, 0.5], [0.2, 1.5]])
STDS = np.array([0.3, 0.6, 0.1])
TIMES = [1e-5, 1e-2, 0.3, 1.0]


def mixture(sde):
    return ss.GaussianMixture(sde, WEIGHTS, MEANS, STDS)


def points(sde, t, n=6):
    """Return n points drawn from the marginal at time t."""
    return mixture(sde).marginal(t).sample(jax.random.split(jax.random.key(0), n))


def marginal_log_prob(sde, x, t):
    """Return log p_t(x) of one point from the formula of a Gaussian mixture."""
    alpha, variance = sde.alpha(t), sde.variance(t)
    v = alpha**2 * STDS**2 + variance
    squares = jnp.sum((x - alpha * MEANS) ** 2, axis=1)
    return jax.nn.logsumexp(jnp.log(WEIGHTS) - squares / (2 * v) - jnp.log(2 * jnp.pi * v))


@pytest.mark.parametrize("t", TIMES)
def test_score_is_the_gradient_of_the_log_density(x64, sde, t):
    x = points(sde, t)
    exact = jax.vmap(jax.grad(lambda x: marginal_log_prob(sde, x, t)))(x)
    np.testing.assert_allclose(mixture(sde).score(x, t), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", TIMES)
def test_halves_add_up_and_velocity_is_the_probability_flow(x64, sde, t):
    x, model = points(sde, t), mixture(sde)
    predicted = model.predict(x, t)
    x0, noise = predicted.x0, predicted.noise
    np.testing.assert_allclose(sde.alpha(t) * x0 + sde.sigma(t) * noise, x, rtol=1e-10, atol=1e-10)
    flow = sde.drift(x, t) - sde.diffusion_squared(t) * model.score(x, t) / 2  # Eq. (13)
    np.testing.assert_allclose(model.velocity(x, t), flow, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(model.denoise(x, t), x0)
    np.testing.assert_array_equal(model.noise(x, t), noise)


def test_posterior_mean_by_numerical_integration(x64, sde):
    """The denoised value is E[x_0 | x_t], here in one dimension by quadrature over x_0."""
    model = ss.GaussianMixture(sde, [0.4, 0.6], [[-1.0], [0.7]], [0.3, 0.2])
    t, x = 0.2, 0.4
    x0 = np.linspace(-6, 6, 200_001)
    prior = 0.4 * stats.norm(-1.0, 0.3).pdf(x0) + 0.6 * stats.norm(0.7, 0.2).pdf(x0)
    joint = prior * stats.norm(float(sde.alpha(t)) * x0, float(sde.sigma(t))).pdf(x)
    expected = (joint * x0).sum() / joint.sum()
    np.testing.assert_allclose(model.denoise(jnp.full((1, 1), x), t)[0, 0], expected, rtol=1e-8)


def test_mixture_density_moments_and_draws(x64):
    density = ss.Mixture(WEIGHTS * 7, MEANS, STDS)  # `Mixture` normalises weights
    x = np.random.default_rng(0).standard_normal((5, 2))
    parts = [stats.multivariate_normal(m, s**2).logpdf(x) for m, s in zip(MEANS, STDS, strict=True)]
    expected = special.logsumexp(parts, axis=0, b=WEIGHTS[:, None])
    np.testing.assert_allclose(density.log_prob(x), expected, rtol=1e-10)
    draws = np.asarray(density.sample(jax.random.split(jax.random.key(0), 40_000)))
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - WEIGHTS @ MEANS) < 4 * error)
    np.testing.assert_allclose(density.mean(), WEIGHTS @ MEANS, rtol=1e-12)
    np.testing.assert_allclose(density.covariance(), np.cov(draws.T), atol=0.02)


def test_mixture_of_images_and_of_scalars(x64, sde):
    image = ss.GaussianMixture(sde, WEIGHTS, np.tile(MEANS[:, :, None, None], (1, 1, 3, 1)), STDS)
    flat = ss.GaussianMixture(sde, WEIGHTS, np.repeat(MEANS, 3, axis=1), STDS)
    x = np.random.default_rng(0).standard_normal((4, 6))
    t = np.array([0.1, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(
        image.score(jnp.asarray(x.reshape(4, 2, 3, 1)), t).reshape(4, 6), flat.score(jnp.asarray(x), t), rtol=1e-10
    )
    assert ss.GaussianMixture(sde, [1.0], [0.5], 0.1).denoise(jnp.zeros((3,)), 0.5).shape == (3,)


def test_a_label_chooses_a_component_and_an_absent_one_none(x64, sde):
    x, t = points(sde, 0.4), 0.4
    labels, absent = jnp.array([0, 1, 2, 0, 2, 1]), jnp.array([False, False, False, True, True, False])
    score = mixture(sde).score(x, t, {"label": labels, "absent": {"label": absent}})
    for i, label in enumerate(labels):
        pick = slice(None) if absent[i] else slice(label, label + 1)
        part = ss.GaussianMixture(sde, WEIGHTS[pick], MEANS[pick], STDS[pick])
        np.testing.assert_allclose(score[i], part.score(x[i : i + 1], t)[0], rtol=1e-9)


def ideal(sde, meaning):
    """Return a denoiser whose network has the exact output; the network gets the time as the time label only."""
    exact = mixture(sde)

    def apply(params, scaled, label, cond=None, *, keys=None):
        if meaning.time_label == "scaled_time":
            t = label / 999
        else:  # log sigma of VE is linear in t
            t = (label - np.log(sde.sigma_min)) / np.log(sde.sigma_max / sde.sigma_min)
        x = scaled / meaning.input_scale(sde, t)[:, None]
        output = exact.noise(x, t) if isinstance(meaning, ss.Noise) else exact.score(x, t)
        return output * params

    return ss.NetworkDenoiser(sde, meaning, apply, 1.0)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("make", [ss.Noise, ss.Score])
def test_parametrisations_of_an_ideal_network_are_exact(x64, sde, t, make):
    x = points(sde, t)
    meanings = [make(), make(data_std=0.8)]
    if isinstance(sde, ss.VE):
        meanings.append(make(time_label="log_sigma"))
    for meaning in meanings:
        predicted, exact = ideal(sde, meaning).predict(x, t), mixture(sde).predict(x, t)
        np.testing.assert_allclose(predicted.noise, exact.noise, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(predicted.x0, exact.x0, rtol=1e-6, atol=1e-6 / float(sde.alpha(t)))


@pytest.mark.parametrize("make", [ss.Noise, ss.Score])
def test_float32_keeps_both_halves_near_the_data(sde, make):
    """float32 keeps both halves at t_min, where their sizes differ by a factor of up to a million."""
    t = sde.t_min
    x = points(sde, t)
    with jax.enable_x64(True):
        exact = mixture(sde).predict(jnp.asarray(np.asarray(x, np.float64)), t)
        noise, x0 = np.asarray(exact.noise), np.asarray(exact.x0)
    output = jnp.asarray(noise if make is ss.Noise else -noise / float(sde.sigma(t)), jnp.float32)
    predicted = ss.NetworkDenoiser(sde, make(), lambda params, *_, keys: params, output).predict(x, t)
    np.testing.assert_allclose(predicted.noise, noise, rtol=1e-5)
    np.testing.assert_allclose(predicted.x0, x0, rtol=1e-5, atol=1e-6)


def test_the_input_has_unit_variance(sde):
    """The network input has unit variance at every time if data_std is the standard deviation of the data."""
    data_std, t = 0.7, np.array([1e-5, 0.1, 0.6, 1.0], np.float32)
    scale = ss.Noise(data_std=data_std).input_scale(sde, jnp.asarray(t))
    total = np.asarray(sde.alpha(t)) ** 2 * data_std**2 + np.asarray(sde.sigma(t)) ** 2
    np.testing.assert_allclose(np.asarray(scale) ** 2 * total, 1, rtol=1e-5)


def test_time_labels():
    t = jnp.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(ss.Noise().label(ss.VP(), t), [0, 249.75, 999], rtol=1e-6)
    ve = ss.VE(sigma_min=0.01, sigma_max=50.0)
    np.testing.assert_allclose(
        ss.Score(time_label="log_sigma").label(ve, t), np.log(0.01 * 5000 ** np.asarray(t)), rtol=1e-5
    )
    assert ss.Noise(time_label=lambda sde, t: 7 * t).label(ve, t)[2] == 7


def test_a_bfloat16_network_does_not_coarsen_the_rest(sde):
    x = points(sde, 0.5)
    zero = ss.NetworkDenoiser(sde, ss.Noise(), lambda p, x, *_, keys: (0 * x).astype(jnp.bfloat16), ())
    x0 = zero.predict(x, 0.5).x0
    assert x0.dtype == x.dtype
    np.testing.assert_allclose(x0, x / sde.alpha(0.5), rtol=1e-6)


def test_predictions_of_ones_own(x64, sde):
    x, t = points(sde, 0.3), 0.3
    exact = mixture(sde).predict(x, t)
    for prediction in (
        ss.Prediction.from_x0(sde, x, t, exact.x0),
        ss.Prediction.from_score(sde, x, t, mixture(sde).score(x, t)),
    ):
        np.testing.assert_allclose(prediction.x0, exact.x0, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(prediction.noise, exact.noise, rtol=1e-9, atol=1e-10)


class Faint(ss.VP):
    """`Faint` has almost no signal at t = 1."""

    beta_max: float = 60.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.NetworkDenoiser(Faint(), ss.Noise(), lambda *a: a, ()), ["alpha(t_max) >= 1e-3", "Faint"]),
        (lambda: ss.Noise(time_label="hours"), ["'hours'", "scaled_time"]),
        (lambda: ss.Score(data_std=-1.0), ["-1.0", "positive"]),
        (lambda: ss.Mixture([0.5, 0.5], np.zeros((3, 2)), 1.0), ["(2,)", "(3, 2)"]),
        (lambda: ss.Mixture([0.5, -0.5], np.zeros((2, 2)), 1.0), ["positive weights"]),
    ],
)
def test_bad_parts_are_refused(make, words):
    with pytest.raises(ss.InputError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)
