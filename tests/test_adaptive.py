"""The adaptive solver of the reverse SDE agrees with diffrax on the same Brownian path, and with closed forms."""

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

import score_sde as ss
from score_sde.core import keys as keys_
from score_sde.sampling import adaptive, time_grid
from tests.closed_forms import energy_distance, mixture

N = 4000


def draw(sde, sampler, n=N, x=None, grid=None, model=None, **options):
    grid = time_grid.uniform(sde, 1) if grid is None else grid
    options = {"denoise": False, "batch_size": n, "seed": 0} | options
    return ss.sample(model or mixture(sde), sampler, grid, (2,), n=n, x=x, **options)


@pytest.mark.parametrize("tolerance", [0.05, pytest.param(0.01, marks=pytest.mark.long)])
def test_the_law_of_a_mixture(sde, tolerance):
    keys = jax.random.split(jax.random.key(1), N), jax.random.split(jax.random.key(2), N)
    model = mixture(sde)
    start, exact = (np.asarray(model.marginal(t).sample(k)) for t, k in zip((sde.t_max, sde.t_stop), keys))
    x = draw(sde, ss.AdaptiveReverseSDE(tolerance, tolerance), x=start).x.astype(np.float64)
    assert energy_distance(x, exact.astype(np.float64)) < 4 * 2 * 1.7 / N
    scale = np.asarray(model.marginal(sde.t_stop).covariance())
    assert np.abs(np.cov(x.T) - scale).max() < (4 * np.sqrt(3 / N) + 0.03) * scale.max()


@pytest.mark.slow
def test_the_same_path_by_diffrax(x64):
    """As the tolerance falls, each sample converges to the strong solution of diffrax on the same Brownian path."""
    sde, n = ss.VP(), 16
    model, t, s = mixture(sde), 0.8, 0.1
    start = np.asarray(model.marginal(t).sample(jax.random.split(jax.random.key(3), n)), np.float64)
    root = keys_.stream(0, "sample")
    keys = jnp.stack([jax.random.fold_in(jax.random.fold_in(root, i), 1) for i in range(n)])

    u_t, u_s = np.sqrt(t), np.sqrt(s)

    def at(way):
        """Return the time, and dt / d way, of the path in sqrt(t)."""
        u = u_t + way * (u_s - u_t)
        return u**2, 2 * u * (u_t - u_s)

    def slope(way, x, _):
        now, speed = at(way)
        return speed * (sde.diffusion_squared(now) * model.score(x[None], now)[0] - sde.drift(x, now))

    def size(way, x, _):
        now, speed = at(way)
        return lineax.DiagonalLinearOperator(jnp.full(2, jnp.sqrt(speed) * sde.diffusion(now)))

    def reference(key, x):
        path = diffrax.VirtualBrownianTree(0.0, 1.0, adaptive._GRAIN, jax.ShapeDtypeStruct((2,), jnp.float64), key)
        noise = diffrax.ControlTerm(size, path)
        terms = diffrax.MultiTerm(diffrax.ODETerm(slope), noise)
        return diffrax.diffeqsolve(terms, diffrax.Heun(), 0.0, 1.0, 1 / 4096, x, max_steps=4096).ys[0]

    exact = np.asarray(jax.jit(jax.vmap(reference))(keys, jnp.asarray(start)))
    errors = []
    for tolerance in (0.05, 0.01, 0.002):
        solver = ss.AdaptiveReverseSDE(tolerance, tolerance)
        errors.append(np.abs(draw(sde, solver, n, x=start, grid=[t, s]).x - exact).mean())
    assert errors[2] < 6e-3 and errors[2] < errors[1] / 2 < errors[0] / 4


@pytest.mark.parametrize(
    "sde",
    [
        pytest.param(ss.EDM(), id="karras", marks=pytest.mark.slow),
        pytest.param(ss.VE(sigma_max=348.0), id="ve", marks=pytest.mark.long),
        pytest.param(ss.DDPM(1000).smooth(), id="ddpm", marks=pytest.mark.long),
    ],
)
def test_steps_of_a_part_of_sigma_near_the_data(sde):
    """Samples of data far narrower than the noise have the standard deviation of the marginal at t_stop."""
    model = ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], 0.02)
    x = draw(sde, ss.AdaptiveReverseSDE(1e-2, 1e-3), 2000, model=model).x
    exact = float(model.marginal(sde.t_stop).stds[0, 0])
    assert x.std() == pytest.approx(exact, rel=4 / np.sqrt(2 * x.size) + 0.02)


def test_sample_i_is_a_function_of_seed_and_i(sde):
    solver = ss.AdaptiveReverseSDE(0.05, 0.05)
    whole = draw(sde, solver, 16)
    part = draw(sde, solver, 5, first=3, batch_size=3)
    np.testing.assert_allclose(part.x, whole.x[3:8], rtol=1e-3, atol=1e-3)
    assert part.nfe.tolist() == whole.nfe[3:8].tolist()
    assert len(set(whole.nfe.tolist())) > 3  # each sample has its own steps


def test_evaluations_are_counted():
    count = []

    class Counting(ss.GaussianMixture):
        def predict(self, x, t, cond=None, *, keys=None):
            jax.debug.callback(lambda: count.append(1))
            return super().predict(x, t, cond, keys=keys)

    model = Counting(ss.VP(), [1.0], [[0.3, 0.1]], 0.5)
    out = draw(ss.VP(), ss.AdaptiveReverseSDE(0.05, 0.05), 1, model=model)
    jax.effects_barrier()
    assert out.nfe.tolist() == [len(count)] and len(count) > 20


@pytest.mark.slow
def test_trying_again_does_not_favour_small_increments():
    """The variance of Brownian motion is the closed form, although the solver rejects nearly all steps.

    With score 0 the reverse SDE of VE adds sigma_t^2 - sigma_s^2. A fresh draw for each new attempt, which the solver
    accepts only if the draw is small, would add less.
    """

    class Flat(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            return ss.Prediction(x, jnp.zeros_like(x))

    sde = ss.VE(sigma_max=20.0)
    x = np.full((N, 2), 1e3, np.float32)  # far from 0, so that the relative tolerance has the size of a step's noise
    out = draw(sde, ss.AdaptiveReverseSDE(2e-5, 0.0), x=x, model=Flat(sde))
    assert out.nfe.mean() > 60
    exact = 20.0**2 - 0.01**2
    assert np.mean((out.x - 1e3) ** 2) == pytest.approx(exact, rel=4 * np.sqrt(2 / (2 * N)) + 0.005)


def test_what_cannot_be_solved_is_named():
    class Broken(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            return ss.Prediction(x, x + jnp.where(x[:, :1] > 1.5, jnp.nan, 0.0))

    with pytest.raises(ss.DivergenceError, match=r"of 8 samples are not finite \(numbers"):
        draw(ss.VP(), ss.AdaptiveReverseSDE(), 8, model=Broken(ss.VP()))


def test_where_it_is_not_defined():
    with pytest.raises(ss.InputError, match="smooth"):
        draw(ss.DDPM(10), ss.AdaptiveReverseSDE(), 2, grid=[1.0, 0.1])
    with pytest.raises(ss.InputError, match="t = 1"):
        draw(ss.RectifiedFlow(), ss.AdaptiveReverseSDE(), 2)
    with pytest.raises(ss.InputError, match="rtol is -1"):
        ss.AdaptiveReverseSDE(rtol=-1)


class RoundedOtherwise(ss.Guide):
    """`RoundedOtherwise` is the denoiser on another device: the outputs differ by two units in the last place."""

    def predict(self, x, t, cond=None, *, keys=None):
        inner = self.denoiser.predict(x, t, cond)

        def other(half):
            return half * (1 + 2e-7 * jax.lax.stop_gradient(jnp.sin(1e5 * half)))

        return ss.Prediction(other(inner.x0), other(inner.noise))


@pytest.mark.slow
def test_rounding_does_not_change_the_steps():
    """Rounding changes a solution by the size of the rounding, and not by the size of the tolerance."""
    rng = np.random.default_rng(0)
    sde = ss.VP()
    model = ss.GaussianMixture(sde, np.ones(8), rng.normal(size=(8, 6)), rng.uniform(0.05, 0.3, 8))
    sampler, grid = ss.AdaptiveReverseSDE(0.05, 0.05), ss.time_grid.uniform(sde, 1)
    plain, rounded = (
        ss.sample(denoiser, sampler, grid, (6,), n=100, seed=0) for denoiser in (model, RoundedOtherwise(model))
    )
    assert np.mean(plain.nfe == rounded.nfe) > 0.97
    assert np.median(np.abs(plain.x - rounded.x).max(axis=1)) < 2e-5

    x = model.marginal(sde.t_min).sample(jax.random.split(jax.random.key(0), 100))
    options = dict(trace="exact", rtol=1e-3, atol=1e-3)
    plain, rounded = (ss.log_prob(denoiser, x, None, **options) for denoiser in (model, RoundedOtherwise(model)))
    differences = np.abs(plain.value - rounded.value)
    assert np.median(differences) < 4e-6 and np.mean(differences < 1e-4) > 0.8
