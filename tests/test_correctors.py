"""Langevin correctors have the stationary distributions of closed forms, and follow the formulas of the original."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.parallel import Jit
from score_sde.sampling import time_grid
from tests.closed_forms import energy_distance, mixture

SDES = {"vp": ss.VP(), "subvp": ss.SubVP(), "ve": ss.VE(sigma_max=20.0), "ddpm": ss.DDPM(1000), "smld": ss.SMLD(100)}


def keys_of(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@functools.partial(jax.jit, static_argnums=0)
def compiled(corrector, keys, model, x, t):
    return corrector.correct(keys, model, x, t)


def correct(corrector, model, x, t):
    return compiled(corrector, keys_of(len(x)), model, jnp.asarray(x), jnp.asarray(t))


def step_size(snr, ratio=1.0):
    """Return 2 rho (snr ratio)^2 on VP at t = 1; rho = exp of minus the integral of beta over the last thousandth."""
    width = (1 - 1e-5) / 1000
    rho = np.exp(-(0.1 * width + 19.9 * (1 - (1 - width) ** 2) / 2))
    return 2 * rho * (snr * ratio) ** 2


@pytest.mark.parametrize(("d", "n"), [(2, 20_000), (8, 8_000), (64, 2_000)])
@pytest.mark.parametrize("norms", ["expected", "batch"])
def test_stationary_law_of_a_gaussian(d, n, norms):
    """The variance of samples goes from 2.25 to 1 / (1 - e / 2) on N(0, I_d), within 4 standard errors.

    One step is x <- (1 - e) x + sqrt(2 e) z. On VP at t = 1, with data of unit variance, the marginal is N(0, I).
    """
    model = ss.GaussianMixture(ss.VP(), [1.0], np.zeros((1, d)), 1.0)
    snr, steps = 0.2, 60
    x = 1.5 * jax.random.normal(jax.random.key(1), (n, d))
    x, nfe = correct(ss.Langevin(snr, steps, norms), model, x, 1.0)
    assert nfe.dtype == jnp.int32 and nfe.tolist() == [steps] * n
    e = step_size(snr, float(model.sde.sigma(1.0)))
    exact = 2.25 * (1 - e) ** (2 * steps) + (1 - (1 - e) ** (2 * steps)) / (1 - e / 2)
    assert abs(float(jnp.mean(x**2)) / exact - 1) < 4 * np.sqrt(2 / (n * d))
    assert float(jnp.max(jnp.abs(x.mean(axis=0)))) < 4.5 * np.sqrt(exact / n)


@pytest.mark.parametrize("d", [8, 64])
def test_norms_of_each_sample_have_the_stated_bias(d):
    """As snr goes to 0, the variance is (1 + 2 / d)^2 instead of 1."""
    model = ss.GaussianMixture(ss.VP(), [1.0], np.zeros((1, d)), 1.0)
    n = 80_000 // d
    x, _ = correct(ss.Langevin(0.05, 800, "sample"), model, jax.random.normal(jax.random.key(1), (n, d)), 1.0)
    assert float(jnp.mean(x**2)) == pytest.approx((1 + 2 / d) ** 2, rel=4 * np.sqrt(2 / (n * d)) + 0.008)


@pytest.mark.slow
def test_norms_of_each_sample_in_the_plane():
    """|x|^2 / 2 is chi-squared with 4 degrees of freedom and median 3.36; the median of N(0, I) is 0.69."""
    model = ss.GaussianMixture(ss.VP(), [1.0], np.zeros((1, 2)), 1.0)
    x, _ = correct(ss.Langevin(0.02, 8000, "sample"), model, jax.random.normal(jax.random.key(1), (4_000, 2)), 1.0)
    assert float(jnp.median(jnp.sum(x**2, axis=1))) / 2 == pytest.approx(3.357, rel=0.05)


@pytest.mark.parametrize(
    ("name", "corrector"),
    [(name, ss.Langevin()) for name in SDES] + [("vp", ss.Langevin(norms="batch")), ("ve", ss.AnnealedLangevin())],
    ids=str,
)
def test_stationary_law_of_a_mixture(name, corrector):
    """Samples from one point reach two overlapping modes, up to Monte-Carlo error and the bias of snr = 0.16."""
    sde, n = SDES[name], 4000
    t = float(sde.nearest(np.asarray([0.6])).item())
    model = mixture(sde)
    exact = np.asarray(model.marginal(t).sample(keys_of(n, 5)), np.float64)
    corrector = dataclasses.replace(corrector, steps=250)
    x, _ = correct(corrector, model, jnp.broadcast_to(jnp.asarray([2.0, -1.0]), (n, 2)), t)
    x = np.asarray(x, np.float64)
    spread = np.sqrt(np.diag(model.marginal(t).covariance()).mean())
    assert energy_distance(x, exact) < 4 * 2 * spread / n + 0.002 * spread
    assert energy_distance(np.full((n, 2), [2.0, -1.0]), exact) > 0.1 * spread


def test_one_step_is_the_original():
    """A step has grad, noise and step size of the original code; alpha = 1 - beta_i on VP and 1 on VE."""
    n, snr = 6, 0.3
    x = np.random.default_rng(0).standard_normal((n, 2))
    with jax.enable_x64(True):
        for chain, alpha_of in (
            (ss.DiscreteVP(100), lambda i: 1 - np.linspace(1e-3, 0.2, 100)[i - 1]),
            (ss.SMLD(100), lambda i: 1),
        ):
            for i in (1, 40, 100):
                t, alpha = i / 100, alpha_of(i)
                key = jax.vmap(jax.random.fold_in, (0, None))(keys_of(n), 0)
                z = np.stack([jax.random.normal(k, (2,), jnp.float64) for k in key])
                grad = np.asarray(mixture(chain).score(jnp.asarray(x), t))
                size = [np.linalg.norm(part, axis=1).mean() for part in (z, grad)]
                std = float(chain.sigma(t))
                for corrector, e in (
                    (ss.Langevin(snr, norms="batch"), (snr * size[0] / size[1]) ** 2 * 2 * alpha),
                    (ss.AnnealedLangevin(snr, 1), (snr * std) ** 2 * 2 * alpha),
                    (ss.Langevin(snr), (snr * std) ** 2 * 2 * alpha),
                ):
                    ours, _ = correct(corrector, mixture(chain), x, t)
                    np.testing.assert_allclose(ours, x + e * grad + np.sqrt(2 * e) * z, rtol=1e-9)


@dataclasses.dataclass(frozen=True)
class Add(ss.Corrector):
    """`Add` adds the time, so that the result depends on the order of the steps."""

    def correct(self, keys, denoiser, x, t, cond=None):
        return x + t, jnp.full(len(x), 3, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Double(ss.Sampler):
    def step(self, keys, denoiser, x, t, s, state, cond=None):
        return 2 * x + s, state, jnp.full(len(x), 2, jnp.int32)


def test_the_corrector_comes_first():
    out = ss.sample(
        mixture(ss.VP()), ss.PredictorCorrector(Double(), Add()), [1.0, 0.5, 0.25], (2,), n=1, seed=0,
        x=np.ones((1, 2)), denoise=False,
    )  # fmt: skip
    np.testing.assert_allclose(out.x, 2 * (2 * (1 + 1.0) + 0.5 + 0.5) + 0.25)
    assert out.nfe.tolist() == [2 * (3 + 2)]


def test_predictor_and_corrector_draw_apart():
    """The two parts draw independent numbers; one number for both would give x no variance, or four times as much."""

    @dataclasses.dataclass(frozen=True)
    class Draw(ss.Sampler):
        def step(self, keys, denoiser, x, t, s, state, cond=None):
            return x + jax.vmap(lambda k: jax.random.normal(k, (2,)))(keys), state, jnp.zeros(len(x), jnp.int32)

    @dataclasses.dataclass(frozen=True)
    class DrawToo(ss.Corrector):
        def correct(self, keys, denoiser, x, t, cond=None):
            return x + jax.vmap(lambda k: jax.random.normal(k, (2,)))(keys), jnp.zeros(len(x), jnp.int32)

    n = 4000
    out = ss.sample(
        mixture(ss.VP()), ss.PredictorCorrector(Draw(), DrawToo()), [1.0, 0.5, 0.25], (2,), n=n, seed=0,
        x=np.zeros((n, 2)), denoise=False,
    )  # fmt: skip
    assert np.mean(out.x**2) == pytest.approx(4, rel=5 * np.sqrt(2 / (2 * n)))


@pytest.mark.slow
def test_either_part_may_be_missing():
    """A sampler without a corrector is the predictor, except for the keys.

    nfe is the number of network evaluations (defect 3 of the original).
    """
    model, grid = mixture(ss.VP()), time_grid.uniform(ss.VP(), 7)
    options = {"n": 4, "seed": 0, "denoise": False}
    alone = ss.sample(model, ss.Heun(), grid, (2,), **options)
    wrapped = ss.sample(model, ss.PredictorCorrector(ss.Heun(), None), grid, (2,), **options)
    np.testing.assert_allclose(wrapped.x, alone.x, rtol=1e-6)
    assert wrapped.nfe.tolist() == alone.nfe.tolist() == [14] * 4
    for predictor, corrector, evaluations in (
        (ss.Ancestral(), None, 1),
        (ss.Ancestral(), ss.Langevin(), 2),
        (ss.Heun(), ss.Langevin(steps=3), 5),
        (None, ss.AnnealedLangevin(0.1, 4), 4),
    ):
        out = ss.sample(model, ss.PredictorCorrector(predictor, corrector), grid, (2,), **(options | {"denoise": True}))
        assert out.nfe.tolist() == [7 * evaluations + 1] * 4


@pytest.mark.parametrize("predictor", [ss.DPMSolverPP(), ss.LMS()], ids=str)
def test_multistep_predictors_keep_their_memory(predictor):
    """A corrector with a step size near 0 does not change the result of a multistep predictor."""
    model, grid = mixture(ss.VP()), time_grid.log_snr(ss.VP(), 10)
    options = {"n": 8, "seed": 0}
    alone = ss.sample(model, predictor, grid, (2,), **options).x
    pair = ss.PredictorCorrector(predictor, ss.Langevin(snr=1e-6))
    np.testing.assert_allclose(ss.sample(model, pair, grid, (2,), **options).x, alone, atol=1e-3)


@pytest.mark.parametrize("sde", [ss.VP(), ss.SubVP(), ss.VE(), ss.RectifiedFlow(), ss.DDPM(50), ss.SMLD(50)], ids=str)
@pytest.mark.parametrize(
    "corrector",
    [
        ss.Langevin(),
        pytest.param(ss.Langevin(norms="batch"), marks=pytest.mark.slow),
        pytest.param(ss.AnnealedLangevin(), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_sde_has_correctors(sde, corrector):
    """The mean is right on every SDE; for sub-VP the original raises AttributeError (defect 1).

    RectifiedFlow has no signal at the start.
    """
    grid = time_grid.uniform(sde, 30)
    x = ss.sample(mixture(sde), ss.PredictorCorrector(ss.Ancestral(), corrector), grid, (2,), n=2000, seed=0).x
    assert np.abs(x.mean(axis=0) - [0.3 * 1.5 - 0.7 * 0.8, 0.7 * 0.6]).max() < 0.15


@pytest.mark.slow
def test_samples_depend_neither_on_the_batch_nor_on_devices():
    """Samples depend neither on the batch nor on devices (defect 4 of the original), except with norms='batch'."""
    model, grid = mixture(ss.SubVP()), time_grid.uniform(ss.SubVP(), 12)

    def run(corrector, rows=slice(None), **options):
        rows = np.arange(16)[rows]
        pair = ss.PredictorCorrector(ss.ReverseDiffusion(), corrector)
        return ss.sample(model, pair, grid, (2,), n=len(rows), first=int(rows[0]), seed=4, **options).x

    for corrector in (ss.Langevin(steps=2), ss.Langevin(norms="sample")):
        whole = run(corrector)
        for part in (run(corrector, slice(3, 8)), run(corrector, slice(3, 8), batch_size=2)):
            np.testing.assert_allclose(part, whole[3:8], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(run(corrector, sharding=Jit().sharded), whole, rtol=1e-4, atol=1e-4)
    batch = ss.Langevin(norms="batch")
    assert np.abs(run(batch, slice(3, 8)) - run(batch)[3:8]).max() > 1e-2


@pytest.mark.parametrize("predictor", [ss.ReverseDiffusion(), pytest.param(ss.DDIM(), marks=pytest.mark.slow)], ids=str)
def test_a_corrector_step_helps_at_50_steps_of_ve(predictor):
    sde, n = ss.VE(), 8000
    exact = np.asarray(mixture(sde).data.sample(keys_of(n, 7)), np.float64)
    distance = []
    for corrector in (None, ss.Langevin()):
        pair = ss.PredictorCorrector(predictor, corrector)
        x = ss.sample(mixture(sde), pair, time_grid.uniform(sde, 50), (2,), n=n, seed=0, batch_size=n).x
        distance.append(energy_distance(x.astype(np.float64), exact))
    assert distance[1] < 0.75 * distance[0]


def test_annealed_langevin_dynamics_of_a_chain():
    """NCSN (10 levels, 100 steps each, uniform noise at the start, no predictor) has the distribution of level 1."""
    chain, n = ss.SMLD(10, sigma_min=0.1, sigma_max=3.0), 4000
    model = mixture(chain)
    start = np.random.default_rng(0).uniform(-4, 4, (n, 2)).astype(np.float32)
    grid = np.append(time_grid.uniform(chain, 9), 0.0)
    out = ss.sample(
        model, ss.PredictorCorrector(None, ss.AnnealedLangevin(0.316, 100)), grid, (2,), n=n, seed=0, x=start
    )
    assert out.nfe.tolist() == [1000] * n
    exact = np.asarray(model.marginal(1 / 10).sample(keys_of(n, 3)), np.float64)
    # Steps of 0.2 sigma_1^2 add at least 10 % to sigma_1^2, which is a tenth of the variance of the narrow mode.
    assert energy_distance(out.x.astype(np.float64), exact) < 4 * 2 * 1.7 / n
    assert energy_distance(start.astype(np.float64), exact) > 0.3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.Langevin(snr=0), ["Langevin", "snr=0", "positive"]),
        (lambda: ss.Langevin(steps=0), ["steps of Langevin is 0", "at least 1"]),
        (lambda: ss.Langevin(norms="mean"), ["'mean'", "expected, batch, sample"]),
        (lambda: ss.AnnealedLangevin(snr=float("nan")), ["AnnealedLangevin", "snr=nan"]),
        (lambda: ss.PredictorCorrector(None, None), ["neither"]),
        (lambda: ss.PredictorCorrector("DDIM", None), ["predictor='DDIM'", "Sampler"]),
        (lambda: ss.PredictorCorrector(ss.Langevin(), None), ["predictor=Langevin", "Sampler"]),
        (lambda: ss.PredictorCorrector(None, ss.DDIM()), ["corrector=DDIM", "Corrector"]),
    ],
)
def test_bad_parts_are_refused(make, words):
    with pytest.raises(ss.InputError) as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_predictor_says_where_it_is_not_defined():
    with pytest.raises(ss.InputError, match="smooth"):
        pair = ss.PredictorCorrector(ss.EulerMaruyama(), ss.Langevin())
        ss.sample(mixture(ss.DDPM(10)), pair, time_grid.uniform(ss.DDPM(10), 5), (2,), n=2, seed=0)
