"""This module tests the SDEs against the closed forms of Song et al. 2021 and against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import score_sde as ss

B0, B1 = 0.1, 20.0
S0, S1 = 0.01, 20.0
T = np.linspace(0.0, 1.0, 41)


def integrated_beta(t):
    """Return the integral of beta from 0 to t."""
    return B0 * t + (B1 - B0) * t**2 / 2


# The entries are (f, g^2, alpha, sigma) as printed: Eq. (9), (11), (12) and (29).
PUBLISHED = {
    "vp": (
        lambda t: -(B0 + t * (B1 - B0)) / 2,
        lambda t: B0 + t * (B1 - B0),
        lambda t: np.exp(-integrated_beta(t) / 2),
        lambda t: np.sqrt(-np.expm1(-integrated_beta(t))),
    ),
    "subvp": (
        lambda t: -(B0 + t * (B1 - B0)) / 2,
        lambda t: (B0 + t * (B1 - B0)) * -np.expm1(-2 * B0 * t - (B1 - B0) * t**2),
        lambda t: np.exp(-integrated_beta(t) / 2),
        lambda t: -np.expm1(-integrated_beta(t)),
    ),
    "ve": (
        lambda t: 0 * t,
        lambda t: (S0 * (S1 / S0) ** t) ** 2 * 2 * np.log(S1 / S0),
        lambda t: 1 + 0 * t,
        lambda t: S0 * (S1 / S0) ** t,
    ),
}


@pytest.fixture
def published(request, sde):
    return PUBLISHED[request.node.callspec.params["sde"]]


def test_published_coefficients_in_float64(x64, sde, published):
    f, g2, alpha, sigma = published
    np.testing.assert_allclose(sde.drift_rate(T), f(T), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sde.diffusion_squared(T), g2(T), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sde.alpha(T), alpha(T), rtol=1e-10)
    np.testing.assert_allclose(sde.sigma(T), sigma(T), rtol=1e-10)
    np.testing.assert_allclose(sde.log_snr(T[1:]), 2 * np.log(alpha(T[1:]) / sigma(T[1:])), rtol=1e-10, atol=1e-10)


def test_float32_is_accurate_at_both_ends(sde, published):
    _, g2, alpha, sigma = published
    t = np.array([1e-5, 1e-4, 1e-3, 0.5, 1.0], np.float32)
    exact = t.astype(np.float64)
    np.testing.assert_allclose(sde.sigma(t), sigma(exact), rtol=1e-5)
    np.testing.assert_allclose(sde.alpha(t), alpha(exact), rtol=1e-5)
    np.testing.assert_allclose(sde.diffusion(t), np.sqrt(g2(exact)), rtol=1e-5)


def test_drift_and_diffusion_act_on_x(sde, published):
    f, g2, *_ = published
    x, t = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2), np.array([0.2, 0.9], np.float32)
    np.testing.assert_allclose(sde.drift(jnp.asarray(x), t), f(t)[:, None, None] * x, rtol=1e-5)
    assert sde.diffusion(0.3).shape == () and sde.diffusion(t).shape == (2,)
    np.testing.assert_allclose(sde.diffusion(0.3), np.sqrt(g2(0.3)), rtol=1e-5)


def test_variance_solves_its_ode(x64, sde, published):
    """The variance agrees with d variance / dt = 2 f variance + g^2, solved by SciPy with the published f and g^2."""
    f, g2, _, sigma = published
    solution = integrate.solve_ivp(
        lambda t, v: 2 * f(t) * v + g2(t), (0.1, 1.0), [sigma(0.1) ** 2], rtol=1e-10, atol=1e-14
    )
    np.testing.assert_allclose(sde.variance(1.0), solution.y[0, -1], rtol=1e-8)


def test_transition_solves_the_forward_sde(x64, sde, published):
    """From a fixed x_s the mean decays as exp of the integral of f, and the variance solves the variance ODE from 0."""
    f, g2, *_ = published
    s, t = 0.3, 0.7
    r = np.exp(integrate.quad(f, s, t)[0])
    v = integrate.solve_ivp(lambda u, v: 2 * f(u) * v + g2(u), (s, t), [0.0], rtol=1e-10, atol=1e-14).y[0, -1]
    np.testing.assert_allclose(sde.transition(s, t), (r, v), rtol=1e-8)


def test_short_transitions_do_not_cancel_in_float32(sde, published):
    s = np.linspace(1e-5, 0.999, 50).astype(np.float32)
    t = (s + np.float32(1e-3)).astype(np.float32)
    with jax.enable_x64(True):
        exact = np.asarray(sde.transition(s.astype(np.float64), t.astype(np.float64))[1])
    np.testing.assert_allclose(sde.transition(s, t)[1], exact, rtol=2e-3)


def test_velocity_rates_are_derivatives(x64, sde):
    t, h = T[2:-2], 1e-6
    for rate, function in zip(sde.velocity_rates(t), (sde.alpha, sde.sigma), strict=True):
        np.testing.assert_allclose(rate, (function(t + h) - function(t - h)) / (2 * h), rtol=1e-6, atol=1e-7)


def test_perturb_and_prior(sde):
    x0, noise = np.random.default_rng(0).standard_normal((2, 3, 4, 2)).astype(np.float32)
    t = np.array([0.1, 0.5, 1.0], np.float32)
    expected = np.stack([float(sde.alpha(u)) * a + float(sde.sigma(u)) * b for a, b, u in zip(x0, noise, t)])
    np.testing.assert_allclose(sde.perturb(x0, noise, t), expected, rtol=1e-5, atol=1e-6)
    keys = jax.random.split(jax.random.key(0), 20_000)
    z = np.asarray(sde.sample_prior(keys, (3,)))
    std = float(sde.sigma(sde.t_max))
    assert abs(z.std() / std - 1) < 4 / np.sqrt(2 * z.size)  # The bound is four standard errors.
    assert abs(z.mean()) < 4 * std / np.sqrt(z.size)
    logp = stats.norm(0, std).logpdf(z[:5].astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(sde.prior_log_prob(z[:5]), logp, rtol=1e-5)


def test_examples_of_the_prior_do_not_know_each_other(sde):
    keys = jax.random.split(jax.random.key(1), 6)
    np.testing.assert_array_equal(sde.sample_prior(keys, (4,))[2:5], sde.sample_prior(keys[2:5], (4,)))


class Ornstein(ss.SDE):
    """`Ornstein` has alpha = exp(-t) and variance = 1 - exp(-2 t), so f = -1 and g^2 = 2; log_alpha is not given."""

    t_max = 5.0

    def alpha(self, t):
        return jnp.exp(-t)

    def variance(self, t):
        return -jnp.expm1(-2 * t)


def test_a_user_gives_two_functions(x64):
    sde = Ornstein()
    t = np.linspace(0, 5, 11)
    np.testing.assert_allclose(sde.drift_rate(t), -1, rtol=1e-10)
    np.testing.assert_allclose(sde.diffusion(t), np.sqrt(2), rtol=1e-10)
    assert sde.t_stop == sde.t_min == 1e-5
    np.testing.assert_allclose(sde.prior_std, np.sqrt(-np.expm1(-10)), rtol=1e-12)


def test_a_prior_std_may_be_given():
    class Wide(ss.VP):
        prior_std: float = 3.0

    np.testing.assert_allclose(Wide().prior_log_prob(jnp.zeros((1, 1))), stats.norm(0, 3).logpdf(0), rtol=1e-6)


def test_derived_attributes_may_be_parameters():
    class Own(ss.SDE):
        prior_std: float
        t_stop: float = 0.01

        def alpha(self, t):
            return jnp.exp(-t)

        def variance(self, t):
            return -jnp.expm1(-2 * t)

    sde = Own(2.0)
    assert (sde.prior_std, sde.t_stop) == (2.0, 0.01)
    assert Own(prior_std=2.0, t_stop=0.2).t_stop == 0.2
    assert ss.VP().t_stop == ss.SubVP().t_stop == 1e-3
    assert ss.VE().t_stop == 1e-5


class Straight(ss.SDE):
    """`Straight` has alpha = 1 - t and sigma = t, so no signal is left at t = 1."""

    def alpha(self, t):
        return 1 - t

    def variance(self, t):
        return t**2


def test_no_signal_is_said_and_survived():
    sde = Straight()
    x = jnp.ones((2, 3))
    with pytest.raises(ss.InputError, match=r"alpha\(t\) = 0 at t = 1"):
        sde.drift(x, 1.0)
    with pytest.raises(ss.InputError, match="Straight"):
        jax.jit(lambda x: sde.diffusion(1.0) * x)(x)
    np.testing.assert_allclose(sde.transition(0.5, 1.0), (0.0, 1.0))
    np.testing.assert_allclose(sde.velocity_rates(1.0), (-1.0, 1.0))
    np.testing.assert_allclose(sde.perturb(x, 2 * x, 1.0), 2.0)


def test_another_parameter_compiles_nothing(compiles):
    variance = jax.jit(lambda sde, t: sde.variance(t))
    variance(ss.VP(beta_max=20.0), 0.5)
    before = len(compiles)
    values = [float(variance(ss.VP(beta_max=b), 0.5)) for b in (10.0, 15, 16)]
    assert len(compiles) == before and values[0] != values[1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.VP(beta_min=3.0, beta_max=1.0), ["beta_min=3.0", "beta_max=1.0"]),
        (lambda: ss.VE(sigma_min=0.0), ["sigma_min=0.0", "expected 0 < sigma_min"]),
        (lambda: type("Nothing", (ss.SDE,), {"variance": lambda self, t: t})(), ["Nothing", "alpha(t)"]),
        (lambda: type("Backward", (Ornstein,), {"t_max": -1.0})(), ["Backward", "t_max=-1.0"]),
    ],
)
def test_bad_sdes_are_refused(make, words):
    with pytest.raises(ss.InputError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)
