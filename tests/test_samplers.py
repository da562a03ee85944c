"""This module tests the samplers on all SDEs and chains: identities in float64, and orders of convergence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.sampling import time_grid
from tests.closed_forms import mixture

X = np.random.default_rng(0).standard_normal((3, 2))
KEYS = jax.random.split(jax.random.key(0), 3)
SDES = {
    "vp": ss.VP(),
    "subvp": ss.SubVP(),
    "ve": ss.VE(sigma_max=20.0),
    "cosine": ss.CosineVP(),
    "sigmoid": ss.SigmoidVP(),
    "karras": ss.EDM(sigma_max=20.0),
    "straight": ss.RectifiedFlow(),
    "ddpm": ss.DDPM(100),
    "smld": ss.SMLD(100, sigma_max=20.0),
    "smooth": ss.DDPM(100).smooth(),
}


def two_times(sde):
    """Return the two times of a step near the middle of the time range; on a chain both times are levels."""
    return [float(t) for t in sde.nearest(np.asarray([0.6, 0.5]) * sde.t_max)]


def step(sampler, sde, x=X, memory=None, times=None):
    t, s = two_times(sde) if times is None else times
    model, x = mixture(sde), jnp.asarray(x)
    memory = sampler.init(x) if memory is None else memory
    sampler.check(sde, np.asarray([t, s]))
    return sampler.step(KEYS, model, x, jnp.asarray(t), jnp.asarray(s), memory)


def same(a, b, **tolerance):
    np.testing.assert_allclose(a, b, **({"rtol": 1e-10, "atol": 1e-10} | tolerance))


@pytest.fixture(params=SDES)
def sde(request):
    return SDES[request.param]


def test_ddim_is_ancestral_at_1_and_euler_in_the_noise_level_at_0(x64, sde):
    same(step(ss.DDIM(eta=1.0), sde)[0], step(ss.Ancestral("posterior"), sde)[0])
    same(step(ss.EulerAncestral(), sde)[0], step(ss.DDIM(eta=1.0), sde)[0])
    (t, s), model = two_times(sde), mixture(sde)
    alpha, sigma = ([float(f(u)) for u in (t, s)] for f in (sde.alpha, sde.sigma))
    noise = model.noise(jnp.asarray(X), t)
    euler = alpha[1] * (X / alpha[0] + (sigma[1] / alpha[1] - sigma[0] / alpha[0]) * noise)
    for sampler in (ss.DDIM(), ss.DPMSolverPP(order=1), ss.DPMSolverPP(), ss.LMS(order=1), ss.LMS(order=4)):
        same(step(sampler, sde)[0], euler)  # The first step of a multistep method has order 1.
    if sde.levels is None:
        same(step(ss.DPM2Ancestral(eta=0.0), sde)[0], step(ss.DPM2(), sde)[0])


def test_ancestral_with_eta_by_the_formula_of_k_diffusion(x64, sde):
    """A step with eta has Karras' sigma_up and sigma_down in the noise level n = sigma / alpha."""
    (t, s), eta = two_times(sde), 0.6
    n_t, n_s = (float(sde.sigma(u) / sde.alpha(u)) for u in (t, s))
    up = min(n_s, eta * np.sqrt(n_s**2 * (n_t**2 - n_s**2) / n_t**2))
    down = np.sqrt(n_s**2 - up**2)
    z = jnp.stack([jax.random.normal(key, (2,), jnp.float64) for key in KEYS])
    y = X / sde.alpha(t) + (down - n_t) * mixture(sde).noise(jnp.asarray(X), t) + up * z
    same(step(ss.EulerAncestral(eta=eta), sde)[0], sde.alpha(s) * y)
    if sde.levels is None:
        m = float(sde.time_of(-np.log(n_t * down)))
        middle = np.sqrt(n_t * down)
        x_m = sde.alpha(m) * (X / sde.alpha(t) + (middle - n_t) * mixture(sde).noise(jnp.asarray(X), t))
        y = X / sde.alpha(t) + (down - n_t) * mixture(sde).noise(x_m, m) + up * z
        same(step(ss.DPM2Ancestral(eta=eta), sde)[0], sde.alpha(s) * y, rtol=1e-8)


def test_reverse_diffusion_on_the_discrete_tables_is_the_original():
    """A step is x - f + G^2 score + G z with the f and G of the forward step (Song et al. 2021, App. E)."""
    with jax.enable_x64(True):
        z = jnp.stack([jax.random.normal(key, (2,), jnp.float64) for key in KEYS])
        for i in (1, 2, 60, 100):
            chain = ss.DiscreteVP(100)
            beta = np.linspace(0.1 / 100, 20 / 100, 100)[i - 1]
            score = mixture(chain).score(jnp.asarray(X), i / 100)
            f, g = np.sqrt(1 - beta) * X - X, np.sqrt(beta)
            fresh = z if i > 1 else 0  # The last step returns the mean.
            original = X - (f - g**2 * score) + g * fresh
            same(step(ss.ReverseDiffusion(), chain, times=(i / 100, (i - 1) / 100))[0], original)
            chain = ss.SMLD(100)
            sigmas = np.r_[0, np.geomspace(0.01, 50, 100)]
            g = np.sqrt(sigmas[i] ** 2 - sigmas[i - 1] ** 2)
            original = X + g**2 * mixture(chain).score(jnp.asarray(X), i / 100) + g * fresh
            same(step(ss.ReverseDiffusion(), chain, times=(i / 100, (i - 1) / 100))[0], original)


@pytest.mark.parametrize("sde", [ss.EDM(0.02, 20.0), ss.RectifiedFlow(), ss.SubVP()], ids=["karras", "line", "subvp"])
def test_outside_its_window_churn_adds_nothing(sde):
    """Outside its window churn adds no noise, although a compiled program rounds the variance between equal times."""
    grid = time_grid.default(sde, 12)
    model, x = mixture(sde), np.random.default_rng(0).standard_normal((8, 2)).astype("f")
    for sampler in (ss.Euler, ss.Heun):
        plain = ss.sample(model, sampler(), grid[1:], (2,), n=8, seed=0, x=x).x
        off = ss.sample(model, sampler(gamma=0.3, s_min=1e4, s_max=1e5), grid[1:], (2,), n=8, seed=0, x=x).x
        np.testing.assert_allclose(off, plain, rtol=1e-4, atol=1e-5)
        if not isinstance(sde, ss.RectifiedFlow):
            assert np.isfinite(ss.sample(model, sampler(gamma=0.3), grid, (2,), n=8, seed=0).x).all()


@pytest.mark.parametrize("name", ["vp", "ve", "cosine", "karras"])
def test_the_family_between_ode_and_sde(x64, name):
    sde = SDES[name]
    t, s = two_times(sde)
    same(step(ss.EulerMaruyama(noise=0.0), sde)[0], step(ss.Euler(), sde)[0])
    g2, score = float(sde.diffusion_squared(t)), mixture(sde).score(jnp.asarray(X), t)
    z = jnp.stack([jax.random.normal(key, (2,), jnp.float64) for key in KEYS])
    for noise in (0.3, 1.0, 1.7):
        lam = noise * np.sqrt(g2)
        mean = X - (sde.drift(jnp.asarray(X), t) - (g2 + lam**2) / 2 * score) * (t - s)
        same(step(ss.EulerMaruyama(noise=noise), sde)[0], mean + lam * np.sqrt(t - s) * z)


def test_dpm_solver_and_lms_by_their_papers_formulas(x64):
    """Steps on VP agree with 2M and 2S of Lu et al. 2022 (Algorithms 1 and 2), and with Adams-Bashforth's weights."""
    sde, model = ss.VP(), mixture(ss.VP())
    t = [0.8, 0.65, 0.45]
    lam = [float(np.log(sde.alpha(u) / sde.sigma(u))) for u in t]
    alpha, sigma = ([float(f(u)) for u in t] for f in (sde.alpha, sde.sigma))
    h = np.diff(lam)
    x0 = model.denoise(jnp.asarray(X), t[0])
    x1 = sigma[1] / sigma[0] * X - alpha[1] * np.expm1(-h[0]) * x0
    r = h[0] / h[1]
    d = (1 + 1 / (2 * r)) * model.denoise(x1, t[1]) - 1 / (2 * r) * x0
    x2 = sigma[2] / sigma[1] * x1 - alpha[2] * np.expm1(-h[1]) * d
    sampler = ss.DPMSolverPP()
    after_one, memory, _ = step(sampler, sde, times=t[:2])
    same(after_one, x1)
    same(step(sampler, sde, x=after_one, memory=memory, times=t[1:])[0], x2)

    m = float(sde.time_of(2 * (lam[0] + h[0] / 2)))
    u = sde.sigma(m) / sigma[0] * X - sde.alpha(m) * np.expm1(-h[0] / 2) * x0
    single = sigma[1] / sigma[0] * X - alpha[1] * np.expm1(-h[0]) * model.denoise(u, m)
    same(step(ss.DPMSolverPP2S(), sde, times=t[:2])[0], single, rtol=1e-8)

    n = [s / a for s, a in zip(sigma, alpha)]
    e0 = model.noise(jnp.asarray(X), t[0])
    y1 = X / alpha[0] + (n[1] - n[0]) * e0
    e1 = model.noise(alpha[1] * y1, t[1])
    # Order 2 integrates the line through (n_0, e0), (n_1, e1) from n_1 to n_2.
    slope, width = (e1 - e0) / (n[1] - n[0]), n[2] - n[1]
    y2 = y1 + width * e1 + slope * width**2 / 2
    sampler = ss.LMS(order=2)
    after_one, memory, _ = step(sampler, sde, times=t[:2])
    same(step(sampler, sde, x=after_one, memory=memory, times=t[1:])[0], alpha[2] * y2)


class Cubic(ss.Denoiser):
    """`Cubic` predicts noise(x, t) = 1 + 2 n + 3 n^2 + 4 n^3 with n = sigma / alpha, whose integral is known."""

    def predict(self, x, t, cond=None, *, keys=None):
        n = self.sde.sigma(t) / self.sde.alpha(t)
        noise = jnp.broadcast_to(1 + 2 * n + 3 * n**2 + 4 * n**3, x.shape)
        return ss.Prediction((x - self.sde.sigma(t) * noise) / self.sde.alpha(t), noise)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_integrates_polynomials_below_its_order(x64, order):
    """After the start-up, order k is exact on polynomials of degree k - 1, so only order 4 is exact on degree 3."""
    sde, sampler = ss.EDM(sigma_max=4.0), ss.LMS(order=order)
    grid = time_grid.karras(sde, 8)
    model, x = Cubic(sde), jnp.zeros((1, 1))
    memory = sampler.init(x)
    for t, s in itertools.pairwise(grid):
        before, (x, memory, _) = x, sampler.step(None, model, x, jnp.asarray(t), jnp.asarray(s), memory)
    exact = sum(s**k - t**k for k in (1, 2, 3, 4))
    error = abs(float((x - before)[0, 0]) - exact)
    assert (error < 1e-12) == (order == 4)


def global_error(sampler, sde, n, start=0.8, end=0.2):
    """Return the largest error of the probability flow between two times, from the closed form of Gaussian data."""
    model = ss.GaussianMixture(sde, [1.0], [[0.0, 0.0]], 0.5)
    grid = np.asarray(sde.time_of(np.linspace(*np.asarray(sde.log_snr(np.asarray([start, end]) * sde.t_max)), n + 1)))
    v = [float(sde.alpha(t)) ** 2 * 0.25 + float(sde.variance(t)) for t in (grid[0], grid[-1])]
    x = np.full((1, 2), np.sqrt(v[0]))
    out = ss.sample(model, sampler, grid, (2,), n=1, seed=0, x=x, denoise=False).x
    return np.abs(out / np.sqrt(v[1]) - 1).max()


ORDERS = [
    (ss.Euler(), 1),
    (ss.DDIM(), 1),
    (ss.EulerMaruyama(noise=0.0), 1),
    (ss.Heun(), 2),
    (ss.DPM2(), 2),
    (ss.DPMSolverPP(), 2),
    (ss.DPMSolverPP2S(), 2),
    (ss.LMS(order=2), 2),
]


@pytest.mark.parametrize("name", ["vp", "karras", "straight"])
def test_order_of_convergence_of_the_flow(x64, name):
    for sampler, order in ORDERS:
        coarse, fine = (global_error(sampler, SDES[name], n) for n in (256, 512))
        assert abs(np.log2(coarse / fine) - order) < 0.2, (sampler, coarse, fine)


def test_churn_by_hand(x64):
    sde, gamma = ss.EDM(), 0.2
    t, s = 5.0, 4.0
    z = jnp.stack([jax.random.normal(key, (2,), jnp.float64) for key in KEYS])
    hat = t * (1 + gamma)
    raised = X + np.sqrt(hat**2 - t**2) * 1.003 * z  # Karras et al. 2022, Algorithm 2
    slope = (raised - mixture(sde).denoise(raised, hat)) / hat
    options = {"gamma": gamma, "s_noise": 1.003}
    same(step(ss.Euler(**options), sde, times=(t, s))[0], raised + (s - hat) * slope, rtol=1e-8)
    ahead = raised + (s - hat) * slope
    slope_ahead = (ahead - mixture(sde).denoise(ahead, s)) / s
    same(step(ss.Heun(**options), sde, times=(t, s))[0], raised + (s - hat) * (slope + slope_ahead) / 2, rtol=1e-8)
    outside = ss.Euler(gamma=gamma, s_max=4.9)
    same(step(outside, sde, times=(t, s))[0], step(ss.Euler(), sde, times=(t, s))[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.DDIM(eta=1.5), "eta=1.5"),
        (lambda: ss.EulerMaruyama(noise=-1.0), "noise=-1.0"),
        (lambda: ss.LMS(order=5), "order=5"),
        (lambda: ss.DPMSolverPP(order=0), "order=0"),
        (lambda: ss.DPM2Ancestral(eta=-0.1), "eta=-0.1"),
        (lambda: ss.Heun(gamma=-1.0), "gamma=-1.0"),
    ],
)
def test_bad_samplers_are_refused(make, words):
    with pytest.raises(ss.InputError, match=words):
        make()


@pytest.mark.slow
def test_where_alpha_is_0():
    """DDIM, Ancestral, Euler, Heun and DPM-Solver++ (2M) start where alpha = 0; the other samplers are refused."""
    sde = ss.RectifiedFlow()
    model, grid = mixture(sde), time_grid.uniform(sde, 8)
    for sampler in (ss.DDIM(), ss.DDIM(1.0), ss.Ancestral(), ss.Euler(), ss.Heun(), ss.DPMSolverPP()):
        out = ss.sample(model, sampler, grid, (2,), n=4, seed=0)
        assert np.isfinite(out.x).all()
    before = ss.RectifiedFlow(t_max=0.999)
    for sampler in (ss.EulerMaruyama(), ss.LMS(), ss.DPM2(), ss.DPMSolverPP2S(), ss.Euler(gamma=0.1)):
        with pytest.raises(ss.InputError, match="t = 1"):
            ss.sample(model, sampler, grid, (2,), n=4, seed=0)
        out = ss.sample(mixture(before), sampler, time_grid.log_snr(before, 30), (2,), n=4, seed=0)
        assert np.abs(out.x).max() < 4  # The error names the smaller t_max as the remedy.


@pytest.mark.parametrize("chain", [ss.DDPM(20), ss.SMLD(20, sigma_max=5.0)], ids=["ddpm", "smld"])
def test_a_walk_to_level_0_needs_no_last_denoising(chain):
    """At level 0 x is data: the last step gives E[x_0 | x_1], as denoising at level 1 does."""
    model, grid = mixture(chain), np.arange(20, -1, -1) / 20
    for sampler in (ss.Ancestral("forward"), ss.DPMSolverPP()):
        whole = ss.sample(model, sampler, grid, (2,), n=4, seed=0)
        before = ss.sample(model, sampler, grid[:-1], (2,), n=4, seed=0)
        np.testing.assert_array_equal(whole.nfe, before.nfe)
        np.testing.assert_allclose(whole.x, before.x, rtol=1e-4, atol=1e-5)
