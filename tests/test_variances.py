"""The variance of a reverse step: closed forms for Gaussian data, the two fixed ones, heads of networks, and tables."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

import score_sde as ss
from configs import digits
from score_sde.denoisers import variance_heads
from score_sde.denoisers.reverse_variance import (
    BoundFraction,
    NoiseMoment,
    NoiseResidual,
    X0Variance,
    reverse_variance,
    variance_to_data,
)
from score_sde.experiment import Experiment
from score_sde.losses.denoising import Noised
from score_sde.losses.variational import level_term
from score_sde.sampling.time_grid.optimal import cheapest

STD = np.asarray([0.3, 1.2])
KEY = jax.random.split(jax.random.key(0), 1)
SDES = {
    "vp": ss.VP(),
    "subvp": ss.SubVP(),
    "ve": ss.VE(sigma_max=20.0),
    "edm": ss.EDM(),
    "straight": ss.RectifiedFlow(),
    "ddpm": ss.DDPM(100),
    "smld": ss.SMLD(100, sigma_max=20.0),
    "learned": ss.LearnedVP(),
}


def gaussian(sde):
    return ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], STD[None])


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), (0, 1, 7, 10), (0, 10)])
def test_with_the_optimal_variance_every_marginal_of_gaussian_data_is_exact(x64, name, places):
    """The step is linear, x_s = a x_t + std z, so the variance of x_s is a^2 Var(x_t) + std^2, in closed form."""
    sde = SDES[name]
    model, sampler = gaussian(sde), ss.Ancestral(variance="optimal")
    grid = ss.time_grid.uniform(sde, 10)[list(places)]
    marginal = [float(sde.alpha(t)) ** 2 * STD**2 + float(sde.variance(t)) for t in grid]
    variance = marginal[0]
    for t, s, expected in zip(grid[:-1], grid[1:], marginal[1:], strict=True):

        def step(x, t=t, s=s):
            return np.asarray(sampler.step(KEY, model, x, jnp.asarray(t), jnp.asarray(s), ())[0])[0]

        a = step(jnp.ones((1, 2))) - step(jnp.zeros((1, 2)))
        std = step(jnp.zeros((1, 2))) / np.asarray(jax.random.normal(KEY[0], (2,)))
        variance = a**2 * variance + std**2
        np.testing.assert_allclose(variance, expected, rtol=1e-9)


def test_the_mixtures_variance_is_that_of_its_posterior(x64):
    """In one dimension Var[x_0 | x_t] is a ratio of integrals, computed by SciPy."""
    sde, t = ss.VP(), 0.3
    weights, means, stds = np.asarray([0.3, 0.7]), np.asarray([1.5, -0.8]), np.asarray([0.3, 0.5])
    model = ss.GaussianMixture(sde, weights, means[:, None], stds)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    for x in (-1.0, 0.2, 0.9):

        def moment(k, x=x):
            def density(x0):
                return x0**k * np.sum(weights * stats.norm.pdf(x0, means, stds)) * stats.norm.pdf(x, alpha * x0, sigma)

            return integrate.quad(density, -5, 5, epsabs=1e-13, limit=200)[0]

        mean = moment(1) / moment(0)
        predicted = model.predict(jnp.asarray([[x]]), t)
        assert float(predicted.x0[0, 0]) == pytest.approx(mean, abs=1e-8)
        assert float(predicted.variance.value[0, 0]) == pytest.approx(moment(2) / moment(0) - mean**2, abs=1e-8)


def test_the_fraction_goes_from_one_fixed_variance_to_the_other(x64):
    """The betas of the paper's linear chain, from NumPy: beta, and beta tilde with the first replaced by the second."""
    n = 20
    betas = np.linspace(1e-4, 0.02, n)
    bar = np.cumprod(1 - betas)
    tilde = betas[1:] * (1 - bar[:-1]) / (1 - bar[1:])
    chain = ss.DDPM(n)
    t = np.arange(1, n + 1) / n
    for f, expected in ((0.0, [tilde[0], *tilde]), (1.0, betas), (0.5, np.sqrt([tilde[0], *tilde] * betas))):
        variance = BoundFraction(jnp.full((n, 1), f))
        np.testing.assert_allclose(np.asarray(variance.of(chain, t - 1 / n, t))[:, 0], expected, rtol=1e-9)
        first = variance.to_data(chain, t[:1])
        np.testing.assert_allclose(np.asarray(first)[0, 0], expected[0], rtol=1e-9)
    nothing = ss.Prediction(jnp.zeros((n, 1)), jnp.zeros((n, 1)))
    np.testing.assert_allclose(reverse_variance(chain, t - 1 / n, t, nothing, "forward"), betas, rtol=1e-9)
    np.testing.assert_allclose(reverse_variance(chain, t - 1 / n, t, nothing, "posterior"), [tilde[0], *tilde])
    assert float(variance_to_data(ss.VP(), 0.01, nothing, "posterior")) == pytest.approx(float(ss.VP().variance(0.01)))


def test_moments_of_the_noise_give_the_variance_of_x0(x64, sde):
    """For N(0, S^2), v = alpha^2 S^2 + sigma^2: Var[noise | x_t] = alpha^2 S^2 / v; that of x_0 is S^2 sigma^2 / v."""
    t, x = 0.4, jnp.asarray([[0.7, -0.3]])
    exact = gaussian(sde).predict(x, t)
    alpha2, variance = float(sde.alpha(t)) ** 2, float(sde.variance(t))
    v = alpha2 * STD**2 + variance
    residual = jnp.asarray([alpha2 * STD**2 / v])
    for head in (NoiseResidual(residual, np.inf), NoiseMoment(residual + exact.noise**2, exact.noise, np.inf)):
        np.testing.assert_allclose(head.x0_variance(sde, t)[0], STD**2 * variance / v, rtol=1e-9)
        np.testing.assert_allclose(head.of(sde, 0.2, t), exact.variance.of(sde, 0.2, t), rtol=1e-9)
    assert np.all(np.asarray(NoiseResidual(100 * residual, 1.0).x0_variance(sde, t)) <= 1)
    assert np.all(np.asarray(NoiseResidual(-residual, 1.0).x0_variance(sde, t)) == 0)


def experiment(variant, **changes):
    config = digits.get_config(variant)
    config.network.update(channels=8, multipliers=(1,), attention=())
    config.data.batch_size = 16
    for name, value in changes.items():
        config.objective[name] = value
    return Experiment.from_config(config)


def noised(sde, t, n=40_000, variance=None):
    """Return data N(0, S^2), their noise and the exact prediction, at one time."""
    keys = jax.random.split(jax.random.key(3), 2)
    x0 = STD * jax.random.normal(keys[0], (n, 2))
    noise = jax.random.normal(keys[1], (n, 2))
    exact = gaussian(sde).predict(sde.perturb(x0, noise, jnp.full(n, t)), t)
    return Noised(x0, noise, ss.Prediction(exact.x0, exact.noise, exact.variance if variance is None else variance))


def test_the_losses_of_a_variance_are_least_at_the_truth():
    """E (r^2 - h)^2 = 2 h^2 for r ~ N(0, h), and E (e^2 / C + log C) / 2 = (1 + log C) / 2 for e ~ N(0, C)."""
    t, n = 0.4, 40_000
    sde = ss.VP()
    alpha2, variance = float(sde.alpha(t)) ** 2, float(sde.variance(t))
    h = alpha2 * STD**2 / (alpha2 * STD**2 + variance)
    c = h * variance / alpha2
    moments, pixel = experiment("moments").objective, experiment("pixel").objective

    def loss(objective, head):
        return np.asarray(objective.of_variance(sde, jnp.full(n, t), noised(sde, t, variance=head), None))

    whole = jnp.broadcast_to(h, (n, 2))
    for objective, head, expected in (
        (moments, lambda f: NoiseResidual(f * whole, np.inf), np.mean(2 * h**2)),
        (pixel, lambda f: X0Variance(jnp.broadcast_to(f * c, (n, 2))), np.mean(1 + np.log(c)) / 2),
    ):
        losses = loss(objective, head(1.0))
        assert abs(losses.mean() - expected) < 4 * losses.std() / np.sqrt(n)
        assert loss(objective, head(1.2)).mean() > losses.mean() < loss(objective, head(0.8)).mean()


def test_the_hybrid_loss_does_not_train_the_mean_by_the_bound():
    objective = experiment("ddpm,hybrid").objective
    sde, t = objective.parts.sde, jnp.full(4, 0.3)
    data = noised(sde, 0.3, n=4)

    def bound(shift, f):
        predicted = ss.Prediction(data.predicted.x0 + shift, data.predicted.noise, BoundFraction(jnp.full((4, 2), f)))
        return jnp.sum(objective.of_variance(sde, t, data._replace(predicted=predicted), None))

    of_mean, of_variance = jax.grad(bound, (0, 1))(0.1, 0.5)
    assert float(of_mean) == 0
    assert float(of_variance) != 0
    # One level of N: the loss is weight N L_t in bits per dimension of the digits.
    fraction = data._replace(
        predicted=ss.Prediction(data.predicted.x0, data.predicted.noise, BoundFraction(jnp.full((4, 2), 0.5)))
    )
    term = level_term(sde, t, fraction, None, "learned")
    expected = 0.001 * 1000 * float(jnp.sum(term)) / (64 * np.log(2))
    assert float(bound(0.0, 0.5)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        ss.networks.DDPMpp((8, 8, 1), channels=8, multipliers=(1,), blocks=1),
        ss.networks.DDPMpp((8, 8, 1), channels=8, multipliers=(1,), blocks=1, fold=2),
        ss.networks.DDPMpp((8, 8, 1), channels=8, multipliers=(1,), blocks=1, fold=2, stem=4),
        ss.networks.NCSNpp((8, 8, 1), channels=8, multipliers=(1, 1), blocks=1, progressive="output_skip"),
        ss.networks.MLP((3,), width=8, blocks=1),
    ],
    ids=["unet", "fold", "stem", "skip", "mlp"],
)
def test_a_head_is_beside_the_network_and_leaves_its_mean(network):
    two = dataclasses.replace(network, outputs=2)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).normal(size=leaf.shape), jnp.float32) / 4,
        two.init(jax.random.key(0)),
    )
    x, label = jnp.ones((2, *network.shape)), jnp.asarray([0.5, 3.0])
    both = two.apply(params, x, label)
    assert both.shape == (*x.shape[:-1], 2 * x.shape[-1])
    rest, head = ss.networks.parted(params, two)
    if network != ss.networks.DDPMpp((8, 8, 1), channels=8, multipliers=(1,), blocks=1, fold=2):
        assert jax.tree.structure(rest) == jax.tree.structure(network.init(jax.random.key(0)))
    assert jax.tree.leaves(head)
    joined = ss.networks.joined(rest, head)
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    np.testing.assert_array_equal(both[..., : x.shape[-1]], network.apply(rest, x, label))
    other = ss.networks.joined(rest, jax.tree.map(lambda leaf: leaf + 1, head))
    changed = two.apply(other, x, label)
    np.testing.assert_array_equal(changed[..., : x.shape[-1]], both[..., : x.shape[-1]])
    assert np.abs(changed - both)[..., x.shape[-1] :].min() > 0


def test_the_head_of_log_x0_starts_at_gaussian_data():
    sde, t = ss.VP(), jnp.asarray([0.3])
    mean = ss.Prediction(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    variance = variance_heads.log_x0(sde, t, jnp.zeros((1, 2)), mean, variance_heads.Scale(0.3))
    exact = ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], 0.3).predict(jnp.zeros((1, 2)), t)
    np.testing.assert_allclose(variance.value, exact.variance.value, rtol=1e-5)


def test_moments_of_gaussian_data_are_known_and_give_the_variance(tmp_path, sde):
    """Gamma = E |E[noise | x_t]|^2 / D = sigma^2 / v for Gaussian data, and C follows from a table of it."""
    n, std = 4000, 0.6
    model = ss.GaussianMixture(sde, [1.0], [np.zeros(8)], std)
    times = np.asarray(ss.time_grid.uniform(sde, 5)[::-1])
    x0 = std * np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    moments = ss.noise_moments(model, x0, jax.random.split(jax.random.key(1), n), times)
    gamma, stderr = moments.mean(axis=0), moments.std(axis=0) / np.sqrt(n)
    variance, alpha2 = np.asarray(sde.variance(times)), np.asarray(sde.alpha(times)) ** 2
    v = alpha2 * std**2 + variance
    assert np.all(np.abs(gamma - variance / v) < 4.5 * stderr)
    exact = ss.MomentTable(times, sde.log_snr(times), variance / v)
    exact.save(tmp_path / "noise_moments.npz")
    guide = ss.Analytic(model, str(tmp_path / "noise_moments.npz"))
    for t, c in list(zip(times, std**2 * variance / v, strict=True))[1:]:
        predicted = guide.predict(jnp.zeros((3, 8)), t)
        np.testing.assert_allclose(predicted.variance.value, c, rtol=2e-2 if c > 1e-2 else 0.2)
    capped = ss.Analytic(model, exact, largest=0.01).predict(jnp.zeros((3, 8)), float(sde.t_max))
    assert np.all(np.asarray(capped.variance.value) <= 0.01 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.data())
def test_the_cheapest_steps_are_those_of_brute_force(m, data):
    n = data.draw(st.integers(1, m - 1))
    cost = np.asarray(data.draw(st.lists(st.floats(0, 9), min_size=m * m, max_size=m * m))).reshape(m, m)
    places = cheapest(cost, n)

    def total(path):
        return sum(cost[a, b] for a, b in itertools.pairwise(path))

    least = min(total((0, *inner, m - 1)) for inner in itertools.combinations(range(1, m - 1), n - 1))
    assert places[0] == 0
    assert places[-1] == m - 1
    assert np.all(np.diff(places) > 0)
    assert len(places) == n + 1
    assert total(places) == pytest.approx(least)


TWO_STDS = np.asarray([0.05, 1.0])


def exact_gamma(chain, levels):
    variance, alpha2 = np.asarray(chain.variance(levels), float), np.asarray(chain.alpha(levels), float) ** 2
    return np.mean(variance[:, None] / (alpha2[:, None] * TWO_STDS**2 + variance[:, None]), axis=1)


def bound_of_steps(chain, times):
    """Return the bound of Gaussian data but for a constant, with one optimal variance for both dimensions."""
    total = 0.0
    for t, s in itertools.pairwise(times):
        marginal = [float(chain.alpha(u)) ** 2 * TWO_STDS**2 + float(chain.variance(u)) for u in (s, t)]
        r, v = (float(part) for part in chain.transition(s, t))
        # Var(x_s | x_t) of jointly Gaussian x_s and x_t, without C.
        exact = np.mean(marginal[0] - (r * marginal[0]) ** 2 / marginal[1])
        total += np.log(exact / (v * float(chain.variance(s)) / float(chain.variance(t)))) / 2
    return total


def test_the_optimal_grid_has_the_least_bound_of_gaussian_data():
    """With one variance for both dimensions the bound depends on the grid; V is the mean of both reverse variances."""
    chain, n = ss.DDPM(60), 4
    levels = np.arange(1, 61) / 60
    table = ss.MomentTable(levels, chain.log_snr(levels), exact_gamma(chain, levels))
    grid = ss.time_grid.optimal(chain, n, table)
    assert len(grid) == n + 1
    least = bound_of_steps(chain, grid)
    assert least < bound_of_steps(chain, ss.time_grid.uniform(chain, n)) - 1e-3
    draws = np.random.default_rng(0)
    for _ in range(100):
        inner = draws.choice(np.arange(2, 60), n - 1, replace=False)
        assert least <= bound_of_steps(chain, np.asarray([60, *np.sort(inner)[::-1], 1]) / 60) + 1e-6


def test_an_optimal_grid_from_a_measured_table_is_nearly_optimal():
    """At much noise the standard error of Gamma is larger than 1 - Gamma; C of one level alone would often be 0."""
    chain, n, error = ss.DDPM(1000), 9, 0.01
    levels = np.round(np.linspace(1, 1000, 60)) / 1000
    gamma, draws = exact_gamma(chain, levels), np.random.default_rng(0)
    exact = ss.MomentTable(levels, chain.log_snr(levels), gamma)
    measured = gamma + error * draws.standard_normal(60)
    assert np.sum(measured[-20:] > 1) > 3
    table = ss.MomentTable(levels, chain.log_snr(levels), measured, np.full(60, error))
    assert np.all(np.diff(table.rising_x0_variance()) >= 0)
    np.testing.assert_allclose(exact.rising_x0_variance(), exact.x0_variance(chain, levels), rtol=5e-3)
    least, of_table, even = (
        bound_of_steps(chain, grid)
        for grid in (
            ss.time_grid.optimal(chain, n, exact),
            ss.time_grid.optimal(chain, n, table),
            ss.time_grid.uniform(chain, n),
        )
    )
    assert least <= of_table < least + 0.3 * (even - least)


def test_spacings_have_the_published_levels():
    """The indices are those of arXiv:2305.08891, Table 2, for T = 1000 and 10 steps; a level is its index + 1."""
    chain = ss.DDPM(1000)

    def levels(grid):
        assert grid[-1] == 0
        return np.round(grid[:-1] * 1000).astype(int).tolist()

    assert levels(ss.time_grid.trailing(chain, 10)) == list(range(1000, 0, -100))
    assert levels(ss.time_grid.linspace(chain, 10)) == [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1]
    # The published highest level 901 is moved to 1000, where the prior is.
    assert levels(ss.time_grid.leading(chain, 10)) == [1000, *range(801, 0, -100)]
    sections = levels(ss.time_grid.spaced(ss.DDPM(1000), "10,10,20"))
    assert len(sections) == 40
    assert [sum(low < level <= high for level in sections) for low, high in ((0, 334), (334, 667), (667, 1000))] == [
        10,
        10,
        20,
    ]
    assert {1, 334, 335, 667, 668, 1000} <= set(sections)
    x = ss.sample(gaussian(chain), ss.Ancestral("optimal"), ss.time_grid.trailing(chain, 5), (2,), n=4, seed=0)
    assert x.nfe.tolist() == [5] * 4


CHAIN = ss.DDPM(20)


def a_table(sde=CHAIN, n=20):
    times = np.arange(1, n + 1) / n
    return ss.MomentTable(times, sde.log_snr(times), np.full(n, 0.5))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ss.time_grid.linspace(CHAIN, 21), "linspace was asked for 21 steps, and DDPM has 20 levels"),
        (lambda: ss.time_grid.trailing(ss.VP(), 5), "VP has no levels for time_grid.trailing"),
        (lambda: ss.time_grid.spaced(CHAIN, "5,11"), "counts asks for 11 levels of section 1, which has 10"),
        (lambda: ss.time_grid.spaced(CHAIN, "a"), "counts is 'a'; expected whole numbers"),
        (lambda: ss.time_grid.optimal(CHAIN, 20, a_table()), "the table has 20 times; expected at most 19"),
        (lambda: ss.Analytic(gaussian(CHAIN), a_table(ss.CosineDDPM(20))), "expected the table of this chain"),
        (lambda: ss.Analytic(gaussian(ss.EDM()), a_table()), "expected the table of this chain"),
        (lambda: ss.Analytic(gaussian(CHAIN), "nothing.npz"), "nothing.npz cannot be read"),
        (lambda: ss.Analytic(gaussian(CHAIN), "README.md"), "README.md is no table of moments"),
        (lambda: ss.Ancestral("optimum"), "Ancestral got variance='optimum'; expected one of posterior, forward"),
        (lambda: ss.MomentTable([0.1, 0.2], [1.0], [0.5, 0.5]), r"columns of shapes \(2,\), \(1,\)"),
        (lambda: ss.Noise(variance="learned"), "parametrization.variance is 'learned'; expected one of fraction"),
        (lambda: ss.networks.MLP((2,), outputs=3), "outputs is 3; expected 1, or 2"),
        (lambda: experiment("vp,hybrid"), "Hybrid needs the levels of a chain"),
        (lambda: experiment("ddpm,hybrid", bound_weight=-1.0), "objective.bound_weight is -1.0"),
        (lambda: experiment("ddpm,hybrid", times="uniform"), "draws times between the levels"),
        (lambda: experiment("learned", name="Hybrid"), "Hybrid needs the levels"),
    ],
)
def test_bad_input_gets_one_line(call, words):
    with pytest.raises(ss.InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_variance_that_nobody_predicts_is_refused():
    grid = ss.time_grid.uniform(CHAIN, 3)
    network = ss.networks.MLP((2,), width=8, blocks=1)
    denoiser = ss.NetworkDenoiser(CHAIN, ss.Noise("index"), network, network.init(jax.random.key(0)))
    for kind in ("learned", "optimal"):
        with pytest.raises(ss.InputError, match=f"variance is '{kind}', but the denoiser predicts no variance"):
            ss.sample(denoiser, ss.Ancestral(kind), grid, (2,), n=2, seed=0)
    two = dataclasses.replace(network, outputs=2)
    params = two.init(jax.random.key(0))
    fraction = ss.NetworkDenoiser(CHAIN, ss.Noise("index", variance="fraction"), two, params)
    assert np.isfinite(ss.sample(fraction, ss.Ancestral("learned"), grid, (2,), n=2, seed=0).x).all()
    with pytest.raises(ss.InputError, match="variance is 'optimal', but the denoiser predicts a BoundFraction"):
        ss.sample(fraction, ss.Ancestral("optimal"), grid, (2,), n=2, seed=0)
    with pytest.raises(ss.InputError, match=r"returns shape \(2, 2\) for x of shape \(2, 2\); expected \(2, 4\)"):
        ss.NetworkDenoiser(CHAIN, fraction.parametrization, network, denoiser.params).denoise(jnp.ones((2, 2)), 0.5)
