"""Guidance follows its formula on a mixture whose conditional scores are known."""

import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss

MIXTURE = ([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], [0.5, 0.5])


def test_weights_interpolate_and_extrapolate_both_halves(x64, sde):
    model = ss.GaussianMixture(sde, *MIXTURE)
    x, t = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2))), 0.4
    cond = {"label": jnp.array([0, 1, 0, 1])}
    given, without = model.predict(x, t, cond), model.predict(x, t)
    for weight, from_given in ((0.0, 0), (1.0, 1), (3.0, 3), (-1.0, -1)):
        guided = ss.ClassifierFree(model, weight).predict(x, t, cond)
        for half in ("x0", "noise"):
            got, c, u = (getattr(prediction, half) for prediction in (guided, given, without))
            np.testing.assert_allclose(got, u + from_given * (c - u), rtol=1e-10, atol=1e-12)
        # The halves of a guided prediction add up to x_t.
        np.testing.assert_allclose(sde.alpha(t) * guided.x0 + sde.sigma(t) * guided.noise, x, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ss.ClassifierFree(model, 3.0).score(x, t), model.score(x, t), rtol=1e-10)
    np.testing.assert_array_equal(ss.ClassifierFree(model, 1.0).score(x, t, cond), model.score(x, t, cond))


def test_guided_samples_have_the_class_asked_for(sde):
    model = ss.ClassifierFree(ss.GaussianMixture(sde, *MIXTURE), 1.0)
    label = np.arange(400) % 2
    grid = ss.time_grid.default(sde, 60)
    x = ss.sample(model, ss.Ancestral(), grid, (2,), n=400, seed=0, cond={"label": label}).x
    assert np.array_equal(x[:, 0] > 0, label == 1)
    side = x[:, 0] * np.where(label == 1, 1, -1)
    assert abs(side.mean() - 2) < 0.15 and abs(side.std() - 0.5) < 0.1


def test_evaluations_are_counted_through_guides():
    """One guide makes two network evaluations per prediction, two guides make four; nfe includes the last denoising."""
    sde = ss.VP()
    model = ss.GaussianMixture(sde, *MIXTURE)
    once, twice = ss.ClassifierFree(model, 2.0), ss.ClassifierFree(ss.ClassifierFree(model, 2.0), 1.5)
    cond, grid = {"label": np.arange(3) % 2}, ss.time_grid.uniform(sde, 5)
    for sampler, evaluations in ((ss.Ancestral(), 1), (ss.Heun(), 2), (ss.DPMSolverPP2S(), 2), (ss.LMS(), 1)):
        for denoiser, cost in ((model, 1), (once, 2), (twice, 4)):
            nfe = ss.sample(denoiser, sampler, grid, (2,), n=3, seed=0, cond=cond).nfe
            assert nfe.tolist() == [cost * (5 * evaluations + 1)] * 3
    pair = ss.PredictorCorrector(ss.DDIM(), ss.Langevin(steps=3))
    assert ss.sample(once, pair, grid, (2,), n=3, seed=0, cond=cond).nfe.tolist() == [2 * (5 * 4 + 1)] * 3


@pytest.mark.slow
def test_the_adaptive_solves_count_guides_too():
    sde = ss.VP()
    model = ss.GaussianMixture(sde, *MIXTURE)
    x, cond = jnp.asarray([[1.0, 0.2], [-1.5, 0.1]]), {"label": np.arange(2)}
    plain = ss.log_prob(model, x, None, cond=cond, trace="exact")
    guided = ss.log_prob(ss.ClassifierFree(model, 1.0), x, None, cond=cond, trace="exact")
    np.testing.assert_allclose(guided.value, plain.value, atol=1e-3)
    np.testing.assert_array_equal(guided.nfe, 2 * (1 + 6 * (guided.accepted + guided.rejected)))
    grid = ss.time_grid.uniform(sde, 1)
    for sampler in (ss.ProbabilityFlow(1e-3, 1e-3), ss.AdaptiveReverseSDE(0.1, 0.1)):
        options = dict(n=2, seed=0, cond=cond, denoise=False)
        one = ss.sample(model, sampler, grid, (2,), **options)
        two = ss.sample(ss.ClassifierFree(model, 1.0), sampler, grid, (2,), **options)
        np.testing.assert_allclose(two.nfe, 2 * one.nfe, rtol=0.05)


def test_a_guide_leaves_out_what_it_is_told(sde):
    """A guide leaves out optional conditions, by default all of them; other names are refused."""
    model = ss.GaussianMixture(sde, *MIXTURE)
    x, cond = jnp.ones((2, 2)), {"label": jnp.array([0, 1])}
    by_default, by_name = (ss.ClassifierFree(model, 3.0, drop=drop).score(x, 0.4, cond) for drop in (None, ["label"]))
    np.testing.assert_array_equal(by_default, by_name)
    nothing = ss.ClassifierFree(model, 3.0, drop=()).score(x, 0.4, cond)
    np.testing.assert_allclose(nothing, model.score(x, 0.4, cond), rtol=1e-5)
    with pytest.raises(ss.InputError, match=r"drop=\['text'\]; expected optional conditions .* are: label"):
        ss.ClassifierFree(model, 3.0, drop=["text"])
    plain = ss.NetworkDenoiser(sde, ss.X0(), lambda params, x, *_, keys: x, ())
    with pytest.raises(ss.InputError, match="which are: none"):
        ss.ClassifierFree(plain, 3.0)
