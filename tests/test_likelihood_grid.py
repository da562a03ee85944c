"""This module tests likelihoods with fixed steps: closed forms, their own error estimates, and any batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from tests.closed_forms import mixture

KEYS = jax.random.split(jax.random.key(0), 40)


def data(model, n=40):
    return jnp.asarray(np.asarray(model.marginal(model.sde.t_min).sample(jax.random.split(jax.random.key(1), n))))


@pytest.mark.parametrize("sde", [ss.VP(), ss.EDM(), ss.RectifiedFlow()], ids=["vp", "karras", "straight"])
def test_fixed_steps_are_within_their_error_estimate_of_the_density(x64, sde):
    """With the exact prior, the value is the density of the mixture; the estimate bounds the error, and both fall."""
    model = mixture(sde)
    x, marginal = data(model), model.marginal(sde.t_min)
    prior = None if float(sde.alpha(sde.t_max)) == 0 else model.marginal(sde.t_max)
    errors = []
    for n in (40, 80):
        grid = np.linspace(1, np.sqrt(sde.t_min / sde.t_max), n + 1) ** 2 * float(sde.t_max)
        if isinstance(sde, ss.EDM):
            grid = ss.time_grid.karras(sde, n)
        grid[-1] = float(sde.t_min)
        out = ss.log_prob(model, x, None, trace="exact", prior=prior, grid=grid)
        error = np.abs(np.asarray(out.value - marginal.log_prob(x)))
        assert np.mean(error <= out.solve_error + 1e-9) >= 0.9
        assert error.mean() < 0.5 * float(out.solve_error.mean())
        assert set(np.asarray(out.nfe)) == {n + 1 + n // 2 + 1}
        assert set(np.asarray(out.accepted)) == {n}
        errors.append(error.mean())
    assert errors[1] < errors[0] / 5  # the method is of order 3


def test_a_fitted_grid_errs_less_than_its_start_on_fresh_data(x64):
    model = mixture(ss.VP())
    x = data(model)
    grid = ss.likelihood_grid(model, x, None, 24, trace="exact")
    assert grid.fit.kept
    assert grid.fit.gain > 0
    fresh = jnp.asarray(np.asarray(model.marginal(1e-5).sample(jax.random.split(jax.random.key(5), 40))))
    accurate = ss.log_prob(model, fresh, None, trace="exact", rtol=1e-9, atol=1e-9).value
    even = np.append(np.linspace(1, 1e-5**0.5, 25)[:-1] ** 2, 1e-5)
    errors = []
    for times in (grid, even, ss.time_grid.log_snr(ss.VP(), 23)):
        fixed = ss.log_prob(model, fresh, None, trace="exact", grid=times)
        errors.append(float(np.abs(fixed.value - accurate).mean()))
    assert errors[0] < 0.8 * min(errors[1:])
    assert grid.fit.error == pytest.approx(errors[0], rel=0.7)


def test_a_grid_of_ends_that_are_not_exact_squares():
    """sqrt(20)^2 is larger than 20 in float64; the ends of the grid are those of the SDE."""
    model = mixture(ss.EDM(0.02, 20.0))
    grid = ss.likelihood_grid(model, data(model, 4).astype(jnp.float32), KEYS[:4], 2, calls=6)
    np.testing.assert_array_equal(grid[[0, -1]], [20.0, 0.02])


def test_fixed_steps_give_the_same_value_for_any_batch():
    model = mixture(ss.VP())
    x, grid = data(model, 12).astype(jnp.float32), ss.time_grid.uniform(ss.VP(), 10)
    whole = ss.log_prob(model, x, KEYS[:12], grid=grid).value
    parts = [ss.log_prob(model, x[k : k + 5], KEYS[k : min(k + 5, 12)], grid=grid).value for k in (0, 5, 10)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-5)


def test_bits_have_the_error_of_the_solve():
    model = mixture(ss.VP())
    codec = ss.ContinuousCodec((2,))
    grid = ss.time_grid.uniform(ss.VP(), 20)
    bits = ss.bits_per_dim(model, np.asarray(data(model, 6), np.float32), KEYS[:6], codec=codec, grid=grid)
    assert bits.solve_error.shape == (6,)
    assert set(bits.accepted) == {21}  # the grid ends at t_stop, and t_min is one more time
    assert np.all(bits.solve_error > 0)
    assert ss.bits_per_dim(model, np.ones((1, 2), np.float32), KEYS[:1], codec=codec).solve_error is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: ss.log_prob(m, x, KEYS, grid=[0.9, 0.5, 1e-5]), "expected t_max"),
        (lambda m, x: ss.log_prob(m, x, KEYS, grid=[1e-5, 0.5, 1.0]), "expected decreasing times"),
        (lambda m, x: ss.likelihood_grid(m, x[:3], KEYS[:3], 5), "expected at least 4"),
        (lambda m, x: ss.likelihood_grid(m, x, KEYS, 0), "n, the steps of a likelihood"),
        (lambda m, x: ss.likelihood_grid(m, x, KEYS, 5, calls=3), "calls of likelihood_grid"),
        (lambda m, x: ss.likelihood_grid(mixture(ss.DDPM(10)), x, KEYS, 5), "denoiser.smooth"),
    ],
)
def test_wrong_grids_are_one_line(call, words):
    model = mixture(ss.VP())
    with pytest.raises(ss.InputError, match=words):
        call(model, data(model).astype(jnp.float32))
