"""This module tests the other SDEs and the chains against the formulas of their papers, in NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import score_sde as ss
from score_sde.sampling import time_grid

T = np.linspace(0.02, 0.99, 25)
HALF_PI = np.pi / 2


def cosine(t, s=0.008):
    """Return (f, g^2, alpha, sigma); f is d/dt of log cos(pi/2 (t + s) / (1 + s)), and g^2 is beta = -2 f."""
    alpha = np.cos(HALF_PI * (t + s) / (1 + s)) / np.cos(HALF_PI * s / (1 + s))
    f = -HALF_PI / (1 + s) * np.tan(HALF_PI * (t + s) / (1 + s))
    return f, -2 * f, alpha, np.sqrt(1 - alpha**2)


def sigmoid(t, start=-3.0, end=3.0, tau=0.9):
    u = (start + t * (end - start)) / tau
    rise = special.expit(end / tau) - special.expit(start / tau)
    bar = (special.expit(end / tau) - special.expit(u)) / rise
    slope = -special.expit(u) * special.expit(-u) * (end - start) / tau / rise
    return slope / bar / 2, -slope / bar, np.sqrt(bar), np.sqrt(1 - bar)


SCHEDULES = {
    "cosine": (ss.CosineVP(), cosine),
    "sigmoid": (ss.SigmoidVP(tau=0.9), sigmoid),
    "karras": (ss.EDM(), lambda t: (0 * t, 2 * t, 1 + 0 * t, t)),
    "straight": (ss.RectifiedFlow(), lambda t: (-1 / (1 - t), 2 * t / (1 - t), 1 - t, t)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_published_coefficients_in_float64(x64, name):
    sde, published = SCHEDULES[name]
    f, g2, alpha, sigma = published(T)
    np.testing.assert_allclose(sde.drift_rate(T), f, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sde.diffusion_squared(T), g2, rtol=1e-10)
    np.testing.assert_allclose(sde.alpha(T), alpha, rtol=1e-10)
    np.testing.assert_allclose(sde.sigma(T), sigma, rtol=1e-10)


def test_schedules_that_reach_0_stop_before():
    """At t_max every parametrisation has enough signal; the t_max of the cosine is from Lu et al. 2022, App. D."""
    assert ss.CosineVP().t_max == 0.9946
    for sde in (ss.CosineVP(), ss.SigmoidVP()):
        assert 1e-3 < float(sde.alpha(sde.t_max)) < 0.02
        ss.Noise().check(sde)


@pytest.mark.parametrize("name", SCHEDULES)
def test_float32_is_accurate_at_both_ends(name):
    sde = SCHEDULES[name][0]
    t = np.asarray([sde.t_min, sde.t_stop, 1e-2, 0.5, sde.t_max * (1 - 1e-6)], np.float32)
    with jax.enable_x64(True):
        exact = [np.asarray(part(t.astype(np.float64))) for part in (sde.sigma, sde.diffusion)]
    np.testing.assert_allclose(sde.sigma(t), exact[0], rtol=1e-5)
    # The last time is left out, since 1 - t of the straight line's g^2 = 2 t / (1 - t) is rounded.
    np.testing.assert_allclose(sde.diffusion(t)[:4], exact[1][:4], rtol=1e-5)


def test_alpha_falls_from_1_to_0():
    for sde in (ss.CosineVP(t_max=1.0), ss.SigmoidVP(t_max=1.0), ss.RectifiedFlow()):
        alpha = np.asarray(sde.alpha(np.linspace(0, 1, 101)))
        assert alpha[0] == pytest.approx(1, abs=1e-7) and alpha[-1] == 0
        assert np.all(np.diff(alpha) < 0)
        np.testing.assert_allclose(sde.sigma(1.0), 1)


EVERY = [ss.VP(), ss.SubVP(), ss.VE(), *[sde for sde, _ in SCHEDULES.values()]]
EVERY += [ss.DDPM(100).smooth(), ss.SMLD(50).smooth()]
NAMES = [type(sde).__name__ + str(i) for i, sde in enumerate(EVERY)]


@pytest.mark.parametrize("sde", EVERY, ids=NAMES)
def test_time_of_inverts_the_signal_to_noise_ratio(x64, sde):
    t = np.geomspace(sde.t_min, sde.t_max, 50)
    np.testing.assert_allclose(sde.time_of(sde.log_snr(t)), t, rtol=1e-7)
    np.testing.assert_array_equal(sde.time_of(np.asarray([1e9, -1e9])), [sde.t_min, sde.t_max])


@pytest.mark.parametrize("sde", EVERY, ids=NAMES)
def test_grids_are_even_in_what_they_say(x64, sde):
    if float(sde.alpha(sde.t_max)) == 0:
        for grid in (time_grid.karras, time_grid.log_snr):
            with pytest.raises(ss.InputError, match=r"alpha\(t\) = 0 at t = 1.*time_grid.uniform"):
                grid(sde, 5)
        return
    even = time_grid.log_snr(sde, 6)
    np.testing.assert_allclose(np.diff(np.asarray(sde.log_snr(even)), n=2), 0, atol=1e-6)
    rooted = time_grid.karras(sde, 6, rho=5.0)
    level = np.asarray(sde.sigma(rooted) / sde.alpha(rooted)) ** (1 / 5)
    np.testing.assert_allclose(np.diff(level, n=2), 0, atol=1e-6 * level[0])
    for grid in (even, rooted):
        assert (grid[0], grid[-1]) == (float(sde.t_max), float(sde.t_stop))


def test_the_grid_of_karras_is_the_papers():
    """The default grid is Eq. (5) of the paper with 18 steps; the last denoising is the last step, to 0."""
    n, low, high = 18, 0.002 ** (1 / 7), 80 ** (1 / 7)
    paper = (high + np.arange(n) / (n - 1) * (low - high)) ** 7
    np.testing.assert_allclose(time_grid.default(ss.EDM(), 17), paper, rtol=1e-10)


# The tests below are about chains.

BETAS = np.linspace(1e-4, 0.02, 1000)
BAR = np.cumprod(1 - BETAS)


def test_ddpm_is_the_papers_chain(x64):
    chain, level = ss.DDPM(), np.arange(1, 1001)
    np.testing.assert_allclose(chain.alpha(level / 1000) ** 2, BAR, rtol=1e-10)
    np.testing.assert_allclose(chain.variance(level / 1000), 1 - BAR, rtol=1e-10)
    r, v = chain.transition((level - 1) / 1000, level / 1000)
    np.testing.assert_allclose(r, np.sqrt(1 - BETAS), rtol=1e-10)
    np.testing.assert_allclose(v, BETAS, rtol=1e-10)
    np.testing.assert_array_equal(chain.label(level / 1000), np.arange(1000))
    assert (float(chain.alpha(0.0)), float(chain.variance(0.0))) == (1.0, 0.0)


def test_the_other_chains_are_those_of_their_papers(x64):
    n = 50
    level = np.arange(1, n + 1)
    bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * HALF_PI) ** 2
    betas = {
        "CosineDDPM": np.minimum(1 - bar[1:] / bar[:-1], 0.999),
        "DiscreteVP": np.linspace(0.1 / n, 20 / n, n),
    }
    for name, beta in betas.items():
        chain = getattr(ss, name)(n)
        np.testing.assert_allclose(chain.transition((level - 1) / n, level / n)[1], beta, rtol=1e-9)
        np.testing.assert_allclose(chain.alpha(level / n) ** 2, np.cumprod(1 - beta), rtol=1e-9)
    sigmas = 0.01 * (50 / 0.01) ** (np.arange(n) / (n - 1))
    chain = ss.SMLD(n)
    np.testing.assert_allclose(chain.sigma(level / n), sigmas, rtol=1e-10)
    # sigma_0 is 0, so the first step of the chain adds the whole first variance.
    np.testing.assert_allclose(chain.transition((level - 1) / n, level / n)[1], np.diff(np.r_[0, sigmas**2]), rtol=1e-8)
    np.testing.assert_array_equal(chain.label(level / n), np.arange(n)[::-1])  # Label 0 has the most noise.


@pytest.mark.parametrize(
    "chain",
    [
        ss.DDPM(40),
        ss.DiscreteVP(40),
        ss.SMLD(40),
        ss.Chain([0.9, 0.7, 0.2], [0.05, 0.2, 0.7]),
        ss.Chain(np.linspace(0.999, 0.1, 20), np.linspace(0.2, 1.0, 20)),
        ss.Chain([0.99, 0.5], [0.5, 0.6]),
        ss.Chain([1.0, 0.9, 0.5], [0.01, 0.2, 0.8]),
    ],
    ids=["ddpm", "vp", "smld", "own", "uneven", "two", "clean"],
)
def test_a_smooth_chain_goes_through_the_levels(x64, chain):
    smooth = chain.smooth()
    t = np.arange(1, chain.levels + 1) / chain.levels
    np.testing.assert_allclose(smooth.alpha(t), chain.alpha(t), rtol=1e-10)
    np.testing.assert_allclose(smooth.variance(t), chain.variance(t), rtol=1e-10)
    np.testing.assert_allclose(smooth.label(t), chain.label(t), atol=1e-9)
    fine = np.linspace(smooth.t_min, 1, 1000)
    assert np.all(np.diff(np.asarray(smooth.log_snr(fine))) < 0)
    assert np.all(np.asarray(smooth.diffusion_squared(fine)) >= 0)


@pytest.mark.parametrize(("make", "limit"), [(ss.DiscreteVP, ss.VP()), (ss.SMLD, ss.VE())])
def test_a_smooth_chain_has_the_limit_of_its_paper(x64, make, limit):
    """g^2 of a smooth chain of length N converges to g^2 of the SDE, with an error of first order in 1 / N."""
    t = np.linspace(0.1, 0.95, 40)
    errors = [np.abs(make(n).smooth().diffusion_squared(t) / limit.diffusion_squared(t) - 1).max() for n in (500, 2000)]
    assert errors[1] < 0.02
    assert 2.5 < errors[0] / errors[1] < 6


@pytest.mark.parametrize(
    "sde", [sde for sde in EVERY if float(sde.alpha(sde.t_max)) > 0], ids=lambda sde: type(sde).__name__
)
def test_time_of_in_float32(sde):
    """`time_of` is as accurate in log-SNR as a time in float32."""
    wanted = np.linspace(*np.asarray(sde.log_snr(np.asarray([sde.t_min, sde.t_max]))), 30)[1:-1].astype("f")
    t = sde.time_of(wanted)
    with jax.enable_x64(True):
        slope = np.abs(np.asarray(sde.diffusion_squared(t) / sde.variance(t)))
        log_snr = np.asarray(sde.log_snr(np.asarray(t, np.float64)))
    digits = np.finfo(np.float32).eps
    assert np.all(np.abs(log_snr - wanted) < 30 * digits * (10 + np.abs(wanted) + slope * np.asarray(t)))


def test_where_schedules_end_at_0():
    """At alpha = 0 the cosine has sigma' = 0 and a finite alpha'; the infinite alpha' of the sigmoid is refused."""
    cosine, sigmoid, s = ss.CosineVP(t_max=1.0), ss.SigmoidVP(t_max=1.0), 0.008
    slope = -HALF_PI / (1 + s) / np.cos(HALF_PI * s / (1 + s))
    np.testing.assert_allclose(cosine.velocity_rates(1.0), [slope, 0.0], rtol=1e-5, atol=1e-6)
    ss.Velocity().check(cosine)
    model = ss.GaussianMixture(cosine, [1.0], [[0.3, 0.0]], 0.5)
    x = ss.sample(model, ss.Heun(), time_grid.uniform(cosine, 40), (2,), n=500, seed=0).x
    assert abs(x[:, 0].mean() - 0.3) < 0.1 and abs(x.std() - 0.5) < 0.1
    with pytest.raises(ss.InputError, match=r"Velocity needs finite.*-inf"):
        ss.Velocity().check(sigmoid)
    model, grid = ss.GaussianMixture(sigmoid, [1.0], [[0.3, 0.0]], 0.5), time_grid.uniform(sigmoid, 40)
    for sampler in (ss.Euler(), ss.Heun(), ss.ProbabilityFlow()):
        with pytest.raises(ss.InputError, match=r"t = 1, where SigmoidVP has alpha' = -inf.*t_max=0.999"):
            ss.sample(model, sampler, grid, (2,), n=2, seed=0)
    assert np.isfinite(ss.sample(model, ss.DDIM(), grid, (2,), n=2, seed=0).x).all()


def test_a_long_chain_knows_its_own_grid():
    chain = ss.DDPM(60_000, beta_min=1e-6, beta_max=3e-4)
    model = ss.GaussianMixture(chain, [1.0], [[0.0, 0.0]], 0.5)
    assert np.isfinite(ss.sample(model, ss.DDIM(), time_grid.uniform(chain, 7), (2,), n=2, seed=0).x).all()


def test_what_a_chain_has_not():
    chain = ss.DDPM(10)
    model = ss.GaussianMixture(chain, [1.0], [[0.0, 0.0]], 0.5)
    x, t = jnp.ones((2, 2)), 0.3
    for missing in (chain.drift_rate, chain.diffusion, chain.velocity_rates):
        with pytest.raises(ss.InputError, match=r"10 levels only.*chain.smooth\(\)"):
            missing(t)
    for sampler in (ss.ProbabilityFlow(), ss.EulerMaruyama(), ss.Heun(), ss.Euler(), ss.DPM2(), ss.DPMSolverPP2S()):
        with pytest.raises(ss.InputError, match=r"between the levels of DDPM.*chain.smooth\(\)"):
            ss.sample(model, sampler, time_grid.uniform(chain, 5), (2,), n=2, seed=0)
    with pytest.raises(ss.InputError, match="levels"):
        jax.jit(lambda x: model.velocity(x, t))(x)
    with pytest.raises(ss.InputError, match=r"0.35; expected levels i / 10"):
        ss.sample(model, ss.DDIM(), [1.0, 0.35], (2,), n=2, seed=0)
    with pytest.raises(ss.InputError, match=r"10 levels, and two of the 13 times.*9\)"):
        time_grid.uniform(chain, 12)
    with pytest.raises(ss.InputError, match="has no levels"):
        ss.VP().label(0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.Chain([0.9, 0.8], [0.1]), "shape"),
        (lambda: ss.Chain([0.9, 0.95], [0.1, 0.1]), "ratio goes from 8.1 to 9.025 after index 0"),
        (lambda: ss.Chain([0.9, 0.8], [0.1, -0.1]), "positive"),
        (lambda: ss.Chain([0.9, 0.0], [0.1, 1.0]).smooth(), "alpha = 0 at level 2"),
        (lambda: ss.DDPM(1), "is 1; expected a whole number, at least 2"),
        (lambda: ss.DDPM(10, beta_max=1.5), "beta of"),
        (lambda: ss.SMLD(10, sigma_min=2.0, sigma_max=1.0), "sigma_min=2.0"),
        (lambda: ss.EDM(sigma_min=3.0, sigma_max=1.0), "3.0"),
        (lambda: ss.CosineVP(t_max=1.5), "t_max=1.5"),
        (lambda: ss.SigmoidVP(start=1.0, end=0.0), "start=1.0, end=0.0"),
        (lambda: time_grid.karras(ss.VP(), 5, rho=-1.0), "rho is -1.0"),
    ],
)
def test_bad_schedules_are_refused(make, words):
    with pytest.raises(ss.InputError, match=words.replace("(", r"\(")):
        make()
