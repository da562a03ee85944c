"""The variational bound against closed forms, SciPy, and its own parts; loss-aware times; the evaluations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

import score_sde as ss
from configs import digits
from score_sde.denoisers.bound_terms import log_probability, prior_term, step_term
from score_sde.jobs import evaluate, train
from score_sde.losses.time_sampling import LossAware

STD = np.asarray([0.3, 1.2])
N = 4000


def keys(n=N):
    return jax.random.split(jax.random.key(1), n)


def data(n=N):
    return (STD * np.random.default_rng(0).standard_normal((n, 2))).astype(np.float32)


def gaussian(sde):
    return ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], STD[None])


def kl(mean, variance, other_mean, other_variance):
    """Return KL(N(mean, variance) || N(other_mean, other_variance)) summed over the last axis, from the textbook."""
    each = np.log(other_variance / variance) + (variance + (mean - other_mean) ** 2) / other_variance - 1
    return 0.5 * each.sum(axis=-1)


@pytest.mark.parametrize(
    "sde", [ss.VP(), ss.EDM(), ss.CosineVP(), ss.LearnedVP(log_snr_min=-9.0), ss.DDPM(300, beta_max=0.07)], ids=repr
)
def test_on_gaussian_data_the_bounds_equal_the_density(sde):
    """The bound in continuous time, and that of a chain with the optimal variance, are tight in the mean."""
    x, model = data(), gaussian(sde)
    exact = -np.asarray(model.data.log_prob(jnp.asarray(x)), np.float64) / (2 * np.log(2))
    bounds = [ss.variational_bound(model, x, keys())]
    if sde.levels is None:
        bounds.append(ss.variational_bound(model, x, keys(), grid=ss.time_grid.uniform(sde, 10), variance="optimal"))
    for bound in bounds:
        gap = bound.value - exact
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(N)
        assert gap.std() / np.sqrt(N) < 0.05
        np.testing.assert_allclose(bound.value, sum(bound.terms.values()), rtol=0, atol=1e-5)
        if bound.levels is not None:
            np.testing.assert_allclose(bound.levels.sum(axis=1), bound.terms["diffusion"], rtol=1e-5, atol=1e-5)
            assert bound.levels.shape == (N, len(bound.times))
    fixed = ss.variational_bound(model, x, keys(), grid=ss.time_grid.uniform(sde, 10), variance="posterior")
    assert fixed.value.mean() > exact.mean() + 0.1


@pytest.mark.parametrize("sde", [ss.DDPM(50), ss.VP(), ss.SMLD(50, sigma_max=20.0)], ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("kind", ["posterior", "forward", "optimal"])
def test_a_term_is_the_divergence_of_two_gaussians(x64, sde, kind):
    """With the posterior variance the term is also (SNR_s - SNR_t) |x_0 - D|^2 / 2 (Kingma et al. 2021)."""
    s, t = 0.4, 0.5
    rng = np.random.default_rng(1)
    x0 = rng.standard_normal((3, 2))
    x_t = float(sde.alpha(t)) * x0 + float(sde.sigma(t)) * rng.standard_normal((3, 2))
    predicted = gaussian(sde).predict(jnp.asarray(x_t), t)
    r, v = (float(part) for part in sde.transition(s, t))
    alpha_s, variance_s, variance_t = float(sde.alpha(s)), float(sde.variance(s)), float(sde.variance(t))

    def mean(of):
        return r * variance_s / variance_t * x_t + alpha_s * v / variance_t * of

    lower = v * variance_s / variance_t
    v_t = float(sde.alpha(t)) ** 2 * STD**2 + variance_t
    optimal = alpha_s**2 * STD**2 + variance_s - (r * (alpha_s**2 * STD**2 + variance_s)) ** 2 / v_t
    reverse = {"posterior": lower, "forward": v, "optimal": optimal}[kind]
    expected = kl(mean(x0), lower, mean(np.asarray(predicted.x0)), reverse * np.ones(2))
    np.testing.assert_allclose(step_term(sde, s, t, jnp.asarray(x0), predicted, kind), expected, rtol=1e-7)
    if kind == "posterior":
        snr = [float(sde.alpha(u)) ** 2 / float(sde.variance(u)) for u in (s, t)]
        of_snr = (snr[0] - snr[1]) / 2 * np.sum((x0 - np.asarray(predicted.x0)) ** 2, axis=1)
        np.testing.assert_allclose(expected, of_snr, rtol=1e-7)


def test_the_prior_term(x64, sde):
    x0 = np.random.default_rng(0).standard_normal((3, 2))
    alpha, variance = float(sde.alpha(sde.t_max)), float(sde.variance(sde.t_max))
    expected = kl(alpha * x0, variance * np.ones(2), 0.0, float(sde.prior_std) ** 2)
    np.testing.assert_allclose(prior_term(sde, jnp.asarray(x0)), expected, rtol=1e-6, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.floats(-40, 40), st.floats(1e-6, 5))
def test_a_probability_between_two_ends_is_that_of_scipy(low, width):
    """SciPy integrates phi in float64, relative to phi at the end nearer to 0."""
    nearest = float(np.clip(0.0, low, low + width))
    part, _ = integrate.quad(lambda u: np.exp(-(u**2 - nearest**2) / 2), low, low + width, epsabs=0, epsrel=1e-9)
    expected = np.log(part) - nearest**2 / 2 - np.log(2 * np.pi) / 2
    with jax.enable_x64(True):
        exact = float(log_probability(*(jnp.asarray(end) for end in (low, low + width, 0.0, 1.0))))
    assert exact == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1e-3), (0.3, 0.05), (-2.0, 0.1), (0.99, 3.0), (0.2, 0.5), (1.0, 1e-4)])
def test_the_bins_of_a_byte_add_up_to_one(mean, std):
    codec = ss.QuantizedCodec((1,), 255)
    low, high = codec.bins(np.arange(256)[:, None])

    def logs(mean, std):
        return log_probability(low, high, mean, std)

    assert float(jnp.exp(logs(mean, std)).sum()) == pytest.approx(1, abs=1e-5)
    for value in (logs(mean, std), *jax.jacfwd(logs, (0, 1))(mean, std)):
        assert np.isfinite(value).all()
    of_sum = jax.grad(lambda *at: jnp.sum(logs(*at)), (0, 1))(mean, std)
    assert np.isfinite(of_sum).all()
    with jax.enable_x64(True):
        low, high = codec.bins(np.arange(256)[:, None])
        assert float(jnp.exp(logs(mean, std)).sum()) == pytest.approx(1, abs=1e-6)


def test_whole_numbers_cost_their_entropy():
    """Two numbers, each one of four values with equal probability, and the exact denoiser: 2 bits per dimension."""
    codec = ss.QuantizedCodec((2,), 3)
    values = np.random.default_rng(0).integers(0, 4, (3000, 2))
    every = np.stack(np.meshgrid(range(4), range(4)), axis=-1).reshape(-1, 2)
    points, _ = codec.encode(every, None)
    for sde in (ss.VP(), ss.DDPM(300, beta_max=0.07)):
        model = ss.GaussianMixture(sde, np.full(16, 1 / 16), points, 1e-4)
        bound = ss.variational_bound(model, values, keys(3000), codec=codec)
        mean, stderr = bound.mean()
        assert abs(mean - 2) < 4 * stderr + 0.01  # the chain's Gaussian steps are a little above the entropy
        assert stderr < 0.06
        assert set(bound.terms) == {"prior", "diffusion", "data"}


def test_dequantised_whole_numbers_cost_at_least_their_entropy():
    """Uniform noise in bins of width 1 / 2, and the exact denoiser of a mixture that is close to uniform."""
    codec, n = ss.QuantizedCodec((1,), 3), 2000
    values = np.random.default_rng(0).integers(0, 4, (n, 1))
    centres = np.linspace(-4 / 3, 4 / 3, 41)[1::2]  # 20 Gaussians over the range of the four bins
    model = ss.GaussianMixture(ss.VP(), np.full(20, 1 / 20), centres[:, None], 0.06)
    bound = ss.variational_bound(model, values, keys(n), codec=codec, dequantise=True)
    x, terms = codec.encode(values, keys_of(n))
    exact = -(np.asarray(model.data.log_prob(x)) + np.asarray(terms["scale"])) / np.log(2)
    mean, stderr = bound.mean()
    assert abs(mean - exact.mean()) < 4 * stderr
    assert set(bound.terms) == {"prior", "diffusion", "data", "scale", "dequantization"}
    assert exact.mean() > 2


def keys_of(n):
    return jax.vmap(jax.random.fold_in, (0, None))(keys(n), 5)


def test_some_levels_estimate_all_and_an_example_does_not_know_its_batch():
    chain = ss.DDPM(40, beta_max=0.4)
    model, x = gaussian(chain), data(400)
    every = ss.variational_bound(model, x, keys(400), variance="forward")
    some = ss.variational_bound(model, x, keys(400), variance="forward", draws=10)
    gap = some.terms["diffusion"] - every.terms["diffusion"]
    assert abs(gap.mean()) < 4 * gap.std() / 20
    assert some.levels is None
    assert every.nfe.tolist() == [40] * 400
    assert some.nfe[0] == 11
    part = ss.variational_bound(model, x[7:9], keys(400)[7:9], variance="forward", draws=10)
    np.testing.assert_allclose(part.value, some.value[7:9], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(variance="best"), "variational_bound got variance='best'"),
        (dict(grid=[0.5, 0.1]), "grid starts at 0.5; expected t_max = 1"),
        (dict(grid=[0.1, 1.0]), "expected decreasing times"),
        (dict(draws=0), "draws is 0"),
        (dict(keys=keys(3)), "keys"),
        (dict(denoiser=gaussian(ss.RectifiedFlow())), "use a smaller t_max, RectifiedFlow"),
        (dict(codec=ss.QuantizedCodec((2,), 3), x=np.full((4, 2), 7)), "values contain 7"),
    ],
)
def test_bad_input_gets_one_line(change, words):
    arguments = dict(denoiser=gaussian(ss.VP()), x=data(4), keys=keys(4)) | change
    first = [arguments.pop(name) for name in ("denoiser", "x", "keys")]
    with pytest.raises(ss.InputError, match=words) as error:
        ss.variational_bound(*first, **arguments)
    assert "\n" not in str(error.value)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 2), st.floats(0.1, 5)), min_size=1, max_size=25))
def test_a_history_keeps_the_last_losses_in_order(kept, seen):
    rule = LossAware(history=kept)
    state = rule.empty(3)
    lists = [[], [], []]
    for low in range(0, len(seen), 7):
        part = seen[low : low + 7]
        level, loss = (np.asarray(column) for column in zip(*part, strict=True))
        state = rule.push(state, jnp.asarray(level), jnp.asarray(loss, jnp.float32))
        for i, value in part:
            lists[i].append(value)
    assert state.counts.tolist() == [len(values) for values in lists]
    for row, values in zip(np.asarray(state.losses), lists, strict=True):
        wanted = values[-kept:] + [0.0] * max(0, kept - len(values))
        np.testing.assert_allclose(sorted(row), sorted(wanted), rtol=1e-6)
    known = all(len(values) >= kept for values in lists)
    size = np.asarray([np.sqrt(np.mean(np.square(values[-kept:]))) if values else 0 for values in lists])
    share = size / size.sum() if known and size.sum() > 0 else np.full(3, 1 / 3)
    np.testing.assert_allclose(rule.probabilities(state), 0.999 * share + 0.001 / 3, rtol=1e-4)


def test_loss_aware_times_do_not_change_the_mean_loss():
    rule, chain = LossAware(history=1, uniform=0.1), ss.DDPM(4)
    state = rule.push(rule.empty(4), jnp.arange(4), jnp.asarray([4.0, 1.0, 1.0, 2.0]))
    u = jnp.asarray((np.arange(8000) + 0.5) / 8000, jnp.float32)
    t, factor = rule.drawn(state, chain, u)
    loss = np.asarray([9.0, 2.0, 3.0, 7.0])[np.round(np.asarray(t) * 4).astype(int) - 1]
    assert float(np.mean(loss * np.asarray(factor))) == pytest.approx(21 / 4, rel=2e-3)
    assert np.mean(np.asarray(t) == 0.25) == pytest.approx(0.9 * 0.5 + 0.1 / 4, abs=1e-3)
    # In continuous time each bin has uniform times.
    binned = LossAware(history=1, uniform=0.1, bins=4)
    t, factor = binned.drawn(state, ss.VP(), u)
    assert float(np.mean(np.asarray(t) ** 2 * np.asarray(factor))) == pytest.approx(1 / 3, rel=2e-3)
    again = binned.observed(state, ss.VP(), jnp.asarray([0.1, 0.99]), jnp.asarray([5.0, 6.0]))
    assert again.losses[:, 0].tolist() == [5.0, 1.0, 1.0, 6.0]


def tiny(variant):
    config = digits.get_config(variant)
    config.network.update(channels=8, multipliers=(1,), attention=())
    config.data.batch_size = 16
    config.train.update(steps=4, log_every=2, eval_every=4, checkpoint_every=2, sample_every=0)
    config.sample.update(n=4, batch_size=4)
    config.sample.grid.n = 3
    config.eval.batch_size = 64
    return config


def test_the_evaluations_of_a_chain_with_a_learned_variance(tmp_path):
    config = tiny("ddpm,hybrid")
    config.sde.n = 30
    config.eval.what = "VariationalBound(first=20), NoiseMoments(n=40), HeldOutLoss"
    train(config, tmp_path)
    evaluate(config, tmp_path)
    found = json.loads((tmp_path / "eval" / "variational_bound.json").read_text())
    assert found["bits_per_dim"] == pytest.approx(sum(found["terms"].values()), abs=1e-5)
    assert len(found["levels"]) == len(found["t"]) == 29
    assert sum(found["levels"]) == pytest.approx(found["terms"]["diffusion"], rel=1e-4)
    model = ss.load(tmp_path)
    values = model.codec.quantize(np.full((4, 8, 8, 1), 3.0))
    own = model.variational_bound(values, variance="forward")
    assert own.value.shape == (4,)
    table = tmp_path / "eval" / "noise_moments.npz"
    grid = ss.time_grid.optimal(model.denoiser.sde, 5, str(table))
    drawn = model.sample(4, sampler=ss.Ancestral("optimal"), grid=grid, guidance=f"Analytic(table='{table}')")
    assert drawn.x.shape == (4, 8, 8, 1)
    config.eval.what = "VariationalBound(first=20, draws=3, variance='optimal')"
    with pytest.raises(ss.InputError, match="variance is 'optimal', but the denoiser predicts a BoundFraction"):
        evaluate(config, tmp_path)
