"""The loss of an exact denoiser is the posterior variance, which has a closed form for Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.losses.weighting import unit

STD = 0.6
N = 20_000


def data(n=N):
    return STD * jax.random.normal(jax.random.key(5), (n, 2))


def gaussian(sde):
    return ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], STD)


def keys(n=N):
    return jax.random.split(jax.random.key(7), n)


@pytest.mark.parametrize("t", [0.01, 0.3, 0.9])
def test_the_least_loss_is_the_posterior_variance(sde, t):
    """Var(noise | x_t) = alpha^2 s^2 / v, Var(x_0 | x_t) = sigma^2 s^2 / v with v = alpha^2 s^2 + sigma^2."""
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    alpha_rate, sigma_rate = map(float, sde.velocity_rates(t))
    v = alpha**2 * STD**2 + sigma**2
    expected = {
        "noise": alpha**2 * STD**2 / v,
        "x0": sigma**2 * STD**2 / v,
        # x_0 - E x_0 and noise - E noise have opposite signs: alpha (x_0 - E) + sigma (noise - E) = 0.
        "velocity": (sigma_rate * alpha - alpha_rate * sigma) ** 2 * STD**2 / v,
    }
    for target, value in expected.items():
        losses = np.asarray(ss.denoising_loss(gaussian(sde), data(), keys(), t=t, target=target), np.float64)
        assert losses.shape == (N,)
        assert abs(losses.mean() - value) < 4 * losses.std() / np.sqrt(N), target


def test_a_wrong_denoiser_adds_its_squared_error(sde):
    """The loss of a denoiser of other data is larger by the mean square of the difference (orthogonality)."""
    t = 0.3
    wrong = ss.GaussianMixture(sde, [1.0], [[1.0, 1.0]], STD)
    right = ss.denoising_loss(gaussian(sde), data(), keys(), t=t)
    gap = np.asarray(ss.denoising_loss(wrong, data(), keys(), t=t) - right, np.float64)
    v = float(sde.alpha(t)) ** 2 * STD**2 + float(sde.variance(t))
    expected = (float(sde.sigma(t)) * float(sde.alpha(t)) / v) ** 2
    assert abs(gap.mean() - expected) < 4 * gap.std() / np.sqrt(N)


def test_an_example_does_not_know_its_batch(sde):
    t = jnp.linspace(0.1, 0.9, 8)
    whole = ss.denoising_loss(gaussian(sde), data(8), keys(8), t=t)
    part = ss.denoising_loss(gaussian(sde), data(8)[3:6], keys(8)[3:6], t=t[3:6])
    np.testing.assert_allclose(part, whole[3:6], rtol=1e-5)


def test_data_drawn_with_the_same_keys_do_not_know_the_noise():
    """Mixture.sample and the loss draw independent numbers from the same keys."""
    density = ss.Mixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], 0.3)
    x0 = np.asarray(density.sample(keys()))
    noise = []

    class Spy(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            noise.append(np.asarray(x - self.sde.alpha(t) * x0) / float(self.sde.sigma(t)))
            return ss.Prediction(x, x)

    ss.denoising_loss(Spy(ss.VP()), jnp.asarray(x0), keys(), t=0.9)
    correlation = np.corrcoef(x0.T, noise[0].T)[:2, 2:]
    assert np.abs(correlation).max() < 4 / np.sqrt(N)


def test_weight_multiplies(sde):
    t = jnp.linspace(0.1, 0.9, 8)
    plain = ss.denoising_loss(gaussian(sde), data(8), keys(8), t=t, weight=unit)
    weighted = ss.denoising_loss(gaussian(sde), data(8), keys(8), t=t, weight=lambda sde, t: t**2)
    np.testing.assert_allclose(weighted, t**2 * plain, rtol=1e-5)


def test_dropout_is_on_in_training_only(sde):
    seen = []

    class Spy(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            seen.append(keys)
            return ss.Prediction(x, x)

    for train in (True, False):
        ss.denoising_loss(Spy(sde), data(4), keys(4), t=0.5, train=train)
    assert seen[0].shape == (4,) and seen[1] is None
    assert not np.array_equal(jax.random.key_data(seen[0]), jax.random.key_data(keys(4)))


def test_uniform_times_fill_the_interval(sde):
    t, factor = ss.time_sampling.uniform(sde, jax.random.uniform(jax.random.key(0), (N,)))
    t = np.asarray(t)
    assert (np.asarray(factor) == 1).all()
    assert sde.t_min <= t.min() < 1e-3 and 0.999 < t.max() <= sde.t_max
    assert abs(t.mean() - 0.5) < 4 / np.sqrt(12 * N)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "nose"}, ["'nose'", "noise, x0, velocity"]),
        ({"t": 1.5}, ["1.5", "[1e-05, 1]"]),
        ({"t": np.array([0.1, np.nan])}, ["nan"]),
        ({"t": np.zeros(3)}, ["(3,)", "one time per example"]),
        ({"keys": jax.random.key(0)}, ["one key per example"]),
    ],
)
def test_bad_input_is_refused(change, words):
    arguments = {"keys": keys(2), "t": 0.5} | change
    with pytest.raises(ss.InputError) as caught:
        ss.denoising_loss(gaussian(ss.VP()), data(2), arguments.pop("keys"), **arguments)
    assert all(word in str(caught.value) for word in words)


def test_data_that_are_not_finite_and_times_without_noise_are_refused():
    with pytest.raises(ss.InputError, match="x0 contains NaN"):
        ss.denoising_loss(gaussian(ss.VP()), data(2).at[0, 0].set(jnp.nan), keys(2), t=0.5)
    with pytest.raises(ss.InputError, match="t contains 0, where DDPM has no noise"):
        ss.denoising_loss(gaussian(ss.DDPM(10)), data(2), keys(2), t=0.0)
