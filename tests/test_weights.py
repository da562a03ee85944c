"""This module tests that a weight means the same for every target, and that drawn times have their distributions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import score_sde as ss
from score_sde.experiment import Experiment
from score_sde.losses import time_sampling as times
from score_sde.losses import weighting as weights

N = 4000
SDES = {"vp": ss.VP(), "subvp": ss.SubVP(), "ve": ss.VE(sigma_max=20.0), "straight": ss.RectifiedFlow()}


@pytest.fixture(params=SDES)
def sde(request):
    return SDES[request.param]


WEIGHTS = {
    "likelihood": (weights.likelihood, "noise"),
    "karras": (weights.Karras(0.6), "x0"),
    "min_snr": (weights.MinSNR(5.0), "noise"),
    "sigmoid": (weights.Sigmoid(), "noise"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_means_the_same_for_every_target(x64, sde, name):
    """The three targets have the same loss, since alpha error(x_0) + sigma error(noise) = 0."""
    weight, of = WEIGHTS[name]
    x0 = jax.random.normal(jax.random.key(1), (16, 3))
    keys, t = jax.random.split(jax.random.key(0), 16), jnp.linspace(0.05, 0.9, 16)
    model = ss.GaussianMixture(sde, [1.0], [np.zeros(3)], 0.7)
    losses = [
        ss.denoising_loss(model, x0, keys, t=t, target=target, weight=weight) for target in ("noise", "x0", "velocity")
    ]
    np.testing.assert_allclose(losses, np.broadcast_to(losses[0], (3, 16)), rtol=1e-9)
    plain = ss.denoising_loss(model, x0, keys, t=t, target=of)
    np.testing.assert_allclose(losses[0], weight(sde, t) * plain, rtol=1e-9)


def test_the_weights_are_those_of_their_papers(x64):
    t = np.linspace(0.1, 0.9, 9)
    sde = ss.VP()
    beta, snr = 0.1 + 19.9 * t, np.asarray(sde.alpha(t) ** 2 / sde.variance(t))
    np.testing.assert_allclose(weights.likelihood(sde, t) * sde.variance(t), beta, rtol=1e-10)
    of_x0 = weights.on("x0", weights.MinSNR(5.0), sde, jnp.asarray(t))
    np.testing.assert_allclose(of_x0, np.minimum(snr, 5), rtol=1e-10)
    # The paper's loss is a mean over log-SNR, so the weight in t has the slope of log-SNR in t as a factor. Differences
    # of log_snr = -log(e^b - 1) give the slope; b is the integral of beta from 0 to t.
    b = [0.1 * u + 19.9 * u**2 / 2 for u in (t - 1e-6, t + 1e-6)]
    slope = np.diff([-np.log(np.expm1(part)) for part in b], axis=0)[0] / 2e-6
    np.testing.assert_allclose(weights.Sigmoid(2.0)(sde, t), -slope / (1 + np.exp(np.log(snr) - 2)), rtol=1e-6)
    sigma = np.geomspace(0.01, 50, 9)
    published = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    np.testing.assert_allclose(weights.Karras(0.5)(ss.EDM(), sigma), published, rtol=1e-10)


def test_weights_where_alpha_is_0():
    """At the end of a straight line min-SNR has the limits 1 on the noise, and 0 on x_0 and on the velocity."""
    sde, t = ss.RectifiedFlow(), jnp.asarray([1.0 - 2.0**-24, 1.0])
    np.testing.assert_allclose(weights.on("noise", weights.MinSNR(), sde, t), 1)
    np.testing.assert_allclose(weights.on("x0", weights.MinSNR(), sde, t), 0, atol=1e-12)
    np.testing.assert_allclose(weights.on("velocity", weights.MinSNR(), sde, t), 0, atol=1e-12)


def test_half_the_sum_is_the_original_setting():
    x0, keys = jnp.ones((4, 3, 2)), jax.random.split(jax.random.key(0), 4)
    model = ss.GaussianMixture(ss.VP(), [1.0], [np.zeros((3, 2))], 0.7)
    mean, half = (ss.denoising_loss(model, x0, keys, t=0.4, reduction=how) for how in ("mean", "half_sum"))
    np.testing.assert_allclose(half, 3 * mean, rtol=1e-6)


def test_velocity_matching_on_a_straight_line_is_flow_matching():
    """The loss is |v(x_t, t) - (noise - x_0)|^2, the loss of Lipman et al. 2023."""
    sde = ss.RectifiedFlow()
    x0, keys = jax.random.normal(jax.random.key(3), (8, 2)), jax.random.split(jax.random.key(0), 8)
    model, t, inputs = ss.GaussianMixture(sde, [1.0], [[0.5, 0.0]], 0.7), jnp.linspace(0.1, 1.0, 8), []

    class Spy(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            inputs.append(x)
            return model.predict(x, t)

    loss = ss.denoising_loss(Spy(sde), x0, keys, t=t, target="velocity")
    x_t = inputs[0]
    noise = (x_t - (1 - t[:, None]) * x0) / t[:, None]
    by_hand = jnp.mean((model.velocity(x_t, t) - (noise - x0)) ** 2, axis=1)
    np.testing.assert_allclose(loss, by_hand, rtol=1e-4)


@dataclasses.dataclass(frozen=True)
class Power(weights.Weighting):
    """`Power` weights the error of x_0 by SNR^power."""

    power: float = 1.0
    of = "x0"

    def __call__(self, sde, t):
        return jnp.exp(self.power * sde.log_snr(t))


@dataclasses.dataclass(frozen=True)
class Middle(times.TimeSampling):
    """`Middle` gives the same time and the same factor for every u."""

    factor: float = 2.0

    def __call__(self, sde, u):
        return jnp.full_like(u, 0.5), jnp.full_like(u, self.factor)


class NotARule:
    """`NotARule` is a class that a config may not call."""


def configured(**objective):
    network = dict(name="MLP", width=8, blocks=1)
    return Experiment.from_config(dict(data=dict(name="TwoMoons"), network=network, objective=objective)).objective


def test_a_config_names_a_weight_and_a_rule_by_dotted_path():
    objective = configured(
        weight=dict(name="tests.test_weights.Power", power=0.5), times="tests.test_weights.Middle", target="noise"
    )
    assert objective.weight.power == 0.5 and objective.times.factor == 2
    t, factor = objective.draw_times(jax.random.split(jax.random.key(0), 3), jnp.arange(3))
    assert (t == 0.5).all() and (factor == 2).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(weight="tests.test_weights.NotARule"), "is not a subclass of Weighting"),
        (dict(times="tests.test_weights.Power"), "is not a subclass of TimeSampling"),
        (dict(times="os.getcwd"), "is not a subclass of TimeSampling"),
        (dict(weight=dict(name="tests.test_weights.Power", gamma=1.0)), "no argument gamma"),
        (dict(weight="Weighting"), "expected one of Karras, MinSNR, Sigmoid, likelihood, unit"),
        (dict(weight=dict(name="unit", gamma=1.0)), "unit: no argument gamma"),
    ],
)
def test_a_config_cannot_call_what_is_no_rule(settings, words):
    with pytest.raises(ss.InputError, match=words):
        configured(**settings)


U = (np.arange(N) + 0.5) / N


def law(rule, sde):
    t, factor = rule(sde, jnp.asarray(U))
    return np.asarray(t), np.asarray(factor)


def test_log_normal_and_logit_normal_times(x64, sde):
    t, factor = law(times.LogNormal(-1.2, 1.2), ss.EDM())
    assert stats.kstest(np.log(t), stats.norm(-1.2, 1.2).cdf).statistic < 2 / N
    assert (factor == 1).all()
    t, _ = law(times.LogitNormal(0.3, 0.8), sde)
    part = (t - sde.t_min) / (sde.t_max - sde.t_min)
    assert stats.kstest(np.log(part / (1 - part)), stats.norm(0.3, 0.8).cdf).statistic < 2 / N


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_importance_times_have_the_density_of_the_likelihood_weight(x64, name):
    """For p proportional to g^2 / sigma^2, weight times factor is constant, and means equal uniform means."""
    sde = SDES[name]
    t, factor = law(times.importance, sde)
    weighted = factor * np.asarray(weights.likelihood(sde, t))
    np.testing.assert_allclose(weighted, weighted[0], rtol=1e-6)
    exact = integrate.quad(lambda u: float(sde.sigma(u)), sde.t_min, sde.t_max)[0] / (sde.t_max - sde.t_min)
    np.testing.assert_allclose(np.mean(factor * np.asarray(sde.sigma(t))), exact, rtol=1e-3)


def test_knots_are_the_levels_each_as_often(x64):
    t, _ = law(times.knots, ss.DDPM(10))
    levels, counts = np.unique(np.round(t * 10), return_counts=True)
    assert levels.tolist() == list(range(1, 11)) and (counts == N // 10).all()
    with pytest.raises(ss.InputError, match="VP has no levels"):
        times.knots(ss.VP(), jnp.asarray(U))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: weights.MinSNR(0.0), "gamma is 0.0"),
        (lambda: weights.Karras(-1.0), "data_std is -1.0"),
        (lambda: times.LogNormal(0.0, 0.0), "std is 0.0"),
    ],
)
def test_bad_rules_are_refused(make, words):
    with pytest.raises(ss.InputError, match=words):
        make()
