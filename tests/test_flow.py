"""The adaptive solver, encoding, decoding, interpolation and the sampler ProbabilityFlow agree with closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde import ode
from score_sde.likelihood.latents import great_circle
from tests.closed_forms import FullGaussian, random_covariance

KEYS = jax.random.split(jax.random.key(0), 16)


@pytest.mark.parametrize(("t0", "t1"), [(0.25, 2.0), (2.0, 0.25)])
def test_solve_is_the_closed_form_in_both_directions(x64, t0, t1):
    """The solver solves y' = rate y and z' = cos t; each example has its own rate and its own steps."""
    rates = np.asarray([0.1, -1.0, 4.0]) * (1 if t1 > t0 else -1)
    y0 = (np.ones((3, 2)), np.zeros(3))
    errors = []
    for tolerance in (1e-4, 1e-7):
        out = ode.solve(lambda t, y, rate: (rate * y[0], jnp.cos(t)), y0, t0, t1, rates, rtol=tolerance, atol=tolerance)
        assert out.status.tolist() == [0, 0, 0]
        exact = np.exp(rates * (t1 - t0))
        relative = np.abs(out.y[0][:, 0] / exact - 1).max()
        errors.append(max(relative, np.abs(out.y[1] - (np.sin(t1) - np.sin(t0))).max()))
        assert len(set(out.accepted.tolist())) > 1
        np.testing.assert_array_equal(out.nfe, 6 * (out.accepted + out.rejected) + 1)
    assert errors[0] < 2e-3
    assert errors[1] < 2e-6


def gaussian_flow(sde, denoiser, x, start, end):
    """Return the linear flow of a Gaussian: along each eigenvector, whitened coordinates are constant."""
    spread = [np.sqrt(float(sde.alpha(t)) ** 2 * denoiser.values[0] + float(sde.variance(t))) for t in (start, end)]
    vectors, mean = denoiser.vectors[0], denoiser.means[0]
    whitened = (np.asarray(x, np.float64) - float(sde.alpha(start)) * mean) @ vectors / spread[0]
    return float(sde.alpha(end)) * mean + (whitened * spread[1]) @ vectors.T


def test_encode_and_decode_are_the_flow_of_a_gaussian(sde):
    rng = np.random.default_rng(0)
    denoiser = FullGaussian(sde, rng.standard_normal(4), random_covariance(rng, 4))
    x = denoiser.marginal(sde.t_min).sample(rng, 16)
    z = ss.encode(denoiser, x)
    expected = gaussian_flow(sde, denoiser, x, sde.t_min, sde.t_max)
    np.testing.assert_allclose(z.x, expected, atol=2e-3 * float(sde.prior_std))
    back = ss.decode(denoiser, z.x)
    np.testing.assert_allclose(back.x, x, atol=2e-3)
    assert (np.asarray(z.nfe) > 6).all()


def test_the_adaptive_sampler_walks_the_flow_of_a_gaussian(sde):
    rng = np.random.default_rng(1)
    denoiser = FullGaussian(sde, rng.standard_normal(4), random_covariance(rng, 4))
    start = np.asarray(sde.sample_prior(KEYS, (4,)))
    expected = gaussian_flow(sde, denoiser, start, sde.t_max, sde.t_stop)
    for grid in ([sde.t_max, sde.t_stop], ss.time_grid.uniform(sde, 3)):
        out = ss.sample(denoiser, ss.ProbabilityFlow(), grid, (4,), n=16, seed=0, x=start, denoise=False)
        np.testing.assert_allclose(out.x, expected, atol=2e-3)
    loose = ss.sample(denoiser, ss.ProbabilityFlow(1e-2, 1e-2), grid, (4,), n=16, seed=0, x=start, denoise=False)
    assert loose.nfe.max() < out.nfe.min()
    many = ss.sample(denoiser, ss.Heun(), ss.time_grid.uniform(sde, 2000), (4,), n=16, seed=0, x=start, denoise=False)
    np.testing.assert_allclose(many.x, out.x, atol=2e-2)


def test_samples_of_the_adaptive_sampler_follow_the_mixture(sde):
    mixture = ss.GaussianMixture(sde, [0.3, 0.7], [[2.0, 0.0], [-1.0, 1.0]], [0.3, 0.5])
    x = ss.sample(mixture, ss.ProbabilityFlow(1e-3, 1e-3), [sde.t_max, sde.t_stop], (2,), n=4000, seed=0).x
    covariance = np.asarray(mixture.data.covariance())
    bound = 4 * np.sqrt(np.diag(covariance) / 4000)
    # The bound exceeds the Monte-Carlo error as the prior differs from the marginal, most for VE with sigma_max 20.
    assert (np.abs(x.mean(axis=0) - np.asarray(mixture.data.mean())) < bound + 0.06).all()
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.25)


def test_interpolation_runs_from_one_image_to_the_other():
    sde, rng = ss.VP(), np.random.default_rng(2)
    denoiser = FullGaussian(sde, np.zeros(6), random_covariance(rng, 6))
    a, b = np.split(denoiser.marginal(sde.t_min).sample(rng, 8), 2)
    path = ss.interpolate(denoiser, a, b, 5)
    assert path.shape == (5, 4, 6)
    np.testing.assert_allclose(path[0], a, atol=2e-3)
    np.testing.assert_allclose(path[-1], b, atol=2e-3)
    z_a, z_b = ss.encode(denoiser, a).x, ss.encode(denoiser, b).x
    halfway = gaussian_flow(sde, denoiser, great_circle(z_a, z_b, 0.5), 1.0, sde.t_min)
    np.testing.assert_allclose(path[2], halfway, atol=2e-3)


def test_the_great_circle_keeps_its_length_and_its_angle():
    rng = np.random.default_rng(3)
    z_a, z_b = (z / np.linalg.norm(z, axis=1, keepdims=True) * 3 for z in rng.standard_normal((2, 5, 7)))
    point = np.asarray(great_circle(jnp.asarray(z_a), jnp.asarray(z_b), 0.25))
    np.testing.assert_allclose(np.linalg.norm(point, axis=1), 3, rtol=1e-5)
    whole, part = (np.arccos((z_a * other).sum(axis=1) / 9) for other in (z_b, point))
    np.testing.assert_allclose(part, whole / 4, rtol=1e-3)
    same = great_circle(jnp.asarray(z_a), jnp.asarray(z_a), 0.3)
    np.testing.assert_allclose(same, z_a, rtol=1e-5)
    opposite = great_circle(jnp.zeros((2, 3)), jnp.ones((2, 3)), 0.5)
    assert np.isfinite(opposite).all()


def test_bad_input_is_refused():
    denoiser = ss.GaussianMixture(ss.VP(), [1.0], [np.zeros(3)], 0.5)
    for call, words in (
        (lambda: ss.encode(denoiser, np.zeros((2, 3), int)), "dtype int"),
        (lambda: ss.decode(denoiser, np.full((2, 3), np.inf)), "NaN or infinity"),
        (lambda: ss.interpolate(denoiser, np.zeros((2, 3)), np.zeros((1, 3)), 3), r"\(2, 3\) and b \(1, 3\)"),
        (lambda: ss.interpolate(denoiser, np.zeros((2, 3)), np.zeros((2, 3)), 1), "is 1"),
        (lambda: ss.ProbabilityFlow(rtol=2.0), "rtol is 2.0"),
        (lambda: ss.ProbabilityFlow(0, 0), "both 0"),
    ):
        with pytest.raises(ss.InputError, match=words):
            call()
