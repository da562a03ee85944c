"""Guidance of a mixture whose conditional scores are known."""

import jax
import jax.numpy as jnp
import numpy as np

import score_sde as ss

MIXTURE = ([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], [0.5, 0.5])


def test_weights_interpolate_and_extrapolate_both_halves(x64, sde):
    model = ss.GaussianMixture(sde, *MIXTURE)
    x, t = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2))), 0.4
    cond = {"label": jnp.array([0, 1, 0, 1])}
    given, without = model.predict(x, t, cond), model.predict(x, t)
    for weight, from_given in ((0.0, 0), (1.0, 1), (3.0, 3), (-1.0, -1)):
        guided = ss.ClassifierFree(model, weight).predict(x, t, cond)
        for got, c, u in zip(guided[:2], given[:2], without[:2], strict=True):
            np.testing.assert_allclose(got, u + from_given * (c - u), rtol=1e-10, atol=1e-12)
        # A guided prediction is still two halves of one x_t.
        np.testing.assert_allclose(sde.alpha(t) * guided.x0 + sde.sigma(t) * guided.noise, x, rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(ss.ClassifierFree(model, 3.0).score(x, t), model.score(x, t))


def test_guided_samples_have_the_class_asked_for(sde):
    model = ss.ClassifierFree(ss.GaussianMixture(sde, *MIXTURE), 1.0)
    label = np.arange(400) % 2
    grid = ss.time_grid.default(sde, 60)
    x = ss.sample(model, ss.Ancestral(), grid, (2,), n=400, seed=0, cond={"label": label}).x
    assert np.array_equal(x[:, 0] > 0, label == 1)
    side = x[:, 0] * np.where(label == 1, 1, -1)
    assert abs(side.mean() - 2) < 0.15 and abs(side.std() - 0.5) < 0.1


def test_labels_are_dropped_at_the_rate_and_example_by_example():
    keys = jax.random.split(jax.random.key(0), 10_000)
    labels = jnp.arange(10_000) % 10
    dropped = np.asarray(ss.drop_labels(keys, labels, 0.1, 10))
    gone = dropped == 10
    assert abs(gone.mean() - 0.1) < 4 * np.sqrt(0.09 / 10_000)
    np.testing.assert_array_equal(dropped[~gone], np.asarray(labels)[~gone])
    np.testing.assert_array_equal(ss.drop_labels(keys[50:60], labels[50:60], 0.1, 10), dropped[50:60])
