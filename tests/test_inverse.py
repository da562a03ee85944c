"""Operators, posterior denoisers and their samplers agree with closed forms and with independent libraries."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from scipy import ndimage, stats

import score_sde as ss
from score_sde import inverse
from score_sde.inverse.solve import conjugate_gradients
from tests.closed_forms import FullGaussian, posterior_law, random_covariance

RNG = np.random.default_rng(0)
CODEC = ss.QuantizedCodec((6, 8, 3), 255)
OPERATORS = {
    "mask": (inverse.Mask(), (6, 8, 3)),
    "one mask": (inverse.Mask(RNG.random((6, 8, 1)) < 0.5), (6, 8, 3)),
    "gray": (inverse.Gray(), (6, 8, 3)),
    "average": (inverse.Downsample(2), (6, 8, 3)),
    "bicubic": (inverse.Downsample(2, "bicubic"), (6, 8, 3)),
    "blur reflect": (inverse.Blur(0.7), (6, 8, 3)),
    "blur circular": (inverse.Blur(0.7, "circular"), (6, 8, 3)),
    "blur zero": (inverse.Blur(0.7, "zero"), (6, 8, 3)),
    "blur edge": (inverse.Blur(1.1, "edge"), (6, 8, 3)),
    "matrix": (inverse.Linear(RNG.standard_normal((5, 12)), (2, 2, 3)), (2, 2, 3)),
    "function": (inverse.Function(lambda x: jnp.cumsum(x, axis=0)[1:], (6, 8, 3)), (6, 8, 3)),
    "chain": (inverse.Chain(inverse.Blur(0.7), inverse.Downsample(2), inverse.Gray()), (6, 8, 3)),
    "chain with mask": (inverse.Chain(inverse.Blur(0.7), inverse.Mask()), (6, 8, 3)),
    "through": (inverse.Through(inverse.Downsample(2), CODEC), (6, 8, 3)),
}
ORTHOGONAL = ("mask", "one mask", "gray", "average")


def cond_of(operator, shape, n):
    mask = np.random.default_rng(3).random((n, *shape)) < 0.6
    return {"mask": jnp.asarray(mask)} if "mask" in operator.reads(shape) else None


@pytest.mark.parametrize("name", OPERATORS)
def test_every_adjoint(x64, name):
    """<A x, y> = <x, A^T y>, where A is the linear part; the linear part is linear; shapes and scales are as stated."""
    operator, shape = OPERATORS[name]
    rng = np.random.default_rng(1)
    x, z = (jnp.asarray(rng.standard_normal((3, *shape))) for _ in range(2))
    cond = cond_of(operator, shape, 3)
    constant = operator(jnp.zeros_like(x), cond)
    linear = operator(x, cond) - constant
    y = jnp.asarray(rng.standard_normal(linear.shape))
    back = operator.adjoint(y, cond)
    assert back.shape == x.shape and operator.is_affine
    np.testing.assert_allclose(
        jnp.sum(linear * y, axis=range(1, y.ndim)), jnp.sum(x * back, axis=range(1, x.ndim)), rtol=1e-10
    )
    both = operator(2 * x - 3 * z, cond) - constant
    np.testing.assert_allclose(both, 2 * linear - 3 * (operator(z, cond) - constant), rtol=1e-9, atol=1e-9)
    assert operator.measured_shape(shape) == linear.shape[1:] and operator.input_shape(linear.shape[1:]) == shape
    scale = operator.scale(shape)
    assert (scale is not None) == (name in ORTHOGONAL)
    if scale is not None:  # A A^T = c I, where something is measured
        forth = operator(operator.adjoint(y, cond), cond)
        np.testing.assert_allclose(forth, scale * y * operator.measured(y, cond), atol=1e-12)
    residual = operator.residual(x, y, cond)
    np.testing.assert_allclose(residual, operator.measured(y, cond) * (y - operator(x, cond)), rtol=1e-9, atol=1e-9)


def test_operators_against_other_libraries():
    x = np.random.default_rng(2).standard_normal((2, 12, 16, 3)).astype(np.float32)
    for std in (0.6, 1.3):
        for ours, theirs in (("reflect", "mirror"), ("circular", "wrap"), ("zero", "constant"), ("edge", "nearest")):
            wide = ndimage.gaussian_filter(x, std, mode=theirs, axes=(1, 2))
            np.testing.assert_allclose(inverse.Blur(std, ours)(jnp.asarray(x)), wide, atol=2e-6)
    small = inverse.Downsample(4, "bicubic")(jnp.asarray(x))
    box = inverse.Downsample(4)(jnp.asarray(x))
    for i in range(2):
        for channel in range(3):
            picture = PIL.Image.fromarray(x[i, :, :, channel], mode="F")
            for got, how in ((small, PIL.Image.Resampling.BICUBIC), (box, PIL.Image.Resampling.BOX)):
                np.testing.assert_allclose(got[i, :, :, channel], picture.resize((4, 3), how), atol=3e-6)
    gray = inverse.Gray()(jnp.asarray(x))
    np.testing.assert_allclose(gray[..., 0], x.sum(axis=-1) / np.sqrt(3), rtol=1e-5, atol=1e-6)
    through = inverse.Through(inverse.Downsample(2), CODEC)
    values = np.random.default_rng(3).integers(0, 256, (2, 6, 8, 3))
    blocks = values.reshape(2, 3, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(through(CODEC.encode(values, None)[0]), blocks, atol=1e-3)


def test_conjugate_gradients_against_a_direct_solve(x64):
    rng = np.random.default_rng(4)
    matrices = np.stack([random_covariance(rng, 6) + 0.01 * np.eye(6) for _ in range(4)])
    matrices[1] = np.eye(6)
    b = rng.standard_normal((4, 6))
    b[2] = 0

    def apply(v):
        return jnp.einsum("bij,bj->bi", matrices, v)

    exact = np.linalg.solve(matrices, b[..., None])[..., 0]
    np.testing.assert_allclose(conjugate_gradients(apply, jnp.asarray(b), 50), exact, rtol=1e-7, atol=1e-9)
    for i in range(4):  # an example does not depend on its neighbours
        alone = conjugate_gradients(lambda v, i=i: v @ matrices[i], jnp.asarray(b[i : i + 1]), 50, 1e-4)
        together = conjugate_gradients(apply, jnp.asarray(b), 50, 1e-4)[i : i + 1]
        np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-12)
    residual = np.linalg.norm(b - np.asarray(apply(together * 0 + exact)), axis=1)
    assert residual.max() < 1e-9
    stuck = conjugate_gradients(lambda v: -v, jnp.asarray(b), 50)  # not positive: it stops at 0, and is finite
    np.testing.assert_array_equal(stuck, 0)


# Posterior denoisers of Gaussian data in closed form.


class Shaped(ss.Guide):
    """`Shaped` gives a closed form without a shape the shape of its data."""

    own: tuple

    def __init__(self, denoiser, shape):
        super().__init__(denoiser)
        self.own = shape

    @property
    def shape(self):
        return self.own

    def predict(self, x, t, cond=None, *, keys=None):
        return self.denoiser.predict(x, t, cond, keys=keys)


def halves(prediction):
    return np.stack([prediction.x0, prediction.noise])


def exact(sde, mean, cov, matrix, y, noise, x, t):
    """Return both halves of the denoiser of p(x_0 | y), computed apart for each example."""
    rows = []
    for one_y, one_x in zip(y, x, strict=True):
        law = posterior_law(mean, cov, matrix, one_y, noise)
        rows.append(halves(FullGaussian(sde, *law).predict(jnp.asarray(one_x[None]), t)))
    return np.concatenate(rows, axis=1)


@pytest.fixture
def problem(sde):
    rng = np.random.default_rng(5)
    mean, cov = rng.standard_normal(6), random_covariance(rng, 6)
    matrix = rng.standard_normal((4, 6))
    x, y = (rng.standard_normal((5, size)) * 1.5 for size in (6, 4))
    return sde, mean, cov, matrix, y, x


def test_moments_and_the_true_prior_are_exact_for_gaussian_data(x64, problem):
    sde, mean, cov, matrix, y, x = problem
    model = FullGaussian(sde, mean, cov)
    for t in (0.02, 0.4, 0.97):
        for variance in (inverse.Moments(), inverse.Prior(cov)):
            for noise in (0.1, 1.0, np.array([0.1, 0.3, 0.5, 0.2])):
                guide = inverse.Posterior(model, inverse.Linear(matrix), noise, variance)
                got = guide.predict(jnp.asarray(x), t, {"y": jnp.asarray(y)})
                expected = exact(sde, mean, cov, matrix, y, np.diag(np.broadcast_to(noise, 4) ** 2), x, t)
                np.testing.assert_allclose(halves(got), expected, rtol=1e-8, atol=1e-8)
    times = jnp.asarray([0.1, 0.2, 0.5, 0.7, 0.9])  # one time per example
    got = inverse.Posterior(model, inverse.Linear(matrix), 0.1).predict(jnp.asarray(x), times, {"y": jnp.asarray(y)})
    for i in range(5):
        one = exact(sde, mean, cov, matrix, y[i : i + 1], 0.01 * np.eye(4), x[i : i + 1], float(times[i]))
        np.testing.assert_allclose(halves(got)[:, i : i + 1], one, rtol=1e-8, atol=1e-8)


def test_noise_per_example_and_no_noise(x64, problem):
    sde, mean, cov, matrix, y, x = problem
    model, stds = FullGaussian(sde, mean, cov), np.array([0.1, 0.2, 0.5, 1.0, 2.0])
    guide = inverse.Posterior(model, inverse.Linear(matrix), "sigma_y")
    assert set(guide.reads) == {"y", "sigma_y"}
    got = guide.predict(jnp.asarray(x), 0.3, {"y": jnp.asarray(y), "sigma_y": jnp.asarray(stds)})
    for i, std in enumerate(stds):
        one = exact(sde, mean, cov, matrix, y[i : i + 1], std**2 * np.eye(4), x[i : i + 1], 0.3)
        np.testing.assert_allclose(halves(got)[:, i : i + 1], one, rtol=1e-8, atol=1e-8)
    clean = inverse.Posterior(model, inverse.Linear(matrix), 0.0).predict(jnp.asarray(x), 0.3, {"y": jnp.asarray(y)})
    np.testing.assert_allclose(clean.x0 @ matrix.T, y, atol=1e-8)
    np.testing.assert_allclose(halves(clean), exact(sde, mean, cov, matrix, y, 0, x, 0.3), rtol=1e-6, atol=1e-6)


def test_masks_differ_from_example_to_example(x64, sde):
    """Hidden numbers of y are ignored, whatever they are."""
    rng = np.random.default_rng(6)
    mean, cov, n = rng.standard_normal(6), random_covariance(rng, 6), 4
    model = FullGaussian(sde, mean, cov)
    masks = rng.random((n, 6)) < 0.5
    masks[0] = [True, False, False, False, False, False]
    y, x = (rng.standard_normal((n, 6)) for _ in range(2))
    guide = inverse.Posterior(model, inverse.Mask(), 0.2)
    got = guide.predict(jnp.asarray(x), 0.3, {"y": jnp.where(masks, y, 1e6), "mask": jnp.asarray(masks)})
    for i in range(n):
        matrix = np.eye(6)[masks[i]]
        one = exact(sde, mean, cov, matrix, y[i : i + 1, masks[i]], 0.04 * np.eye(len(matrix)), x[i : i + 1], 0.3)
        np.testing.assert_allclose(halves(got)[:, i : i + 1], one, rtol=1e-8, atol=1e-8)


def test_where_cheaper_variances_are_exact(x64, sde):
    """RowSums is exact for diagonal A V A^T, Isotropic for data N(m, s^2 I), and Prior of a diagonal for such data."""
    rng = np.random.default_rng(7)
    mean, x, y = rng.standard_normal(5), rng.standard_normal((3, 5)), rng.standard_normal((3, 5))
    stds = np.array([0.2, 0.5, 1.0, 1.5, 0.7])
    mask = np.array([True, True, False, True, False])
    matrix, noise = np.eye(5)[mask], 0.09 * np.eye(3)
    cond = {"y": jnp.asarray(y), "mask": jnp.broadcast_to(mask, (3, 5))}
    for cov, variances in (
        (np.diag(stds**2), (inverse.RowSums(), inverse.Prior(stds**2))),
        (0.49 * np.eye(5), (inverse.RowSums(), inverse.Isotropic(0.7), inverse.Prior(0.49))),
    ):
        expected = exact(sde, mean, cov, matrix, y[:, mask], noise, x, 0.35)
        for variance in variances:
            guide = inverse.Posterior(FullGaussian(sde, mean, cov), inverse.Mask(), 0.3, variance)
            np.testing.assert_allclose(
                halves(guide.predict(jnp.asarray(x), 0.35, cond)), expected, rtol=1e-8, atol=1e-8
            )


def test_inexact_variances_follow_their_formulas(x64, problem):
    """Zero, RowSums, Isotropic and Flat against their formulas with the dense Jacobian."""
    sde, mean, cov, matrix, y, x = problem
    model, t, s = FullGaussian(sde, mean, cov), 0.4, 0.3
    alpha, sigma2 = float(sde.alpha(t)), float(sde.variance(t))
    jacobian = np.asarray(jax.jacfwd(lambda v: model.predict(v[None], t).x0[0])(jnp.asarray(x[0])))
    full = sigma2 / alpha * jacobian.T
    before = model.predict(jnp.asarray(x), t)
    u = y - np.asarray(before.x0) @ matrix.T
    r2 = sigma2 * 0.8**2 / (alpha**2 * 0.8**2 + sigma2)
    dense = matrix @ full @ matrix.T
    flat = sigma2 / alpha**2 / 7.0
    formulas = (
        (None, full, np.zeros((4, 4))),
        (inverse.RowSums(), full, np.diag(np.maximum(dense.sum(axis=1), 0))),
        (inverse.Isotropic(0.8), full, r2 * matrix @ matrix.T),
        (inverse.Flat(7.0), flat * np.eye(6), flat * matrix @ matrix.T),
        (inverse.Moments(4), full, dense),
    )
    for variance, w, middle in formulas:
        guide = inverse.Posterior(model, inverse.Linear(matrix), s, variance)
        got = guide.predict(jnp.asarray(x), t, {"y": jnp.asarray(y)})
        shift = np.linalg.solve(s**2 * np.eye(4) + middle, u.T).T @ matrix @ w.T
        np.testing.assert_allclose(got.x0, np.asarray(before.x0) + shift, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(alpha * got.x0 + np.sqrt(sigma2) * got.noise, x, rtol=1e-8, atol=1e-8)
    # The proximal step of DiffPIR minimises |y - A x|^2 / S + 7 (alpha / sigma)^2 |x - x_0|^2.
    rows = np.vstack([matrix / s, np.sqrt(7) * alpha / np.sqrt(sigma2) * np.eye(6)])
    for i in range(len(x)):
        right = np.concatenate([y[i] / s, np.sqrt(7) * alpha / np.sqrt(sigma2) * np.asarray(before.x0)[i]])
        proximal = np.linalg.lstsq(rows, right, rcond=None)[0]
        guide = inverse.Posterior(model, inverse.Linear(matrix), s, inverse.Flat(7.0))
        got = guide.predict(jnp.asarray(x), t, {"y": jnp.asarray(y)})
        np.testing.assert_allclose(got.x0[i], proximal, rtol=1e-8)


def test_pictures_through_a_codec(x64):
    """Blur, reduction and a codec in one chain, for Gaussian pictures whose law is known."""
    shape, codec = (4, 4, 1), ss.QuantizedCodec((4, 4, 1), 255)
    rng = np.random.default_rng(8)
    mean, cov = 0.2 * rng.standard_normal(16), 0.1 * random_covariance(rng, 16)
    inner = FullGaussian(ss.VP(), mean, cov)

    class Pictures(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            flat = inner.predict(x.reshape(len(x), -1), t)
            return ss.Prediction(flat.x0.reshape(x.shape), flat.noise.reshape(x.shape))

    operator = inverse.Through(inverse.Chain(inverse.Blur(0.8), inverse.Downsample(2)), codec)
    basis = np.eye(16).reshape(16, *shape)
    constant = np.asarray(operator(jnp.zeros((1, *shape)))).reshape(-1)
    matrix = (np.asarray(operator(jnp.asarray(basis))).reshape(16, -1) - constant).T
    x, noise = rng.standard_normal((3, *shape)), 6.0
    y = 127 + 30 * rng.standard_normal((3, 2, 2, 1))
    guide = inverse.Posterior(Pictures(ss.VP()), operator, noise)
    got = guide.predict(jnp.asarray(x), 0.4, {"y": jnp.asarray(y)})
    flat = exact(ss.VP(), mean, cov, matrix, y.reshape(3, -1) - constant, noise**2 * np.eye(4), x.reshape(3, -1), 0.4)
    np.testing.assert_allclose(halves(got).reshape(2, 3, -1), flat, rtol=1e-8, atol=1e-8)


def test_a_nonlinear_operator_is_linearised(x64):
    model = FullGaussian(ss.VP(), np.zeros(3), 0.25 * np.eye(3))
    squares = inverse.Function(lambda x: x**2, (3,), affine=False)
    with pytest.raises(ss.InputError, match="Function is not affine, so that it has no adjoint"):
        squares.adjoint(jnp.ones((1, 3)))
    x, y = jnp.asarray([[0.5, -0.3, 1.0]]), jnp.asarray([[0.2, 0.1, 0.3]])
    got = inverse.Posterior(model, squares, 0.1).predict(x, 0.3, {"y": y})
    x0 = np.asarray(model.predict(x, 0.3).x0[0])
    v = float(model.predict(x, 0.3).x0[0, 0] / x[0, 0] * ss.VP().variance(0.3) / ss.VP().alpha(0.3))
    slope = 2 * x0
    expected = x0 + v * slope / (0.01 + v * slope**2) * (np.asarray(y[0]) - x0**2)
    np.testing.assert_allclose(got.x0[0], expected, rtol=1e-8)


def test_where_alpha_is_0_the_prediction_stays(problem):
    _, mean, cov, matrix, y, x = problem
    sde = ss.RectifiedFlow()
    model = Shaped(FullGaussian(sde, mean, cov), (6,))
    cond = {"y": jnp.asarray(y, jnp.float32)}
    for variance in (inverse.Moments(), inverse.RowSums(), inverse.Isotropic(), inverse.Flat(), None):
        guide = inverse.Posterior(model, inverse.Linear(matrix), 0.1, variance)
        got, plain = (
            guide.predict(jnp.asarray(x, jnp.float32), 1.0, cond),
            model.predict(jnp.asarray(x, jnp.float32), 1.0),
        )
        np.testing.assert_array_equal(halves(got), halves(plain))
    grid = ss.time_grid.uniform(sde, 20)
    drawn = ss.sample(
        inverse.Posterior(model, inverse.Linear(matrix), 0.1), ss.DDIM(), grid, (6,), n=5, seed=0, cond=cond
    )
    assert np.isfinite(drawn.x).all()


# Laws of samples. The data have three correlated numbers, of which two are measured.

STD = 0.5
COV = STD**2 * np.array([[1, 0.9, 0.6], [0.9, 1, 0.8], [0.6, 0.8, 1]])
SEEN = np.array([True, True, False])
DRAWS = 2000


def measured(noise, seed=0):
    """Return (y with a hidden number, conditions, the posterior means, the posterior covariance)."""
    rng = np.random.default_rng(seed)
    x0 = rng.multivariate_normal(np.zeros(3), COV, DRAWS)
    y = np.where(SEEN, x0 + noise * rng.standard_normal((DRAWS, 3)), 7.0)
    laws = [posterior_law(np.zeros(3), COV, np.eye(3)[:2], one[:2], noise**2 * np.eye(2)) for one in y[:1]]
    gain = COV[:, :2] @ np.linalg.inv(COV[:2, :2] + noise**2 * np.eye(2))
    cond = {"y": y, "mask": np.broadcast_to(SEEN, y.shape)}
    return y, cond, y[:, :2] @ gain.T, laws[0][1]


def spread_and_bias(x, means, cov, numbers):
    """Return the spread in posterior stds, and the bias as the regression of the errors on the means, by number."""
    found = []
    for i in numbers:
        error = (x - means)[:, i] / np.sqrt(cov[i, i])
        design = np.stack([np.ones(len(x)), means[:, i] / means[:, i].std()], axis=1)
        fit = np.linalg.lstsq(design, error, rcond=None)[0]
        found.append(((error - design @ fit).std(), np.abs(fit).max()))
    return np.array(found)


def draw(denoiser, sampler, grid, cond, **options):
    options = dict(n=DRAWS, seed=1, denoise=False, batch_size=DRAWS) | options
    return ss.sample(denoiser, sampler, grid, (3,), cond=cond, **options)


@pytest.mark.parametrize("name", ["vp", pytest.param("ve", marks=pytest.mark.slow)])
def test_moments_samples_the_posterior(name):
    """Spread within 5 % and bias within 0.05 posterior standard deviations, plus the error of 2,000 draws."""
    sde = {"vp": ss.VP(), "ve": ss.VE(sigma_max=20.0)}[name]
    _, cond, means, cov = measured(0.1)
    guide = inverse.Posterior(FullGaussian(sde, np.zeros(3), COV), inverse.Mask(), 0.1)
    drawn = draw(guide, ss.Heun(), ss.time_grid.log_snr(sde, 30), cond)
    found = spread_and_bias(drawn.x, means, cov, (0, 1, 2))
    assert np.abs(found[:, 0] - 1).max() < 0.05 + 3 / np.sqrt(2 * DRAWS), found
    assert found[:, 1].max() < 0.05 + 3 / np.sqrt(DRAWS), found
    assert drawn.nfe.tolist() == [60] * DRAWS and drawn.vjps.tolist() == [60 * 101] * DRAWS


def test_particles_sample_the_posterior():
    _, cond, means, cov = measured(0.1)
    sde = ss.VP()
    sampler = inverse.Particles(0.1, 16)
    drawn = draw(FullGaussian(sde, np.zeros(3), COV), sampler, ss.time_grid.log_snr(sde, 60), cond)
    found = spread_and_bias(drawn.x, means, cov, (0, 1, 2))
    assert np.abs(found[:, 0] - 1).max() < 0.1 and found[:, 1].max() < 0.12, found
    # 60 steps, and the twist of the last particles
    assert drawn.nfe.tolist() == [16 * 61] * DRAWS and drawn.vjps.tolist() == [16 * 61] * DRAWS


def test_samplers_that_are_not_exact_have_the_measured_errors():
    """Replacement and DAPS are wide in the hidden number, and DPS in the measured ones (shared measurements agree)."""
    sde = ss.VP()
    model = FullGaussian(sde, np.zeros(3), COV)
    _, clean, means, cov = measured(1e-6)
    grid = ss.time_grid.uniform(sde, 250)
    wide = spread_and_bias(draw(model, inverse.Replacement(ss.Ancestral()), grid, clean).x, means, cov, (2,))[0]
    assert 1.15 < wide[0] < 1.55
    again = inverse.RePaint(ss.Ancestral(), resample=10, jump=10)
    drawn = draw(model, again, ss.time_grid.uniform(sde, 25), clean)
    near = spread_and_bias(drawn.x, means, cov, (2,))[0]
    assert 0.9 < near[0] < 1.15 and drawn.nfe.tolist() == [2410] * DRAWS
    _, noisy, means, cov = measured(0.1)
    daps = spread_and_bias(draw(model, inverse.DAPS(0.1), ss.time_grid.log_snr(sde, 100), noisy).x, means, cov, (0, 2))
    assert 1.0 < daps[0, 0] < 1.2 and 1.2 < daps[1, 0] < 1.6
    dps = draw(model, inverse.DPS(1.0), ss.time_grid.uniform(sde, 1000), noisy)
    assert 3.5 < spread_and_bias(dps.x, means, cov, (0,))[0, 0] < 5.5
    assert dps.nfe.tolist() == [1000] * DRAWS and dps.vjps.tolist() == [1000] * DRAWS


def test_repaint_near_the_data_is_a_gibbs_sampler():
    """In the limit of many repetitions near the data, RePaint draws the hidden number given the others."""
    sde = ss.VP()
    _, clean, means, cov = measured(1e-6)
    model = FullGaussian(sde, np.zeros(3), COV)
    few, many = (
        spread_and_bias(
            draw(model, inverse.RePaint(ss.Ancestral(), resample=r, jump=1), ss.time_grid.log_snr(sde, 40), clean).x,
            means, cov, (2,),
        )[0]
        for r in (1, 20)
    )  # fmt: skip
    assert many[1] < few[1] / 2 and abs(many[0] - 1) < 0.12


def test_daps_with_a_nonlinear_operator_agrees_with_its_exact_draw():
    """The same operator, declared as not affine, is drawn by Langevin dynamics, with the same law."""
    sde = ss.VP()
    model = FullGaussian(sde, np.zeros(3), COV)
    y, _, means, cov = measured(0.1)
    grid, results = ss.time_grid.log_snr(sde, 60), []
    for affine in (True, False):
        operator = inverse.Function(lambda x: x[:2], (3,), affine=affine)
        drawn = draw(model, inverse.DAPS(0.1, operator=operator), grid, {"y": y[:, :2]})
        results.append(spread_and_bias(drawn.x, means, cov, (0, 2))[:, 0])
    np.testing.assert_allclose(results[1], results[0], atol=0.12)


MODES = ss.GaussianMixture(ss.VP(), [0.5, 0.5], [[-1.0], [1.0]], 0.2)


def true_probability(y, noise):
    """Return the probability of the mode at +1 given y = x + N(0, noise^2)."""
    densities = stats.norm([-1.0, 1.0], np.hypot(0.2, noise)).pdf(y)
    return densities[1] / densities.sum()


@pytest.mark.parametrize("noise", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_particles_find_the_modes(noise):
    """With 64 particles the mode probability is within 3 %, where the guided denoiser is far from it."""
    n, y = 2000, 0.3
    cond = {"y": np.full((n, 1), y)}
    operator = inverse.Linear(np.eye(1))
    grid = ss.time_grid.log_snr(MODES.sde, 60)
    truth = true_probability(y, noise)
    sampler = inverse.Particles(noise, 64, operator=operator)
    x = ss.sample(MODES, sampler, grid, (1,), n=n, seed=0, cond=cond, batch_size=n).x
    error = 3 * np.sqrt(truth * (1 - truth) / n)
    assert abs((x > 0).mean() - truth) < 0.03 * truth + error
    guided = inverse.Posterior(MODES, operator, noise)
    x = ss.sample(guided, ss.Heun(), grid, (1,), n=n, seed=0, cond=cond).x
    assert abs((x > 0).mean() - truth) > 0.03 * truth


# Interface: conditions, counts, batches, devices, bad input.


def samplers():
    yield inverse.Replacement(ss.Ancestral()), {}
    yield inverse.RePaint(ss.Ancestral(), resample=3, jump=2), {}
    yield inverse.DAPS(0.1), {}
    yield inverse.Particles(0.1, 3), {}
    yield inverse.DPS(0.3), {}
    yield ss.Ancestral(), {"guide": True}
    yield ss.PredictorCorrector(inverse.Replacement(ss.Ancestral()), ss.Langevin()), {}


@pytest.mark.parametrize("number", range(7))
def test_results_do_not_depend_on_batch_or_devices(number):
    sde = ss.VP()
    model = ss.GaussianMixture(sde, [0.4, 0.6], [[-1.0, 0.0, 0.5], [1.0, 0.3, -0.5]], 0.5)
    sampler, how = list(samplers())[number]
    rng = np.random.default_rng(0)
    cond = {"y": rng.standard_normal((6, 3)), "mask": np.array([SEEN] * 6), "label": np.arange(6) % 2}
    guide = inverse.Posterior(model, inverse.Mask(), 0.1) if how else model
    grid = ss.time_grid.log_snr(sde, 8)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    options = dict(n=6, seed=0, cond=cond)
    whole = ss.sample(guide, sampler, grid, (3,), **options)
    assert np.isfinite(whole.x).all()
    for other in (dict(batch_size=4), dict(sharding=spread)):
        part = ss.sample(guide, sampler, grid, (3,), **options, **other)
        np.testing.assert_allclose(part.x, whole.x, rtol=3e-5, atol=3e-5)
        np.testing.assert_array_equal(part.nfe, whole.nfe)
    if number in (0, 1, 6):  # known numbers come back as they were
        np.testing.assert_allclose(whole.x[:, :2], cond["y"][:, :2].astype(np.float32), rtol=1e-6)


def test_replacement_of_grey_puts_the_grey_back():
    sde, rng = ss.VP(), np.random.default_rng(0)
    model = ss.GaussianMixture(sde, [1.0], 0.1 * rng.standard_normal((1, 4, 4, 3)), 0.5)
    for operator in (inverse.Gray(), inverse.Downsample(2)):
        y = np.asarray(operator(jnp.asarray(rng.standard_normal((3, 4, 4, 3)), jnp.float32)))
        sampler = inverse.Replacement(ss.Heun(), operator=operator)
        drawn = ss.sample(model, sampler, ss.time_grid.log_snr(sde, 20), (4, 4, 3), n=3, seed=0, cond={"y": y})
        np.testing.assert_allclose(operator(jnp.asarray(drawn.x)), y, atol=2e-5)


def test_a_mask_with_one_channel_and_of_numbers():
    model = ss.GaussianMixture(ss.VP(), [1.0], np.zeros((1, 4, 4, 3)), 0.5)
    guide = inverse.Posterior(model, inverse.Mask(), 0.1)
    mask = np.random.default_rng(0).random((2, 4, 4, 1)) < 0.5
    x, y = (np.random.default_rng(seed).standard_normal((2, 4, 4, 3)).astype(np.float32) for seed in (1, 2))
    whole = guide.score(x, 0.3, {"y": y, "mask": np.broadcast_to(mask, y.shape)})
    for other in (mask, mask.astype(np.float32), jnp.asarray(mask)):
        np.testing.assert_array_equal(guide.score(x, 0.3, {"y": y, "mask": other}), whole)
    common = inverse.Posterior(model, inverse.Mask(mask[0]), 0.1)
    assert "mask" not in common.reads
    np.testing.assert_allclose(common.score(x[:1], 0.3, {"y": y[:1]}), whole[:1], rtol=1e-6)


def test_counts_of_vector_jacobian_products():
    """The stated number of products is the number that the compiled program computes."""
    model = ss.GaussianMixture(ss.VP(), [0.5, 0.5], np.eye(2, 4), 0.5)
    x, cond = jnp.ones((2, 4)), {"y": jnp.ones((2, 2))}
    operator = inverse.Linear(np.eye(2, 4))
    for variance in (inverse.Moments(3, 0.0), inverse.RowSums(), inverse.Isotropic(), inverse.Prior(1.0), None):
        counted = Counting(model)
        Counting.pulled[:] = []
        guide = inverse.Posterior(counted, operator, 0.1, variance)
        jax.block_until_ready(guide.predict(x, 0.4, cond).x0)
        jax.effects_barrier()
        exact = not isinstance(variance, inverse.Moments)  # whose iterations stop when the residual is 0
        assert len(Counting.pulled) == int(guide.vjps(0.4)) if exact else 2 <= len(Counting.pulled) <= 4, variance
        drawn = ss.sample(guide, ss.Heun(), ss.time_grid.uniform(ss.VP(), 3), (4,), n=2, seed=0, cond=cond)
        each = int(guide.vjps(0.4))
        assert (drawn.vjps is None) == (each == 0) and (each == 0 or drawn.vjps.tolist() == [7 * each] * 2)
    nested = inverse.Posterior(ss.ClassifierFree(model, 2.0), operator, 0.1, inverse.Isotropic())
    assert int(nested.evaluations(0.4)) == 2 and int(nested.vjps(0.4)) == 1


class Counting(ss.Guide):
    """`Counting` counts the products with its Jacobian."""

    pulled: ClassVar = []

    def predict(self, x, t, cond=None, *, keys=None):
        @jax.custom_vjp
        def same(x):
            return x

        def back(_, g):
            jax.debug.callback(lambda: Counting.pulled.append(1))
            return (g,)

        same.defvjp(lambda x: (x, None), back)
        return self.denoiser.predict(same(x), t, cond)


SMALL = ss.GaussianMixture(ss.VP(), [1.0], np.zeros((1, 4, 4, 3)), 0.5)
IMAGES = np.zeros((2, 4, 4, 3), np.float32)
KNOWN = np.ones((2, 4, 4, 3), bool)


def score(operator=None, noise=0.1, limits=None, **cond):
    guide = inverse.Posterior(SMALL, operator or inverse.Mask(), noise, limits=limits)
    return guide.score(IMAGES, 0.3, {"y": IMAGES, "mask": KNOWN} | cond)


def sample_with(sampler, **options):
    cond = {"y": IMAGES, "mask": KNOWN}
    return ss.sample(
        SMALL, sampler, ss.time_grid.log_snr(SMALL.sde, 2), (4, 4, 3), n=2, seed=0, **{"cond": cond} | options
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: score(mask=np.ones((2, 5, 4, 3), bool)),
            r"cond\['mask'\] has shape \(2, 5, 4, 3\) and dtype bool; exp",
        ),
        (lambda: score(mask=np.zeros((2, 4, 4, 3), bool)), r"cond\['mask'\] of example 0 is empty; expected at least"),
        (lambda: score(mask=np.full((2, 4, 4, 3), 255)), r"cond\['mask'\] has other values than 0 and 1"),
        (
            lambda: score(y=np.zeros((2, 4, 4, 1), np.float32)),
            r"cond\['y'\] has shape \(2, 4, 4, 1\) .*; expected \(2, 4",
        ),
        (lambda: score(y=np.zeros((2, 4, 4, 3), np.uint8)), r"cond\['y'\] has dtype uint8; expected floating point"),
        (
            lambda: score(y=np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)), limits=(-1.0, 1.0)),
            r"cond\['y'\] has values from .*; expected the units of the operator's output, -1 to 1",
        ),
        (lambda: score(y=IMAGES + np.nan), r"cond\['y'\] contains NaN or infinity"),
        (lambda: score(noise=-1.0), "noise_std of Posterior is -1.0 with Moments; expected numbers of at least 0"),
        (lambda: score(noise=None), "noise_std of Posterior is None"),
        (lambda: score(inverse.Downsample(3)), r"Downsample\(3\) got examples of shape \(4, 4, 3\); expected .* by 3"),
        (
            lambda: inverse.Posterior(SMALL, inverse.Mask(), 0.0, None),
            "noise_std of Posterior is 0.0 with Zero; expected",
        ),
        (lambda: inverse.Posterior(SMALL, len, 0.1), "operator of Posterior is .*; expected an Operator"),
        (lambda: inverse.Posterior(SMALL, inverse.Mask(), 0.1, "Moments"), "variance of Posterior is 'Moments'"),
        (
            lambda: inverse.Posterior(inverse.Posterior(SMALL, inverse.Gray(), 0.1), inverse.Gray(), 0.1),
            "The denoiser of Posterior reads 'y' itself; expected one guide with a measurement",
        ),
        (lambda: inverse.Mask(np.zeros((4, 4))), "mask of Mask is empty"),
        (lambda: inverse.Downsample(0), "factor of Downsample is 0"),
        (lambda: inverse.Downsample(2, "cubic"), "kind of Downsample is 'cubic'"),
        (lambda: inverse.Blur(-1.0), "std of Blur is -1.0"),
        (lambda: inverse.Blur(1.0, "mirror"), "border of Blur is 'mirror'; expected one of reflect, circular"),
        (lambda: inverse.Linear([1.0, 2.0]), r"matrix of Linear is \[1.0, 2.0\]"),
        (lambda: inverse.Linear(np.eye(3), (2, 2)), r"shape of Linear is \(2, 2\); expected 3 numbers"),
        (lambda: inverse.Chain(), "Chain got"),
        (lambda: inverse.Through(inverse.Gray(), None), "Through got"),
        (lambda: inverse.Prior([[1.0, 2.0], [2.0, 1.0]]), "cov of Prior has the variance -1"),
        (lambda: inverse.Isotropic(0.0), "data_std of Isotropic is 0.0"),
        (lambda: inverse.Moments(0), "iterations of Moments is 0"),
        (lambda: inverse.Moments(3, -1.0), "tolerance of Moments is -1.0"),
        (lambda: inverse.Replacement(None), "sampler is None; expected a Sampler"),
        (lambda: sample_with(inverse.Replacement(operator=inverse.Blur(1.0))), "Blur has rows that are not orthogonal"),
        (lambda: sample_with(inverse.Replacement(), cond=None), "cond has no 'mask', which is required"),
        (
            lambda: sample_with(inverse.Replacement(), temperature=0.5),
            "temperature is 0.5 with Replacement; expected 1",
        ),
        (lambda: sample_with(inverse.RePaint(resample=0)), "RePaint got resample=0"),
        (lambda: inverse.DAPS(0.0), "DAPS got noise_std=0.0; expected a positive number"),
        (lambda: inverse.Particles(0.1, 0), "Particles got count=0"),
        (lambda: inverse.Particles(0.0), "Particles got noise_std=0.0"),
        (lambda: inverse.DPS(0), "DPS got zeta=0"),
        (lambda: inverse.Gray()(jnp.zeros((2, 4, 4, 1))), r"Gray got examples of shape \(4, 4, 1\)"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ss.InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_chain_needs_levels_for_repaint():
    chain = ss.DiscreteVP(100)
    model = ss.GaussianMixture(chain, [1.0], np.zeros((1, 3)), 0.5)
    cond = {"y": np.ones((2, 3), np.float32), "mask": np.array([SEEN] * 2)}
    drawn = ss.sample(
        model, inverse.RePaint(resample=2, jump=10), np.arange(100, -1, -10) / 100, (3,), n=2, seed=0, cond=cond
    )
    np.testing.assert_allclose(drawn.x[:, :2], 1.0, rtol=1e-6)
    with pytest.raises(
        ss.InputError, match=r"RePaint got jump=10 and a step of . levels of DiscreteVP; expected at least"
    ):
        ss.sample(model, inverse.RePaint(jump=10), ss.time_grid.uniform(chain, 20), (3,), n=2, seed=0, cond=cond)
    grid = ss.time_grid.uniform(chain, 20)
    particles = ss.sample(model, inverse.Particles(0.1, 8), grid, (3,), n=2, seed=0, cond=cond)
    assert np.isfinite(particles.x).all()


@pytest.mark.slow
def test_rematerialisation_bounds_the_memory_of_the_products():
    """The compiled program needs less memory if the blocks of the network are computed again."""
    x, y = (jax.ShapeDtypeStruct((16, side, side, 3), jnp.float32) for side in (32, 16))

    def megabytes(remat):
        network = ss.networks.DDPMpp(
            (32, 32, 3), channels=32, multipliers=(1, 2), blocks=2, attention=(), dropout=0.0, remat=remat
        )

        def predict(params, x, y):
            denoiser = ss.NetworkDenoiser(ss.VP(), ss.Noise(), network, params)
            return inverse.Posterior(denoiser, inverse.Downsample(2), 0.1).predict(x, 0.4, {"y": y}).x0

        params = jax.eval_shape(network.init, jax.random.key(0))
        compiled = jax.jit(predict).lower(params, x, y).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    assert megabytes("full") < 0.85 * megabytes("none")


# Findings of readers.


def test_daps_is_finite_for_squares():
    """The curvature of x^2 grows with x; proposals that go too far are not accepted."""
    squares = inverse.Function(lambda x: x**2, (2,), affine=False)
    model = ss.GaussianMixture(ss.VP(), [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.6)
    y = np.tile([0.9, 0.1], (50, 1))
    sampler = inverse.DAPS(0.1, operator=squares, langevin=30)
    x = ss.sample(model, sampler, ss.time_grid.log_snr(model.sde, 20), (2,), n=50, seed=0, cond={"y": y}).x
    assert np.sqrt(np.mean((x**2 - y) ** 2)) < 0.3


@pytest.mark.slow
def test_particles_that_stop_early_have_the_posterior_of_that_time():
    """With denoise=False at alpha = 0.5, the law is that of alpha x_0 + sigma n, with x_0 of the posterior.

    The last weights are exact there because data_std is that of the data.
    """
    sde, n = ss.VP(), 2000
    model = ss.GaussianMixture(sde, [1.0], [[2.0, 2.0]], 0.5)
    grid = ss.time_grid.log_snr(sde, 60)
    grid = grid[: int(np.argmin(np.abs(np.asarray(sde.alpha(jnp.asarray(grid))) - 0.5))) + 1]
    cond = dict(y=np.tile([1.5, 0.0], (n, 1)), mask=np.tile([True, False], (n, 1)))
    drawn = ss.sample(
        model, inverse.Particles(0.1, 16, data_std=0.5), grid, (2,), n=n, seed=0, cond=cond, denoise=False
    )
    alpha, sigma = float(sde.alpha(grid[-1])), float(sde.sigma(grid[-1]))
    gain = 0.25 / 0.26
    mean, variance = alpha * (2 + gain * (1.5 - 2)), alpha**2 * 0.25 * (1 - gain) + sigma**2
    assert abs(drawn.x[:, 0].mean() - mean) < 0.08 and abs(drawn.x[:, 0].std() / np.sqrt(variance) - 1) < 0.08


class OnlyOwn(ss.Guide):
    """`OnlyOwn` raises InputError for conditions that the denoiser does not read."""

    def predict(self, x, t, cond=None, *, keys=None):
        extra = [name for name in cond or {} if name not in self.reads]
        if extra:
            raise ss.InputError(f"inner receives {extra}")
        return self.denoiser.predict(x, t, cond)


def test_samplers_keep_their_conditions_to_themselves():
    model = OnlyOwn(ss.GaussianMixture(ss.VP(), [1.0], np.zeros((1, 3)), 0.5))
    cond = {"y": np.ones((2, 3)), "mask": np.array([SEEN] * 2)}
    for sampler in (inverse.DAPS(0.1), inverse.Replacement(), inverse.DPS(), inverse.Particles(0.1, 2)):
        ss.sample(model, sampler, ss.time_grid.log_snr(model.sde, 3), (3,), n=2, seed=0, cond=cond)


POINTS = ss.GaussianMixture(ss.VP(), [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inverse.DPS(sampler=inverse.Replacement()), "sampler of DPS is .* which reads y too"),
        (lambda: inverse.Replacement(inverse.DPS()), "sampler of Replacement is .* which reads y too"),
        (lambda: inverse.RePaint(ss.LMS()), "which remembers steps; expected one without memory"),
        (lambda: sample_with(inverse.DPS(sampler=ss.Heun())), "takes 2 evaluations in a step; expected one with 1"),
        (
            lambda: ss.sample(
                inverse.Posterior(SMALL, inverse.Mask(), 0.1), inverse.Particles(0.1, 2),
                ss.time_grid.log_snr(SMALL.sde, 2), (4, 4, 3), n=2, seed=0, cond={"y": IMAGES, "mask": KNOWN},
            ),
            "Particles and Posterior both read 'mask'|both read 'y'",
        ),
        (lambda: inverse.Posterior(SMALL, inverse.Mask(), np.ones(3)), r"noise_std of Posterior has the shape \(3,\)"),
        (lambda: inverse.Posterior(SMALL, inverse.Mask(), "mask"), "noise_std of Posterior is 'mask'"),
        (lambda: inverse.Posterior(SMALL, inverse.Mask(), 0.1, limits=(1, -1)), r"limits of Posterior are \(1, -1\)"),
        (
            lambda: inverse.Posterior(POINTS, inverse.Mask(), "s").score(
                np.ones((1, 2)), 0.3, {"y": np.ones((1, 2)), "mask": np.ones((1, 2), bool), "s": np.array([-0.1])}
            ),
            r"cond\['s'\] has -0.1.*; expected standard deviations of at least 0",
        ),
        (
            lambda: inverse.Posterior(POINTS, inverse.Mask(), 0.1).score(
                np.ones((1, 2)), 0.3, {"y": np.ones((1, 2)), "mask": np.ones((1, 1), bool)}
            ),
            r"cond\['mask'\] has shape \(1, 1\)",
        ),
        (
            lambda: inverse.Posterior(POINTS, inverse.Mask([True]), 0.1).score(
                np.ones((1, 2)), 0.3, {"y": np.ones((1, 2))}
            ),
            r"Mask cannot measure examples of shape|mask of Mask has the shape \(1,\)",
        ),
        (
            lambda: inverse.Posterior(POINTS, inverse.Function(lambda x: x[:, 0], (2,)), 0.1).reads,
            "Function cannot measure examples of shape",
        ),
    ],
)  # fmt: skip
def test_what_readers_found_is_refused(call, message):
    with pytest.raises(ss.InputError, match=message):
        call()
