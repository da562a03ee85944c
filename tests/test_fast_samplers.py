"""This module tests the samplers for few evaluations: identities, published formulas and orders, in float64."""

import itertools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.core import keys as keys_
from score_sde.sampling import time_grid
from tests.closed_forms import mixture
from tests.test_samplers import KEYS, SDES, Cubic, X, global_error, same, step, two_times

STD = 0.5


def walk(sampler, sde, grid, x=X):
    model, x = mixture(sde), jnp.asarray(x)
    memory = sampler.init(x)
    path = [x]
    for t, s in itertools.pairwise(np.asarray(grid)):
        x, memory, _ = sampler.step(KEYS, model, x, jnp.asarray(t), jnp.asarray(s), memory)
        path.append(x)
    return np.asarray(path)


@pytest.mark.parametrize("name", ["vp", "karras", "straight", "ddpm"])
def test_identities(x64, name):
    """Methods that are equal on paper take equal steps: on a grid of four uneven steps, also from alpha = 0."""
    sde = SDES[name]
    grid = sde.nearest(np.asarray([1.0, 0.85, 0.6, 0.5, 0.2]) * float(sde.t_max))
    pairs = [
        (ss.UniPC(2, corrects=False), ss.DPMSolverPP(2)),
        (ss.UniPC(3, corrects=False), ss.DPMSolverPP(3, start="ramp")),
        (ss.SASolver(3, 0.0), ss.DPMSolverPP(3, weights="exact", start="ramp")),
        (ss.SASolver(1, 1.0), ss.Ancestral()),
        (ss.SASolver(1, 0.0), ss.DDIM()),
        (ss.SASolver(2, 1.0), ss.DPMSolverPP(2, eta=1.0, weights="exact")),
        (ss.DPMSolverPP(1, eta=1.0), ss.Ancestral()),
    ]
    if name != "straight":  # these divide by alpha
        pairs += [(ss.LMSAncestral(1, eta=0.6), ss.DDIM(eta=0.6)), (ss.LMSAncestral(4, eta=0.0), ss.LMS(4, "ramp"))]
        pairs += [(ss.LMS(2), ss.LMS(2, "ramp")), (ss.SASolver(2, 0.6, s_max=1e9), ss.SASolver(2, 0.6))]
        pairs += [(ss.SASolver(2, 0.6, s_max=1e-9), ss.SASolver(2, 0.0))]
    if name in ("vp", "karras"):
        pairs += [(ss.DPMSolverPPSDE(eta=0.0), ss.DPMSolverPP2S())]
    for one, other in pairs:
        a, b = walk(one, sde, grid), walk(other, sde, grid)
        assert np.isfinite(a).all()
        same(a, b, rtol=1e-8, atol=1e-9)


def published_unipc(sde, grid, p, variant):
    """Return the end of UniPC-p as the paper states it: R_p(h) rho = phi_p / B(h), for predictions of x_0."""
    model, x, history = mixture(sde), np.asarray(X), []
    lam = [float(np.log(sde.alpha(u) / sde.sigma(u))) for u in grid]

    def increments(order, ratios, hh, of_corrector):
        b_h = hh if variant == "bh1" else math.expm1(hh)
        phi, factorial, b = math.expm1(hh) / hh - 1, 1, []
        for k in range(1, order + 1):
            b.append(phi * factorial / b_h)
            factorial *= k + 1
            phi = phi / hh - 1 / factorial
        if order == 1:
            return b_h, np.asarray([0.5])  # by decree, for two predictions
        return b_h, np.linalg.solve(np.asarray([np.asarray(ratios) ** k for k in range(order)]), b)

    for i, (t, s) in enumerate(itertools.pairwise(grid)):
        if i == 0:
            history = [(lam[0], np.asarray(model.denoise(jnp.asarray(x), t)))]
        order = min(p, i + 1)
        h = lam[i + 1] - lam[i]
        alpha, ratio = float(sde.alpha(s)), float(sde.sigma(s) / sde.sigma(t))
        base = ratio * x - alpha * math.expm1(-h) * history[0][1]
        ratios = [(history[j][0] - lam[i]) / h for j in range(1, order)]
        slopes = [(history[j][1] - history[0][1]) / r for j, r in zip(range(1, order), ratios)]
        x_s = base
        if order > 1:
            b_h, rho = increments(order - 1, ratios, -h, False)
            x_s = base - alpha * b_h * sum(c * d for c, d in zip(rho, slopes))
        if i == len(grid) - 2:
            return x_s
        ahead = np.asarray(model.denoise(jnp.asarray(x_s), s))
        b_h, rho = increments(order, [*ratios, 1.0], -h, True)
        x = base - alpha * b_h * (sum(c * d for c, d in zip(rho, slopes)) + rho[-1] * (ahead - history[0][1]))
        history = [(lam[i + 1], ahead), *history]
    raise AssertionError("a grid has at least one step")


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_by_its_papers_linear_systems(x64, variant):
    grid = [0.9, 0.8, 0.65, 0.5, 0.4, 0.25]
    for p in (1, 2, 3):
        expected = published_unipc(ss.VP(), grid, p, variant)
        same(walk(ss.UniPC(p, variant), ss.VP(), grid)[-1], expected, rtol=1e-8, atol=1e-9)


ORDERS = [
    (ss.LMS(3), 3),
    (ss.LMS(4), 4),
    (ss.DPMSolverPP(3), 3),
    (ss.DPMSolverPP(3, weights="published"), 2),
    (ss.UniPC(1), 2),
    (ss.UniPC(2), 3),
    (ss.UniPC(2, "bh1"), 3),
    (ss.UniPC(3, corrects=False, start="joint"), 3),
    (ss.PNDM(), 2),
    (ss.SASolver(2, 0.0), 2),
    (ss.DPMSolverPPSDE(eta=0.0), 2),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "karras"])
def test_order_of_convergence_of_the_flow(x64, name):
    for sampler, order in ORDERS:
        coarse, fine = (global_error(sampler, SDES[name], n) for n in (80, 160))
        assert abs(np.log2(coarse / fine) - order) < 0.2, (sampler, coarse, fine)


def test_a_joint_start_keeps_the_order(x64):
    """The published start limits LMS(4) to order 2 on the Karras SDE, with an error ten times that of a joint start."""
    ramp, joint = ([global_error(ss.LMS(4, s), SDES["karras"], n) for n in (160, 320)] for s in ("ramp", "joint"))
    assert 1.9 < np.log2(ramp[0] / ramp[1]) < 2.2
    assert 3.8 < np.log2(joint[0] / joint[1]) < 4.2
    assert joint[0] < 0.1 * ramp[0]


def test_unipc_3_is_of_order_3_at_least(x64):
    coarse, fine = (global_error(ss.UniPC(3), SDES["vp"], n) for n in (80, 160))
    assert np.log2(coarse / fine) > 2.8


def variance_error(sampler, sde, n, draws=2):
    """Return the relative error of the variance of N(0, STD^2) after a walk, without samples.

    On a Gaussian a walk is linear in x and in each draw of noise. Row 0 of a batch has x = 1 and no noise, and each
    other row has one draw equal to 1; the variance is the sum of their squares.
    """
    ends = np.asarray(sde.log_snr(np.asarray([0.8, 0.2]) * float(sde.t_max)))
    grid = np.asarray(sde.time_of(np.linspace(*ends, n + 1)))
    model, rows = ss.GaussianMixture(sde, [1.0], [[0.0]], STD), 1 + draws * n
    keys = jax.random.split(KEYS[0], rows)

    def one(carry, at):
        k, t, s = at
        drawn = itertools.count()

        def normal(*_):
            return (jnp.arange(rows) == 1 + draws * k + next(drawn)).astype(float)[:, None]

        with mock.patch.object(keys_, "normal", normal):
            return sampler.step(keys, model, carry[0], t, s, carry[1])[:2], None

    x = jnp.zeros((rows, 1)).at[0].set(1.0)
    steps = (jnp.arange(n), jnp.asarray(grid[:-1]), jnp.asarray(grid[1:]))
    x = np.asarray(jax.jit(lambda x: jax.lax.scan(one, (x, sampler.init(x)), steps)[0][0])(x))[:, 0]
    before, after = (float(sde.alpha(t)) ** 2 * STD**2 + float(sde.variance(t)) for t in (grid[0], grid[-1]))
    return abs((x[0] ** 2 * before + np.sum(x[1:] ** 2)) / after - 1)


WEAK = [
    (ss.SRA1(), 2),
    (ss.DPMSolverPPSDE(), 2),
    (ss.DPMSolverPP(2, eta=1.0), 2),
    (ss.DPMSolverPP(3, eta=1.0, weights="published"), 2),
    (ss.SASolver(1, 1.0), 1),
    (ss.SASolver(2, 1.0), 2),
    (ss.LMSAncestral(2), 1),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "karras"])
def test_weak_order_of_the_variance(x64, name):
    for sampler, order in WEAK:
        coarse, fine = (variance_error(sampler, SDES[name], n) for n in (80, 160))
        assert abs(np.log2(coarse / fine) - order) < 0.2, (sampler, coarse, fine)
    assert variance_error(ss.SASolver(3, 1.0), SDES[name], 160) < variance_error(ss.SASolver(2, 1.0), SDES[name], 160)


def test_pndm_by_its_papers_formulas(x64):
    sde, model = ss.DDPM(100), mixture(ss.DDPM(100))
    grid = sde.nearest(np.asarray([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]))
    a = {t: float(sde.alpha(t)) ** 2 for t in [*grid, 0.85, 0.75, 0.65]}

    def phi(x, e, t, s):  # Liu et al. 2022, Eq. 11
        t, s = (min(a, key=lambda u: abs(u - v)) for v in (t, s))
        root = math.sqrt((1 - a[s]) * a[t]) + math.sqrt((1 - a[t]) * a[s])
        return math.sqrt(a[s] / a[t]) * x - (a[s] - a[t]) / (math.sqrt(a[t]) * root) * e

    x, past = np.asarray(X), []
    for i, (t, s) in enumerate(itertools.pairwise(grid)):
        noise = lambda x, t: np.asarray(model.noise(jnp.asarray(x), t))  # noqa: E731
        past.insert(0, noise(x, t))
        if i < 3:
            m = (t + s) / 2
            e2 = noise(phi(x, past[0], t, m), m)
            e3 = noise(phi(x, e2, t, m), m)
            e = (past[0] + 2 * e2 + 2 * e3 + noise(phi(x, e3, t, s), s)) / 6
        else:
            e = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
        x = phi(x, e, t, s)
    same(walk(ss.PNDM(), sde, grid)[-1], x, rtol=1e-8, atol=1e-9)
    out = ss.sample(model, ss.PNDM(), time_grid.uniform(sde, 10), (2,), n=3, seed=0)
    assert out.nfe.tolist() == [10 + 9 + 1] * 3


def test_sra1_by_its_tableau(x64):
    """A step of SRA1 agrees with the formulas of the tableau, in x rather than in x / alpha."""
    sde, model = ss.VP(), mixture(ss.VP())
    t, s = two_times(sde)
    h, m = t - s, t - 0.75 * (t - s)
    z = [np.asarray(keys_.normal(k, (2,), jnp.float64)) for k in (KEYS, keys_.fold(KEYS, "area"))]
    w, i_10 = math.sqrt(h) * z[0], h * (math.sqrt(h) * z[0] / 2 + math.sqrt(h / 12) * z[1])

    def a(y, t):  # the drift of y = x / alpha, backwards in time
        return float(sde.diffusion_squared(t) / sde.alpha(t)) * np.asarray(model.score(float(sde.alpha(t)) * y, t))

    def b(t):
        return float(sde.diffusion(t) / sde.alpha(t))

    y = X / float(sde.alpha(t))
    stages = [y, y + 0.75 * h * a(y, t) + 1.5 * b(s) * i_10 / h]
    y = y + h * (a(stages[0], t) / 3 + 2 / 3 * a(stages[1], m)) + b(s) * (w - i_10 / h) + b(t) * i_10 / h
    same(step(ss.SRA1(), sde)[0], float(sde.alpha(s)) * y)


def test_a_step_of_dpm_solver_sde_by_the_formula_of_k_diffusion(x64):
    """With r = 1/2 and eta = 1, the steps to the middle and to the end have the noise of an ancestral step."""
    sde, model = ss.EDM(), mixture(ss.EDM())
    t, s, m = 4.0, 1.0, 2.0
    z = [np.asarray(keys_.normal(k, (2,), jnp.float64)) for k in (keys_.fold(KEYS, "middle"), KEYS)]

    def ancestral(start, end):
        up = min(end, math.sqrt(end**2 * (start**2 - end**2) / start**2))
        return math.sqrt(end**2 - up**2), up

    down, up = ancestral(t, m)
    d = np.asarray(model.denoise(jnp.asarray(X), t))
    x_m = down / t * X - math.expm1(math.log(down / t)) * d + up * z[0]
    d_m = np.asarray(model.denoise(jnp.asarray(x_m), m))
    end, up_s = ancestral(t, s)
    kept = up * ancestral(m, s)[0] / m
    noise = kept * z[0] + math.sqrt(up_s**2 - kept**2) * z[1]
    x_s = end / t * X - math.expm1(math.log(end / t)) * d_m + noise
    same(step(ss.DPMSolverPPSDE(), sde, times=(t, s))[0], x_s, rtol=1e-7)


def test_restart_repeats_its_interval_and_keeps_the_marginal():
    sde = ss.VP()
    model = ss.GaussianMixture(sde, [1.0], [[0.3]], STD)
    grid = time_grid.log_snr(sde, 12)
    sampler = ss.Restart(ss.DPMSolverPP(), n_min=0.2, n_max=1.0, steps=5, repeats=3)
    out = ss.sample(model, sampler, grid, (1,), n=4000, seed=0, denoise=False)
    assert set(out.nfe) == {12 + 3 * 5}
    end = model.marginal(grid[-1])
    mean, std = (float(np.asarray(v).ravel()[0]) for v in (end.means, end.stds))
    assert abs(out.x.mean() - mean) < 4 * std / math.sqrt(4000)
    assert abs(out.x.std() / std - 1) < 4 / math.sqrt(2 * 4000) + 0.01
    nested = ss.Restart(sampler, n_min=2.0, n_max=5.0, steps=2)
    assert set(ss.sample(model, nested, grid, (1,), n=3, seed=0, denoise=False).nfe) == {12 + 3 * 5 + 2}
    twice = ss.sample(model, sampler, grid, (1,), n=3, seed=0, denoise=False, batch_size=2).x
    np.testing.assert_allclose(twice, out.x[:3], rtol=1e-5, atol=1e-5)


def test_restart_contracts_an_error(x64):
    """A walk that starts from a wrong mean ends closer to the data after a restart; noise 0 leaves it as it is."""
    sde = ss.EDM(0.02, 20.0)
    model = ss.GaussianMixture(sde, [1.0], [[0.0]], STD)
    grid = time_grid.karras(sde, 40)
    x = np.full((500, 1), 60.0)  # three standard deviations of the prior
    ends = {}
    for repeats in (1, 3):
        sampler = ss.Restart(ss.Heun(), n_min=0.05, n_max=2.0, steps=20, repeats=repeats)
        ends[repeats] = ss.sample(model, sampler, grid, (1,), n=500, seed=0, x=x, denoise=False).x.mean()
    alone = ss.sample(model, ss.Heun(), grid, (1,), n=1, seed=0, x=x[:1], denoise=False).x.mean()
    rate = 1 / (1 + 2.0**2 / STD**2)  # E[x_0 | x] of x_0 plus noise of level 2 is this times x, at the start
    assert abs(alone - 3 * STD) < 0.03
    assert abs(ends[1] - alone * math.sqrt(rate)) < 0.1
    assert abs(ends[3]) < 0.1


@pytest.mark.parametrize("order", [3, 4])
def test_lms_is_exact_on_polynomials_after_both_starts(x64, order):
    sde = ss.EDM(sigma_max=4.0)
    grid, model = time_grid.karras(sde, 12), Cubic(sde)
    for start in ("joint", "ramp"):
        sampler, x = ss.LMS(order, start), jnp.zeros((1, 1))
        memory = sampler.init(x)
        for t, s in itertools.pairwise(grid):
            before, (x, memory, _) = x, sampler.step(None, model, x, jnp.asarray(t), jnp.asarray(s), memory)
        error = abs(float((x - before)[0, 0]) - sum(s**k - t**k for k in (1, 2, 3, 4)))
        assert (error < 1e-12) == (order == 4)


BAD = [
    (lambda: ss.DPMSolverPP(order=4), "order=4"),
    (lambda: ss.DPMSolverPP(eta=-1.0), "eta=-1.0"),
    (lambda: ss.DPMSolverPP(weights="heun"), "weights='heun'; expected one of midpoint, exact, published"),
    (lambda: ss.DPMSolverPP(start="half"), "start='half'; expected one of joint, ramp"),
    (lambda: ss.UniPC(order=0), "order=0"),
    (lambda: ss.UniPC(variant="bh3"), "variant='bh3'"),
    (lambda: ss.UniPC(start="joint"), "expected 'ramp', or corrects=False"),
    (lambda: ss.SASolver(order=5), "order=5"),
    (lambda: ss.SASolver(tau=-0.5), "tau=-0.5"),
    (lambda: ss.SASolver(corrector=7), "corrector=7"),
    (lambda: ss.SASolver(s_min=2.0, s_max=1.0), "expected 0 <= s_min <= s_max"),
    (lambda: ss.LMSAncestral(start="joint"), "expected 'ramp', or eta=0"),
    (lambda: ss.LMSAncestral(eta=2.0), "eta=2.0"),
    (lambda: ss.DPMSolverPPSDE(r=1.0), "r=1.0"),
    (lambda: ss.DPMSolverPPSDE(eta=1.5), "eta=1.5"),
    (lambda: ss.Restart(n_min=1.0, n_max=0.5), "expected 0 < n_min < n_max"),
    (lambda: ss.Restart(steps=0), "steps of Restart"),
    (lambda: ss.Restart(s_noise=-1.0), "s_noise=-1.0"),
    (lambda: ss.Restart(sampler=3), "sampler"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_samplers_are_refused(make, words):
    with pytest.raises(ss.InputError, match=words):
        make()


def test_grids_on_which_a_sampler_is_not_defined_are_refused():
    straight, chain, vp = ss.RectifiedFlow(), ss.DDPM(101), ss.VP()
    cases = [
        (ss.PNDM(), straight, time_grid.uniform(straight, 8), "alpha"),
        (ss.PNDM(), chain, np.asarray([101, 100, 90, 80, 70, 0]) / 101, "first steps of an even number of levels"),
        (ss.PNDM(), ss.DDPM(100), np.asarray([100, 60, 20, 0]) / 100, "expected a grid of at least 4 steps"),
        (ss.SRA1(), straight, time_grid.uniform(straight, 8), "alpha"),
        (ss.SRA1(), chain, time_grid.uniform(chain, 8), "chain.smooth"),
        (ss.DPMSolverPPSDE(), straight, time_grid.uniform(straight, 8), "alpha"),
        (ss.LMSAncestral(), straight, time_grid.uniform(straight, 8), "alpha"),
        (ss.Restart(), chain, time_grid.uniform(chain, 8), "chain.smooth"),
        (ss.Restart(n_max=1e4), vp, time_grid.uniform(vp, 8), "expected an interval inside them"),
    ]
    for sampler, sde, grid, words in cases:
        with pytest.raises(ss.InputError, match=words):
            ss.sample(mixture(sde), sampler, grid, (2,), n=2, seed=0)


@pytest.mark.parametrize("sde", [ss.RectifiedFlow(), ss.DDPM(1000)], ids=["straight", "ddpm"])
def test_multistep_methods_from_alpha_0_and_to_data(sde):
    """From alpha = 0, or to level 0 of a chain, samples have the moments of the data."""
    model, grid = mixture(sde), time_grid.uniform(sde, 20)
    for sampler in (ss.UniPC(), ss.UniPC(2, "bh1"), ss.DPMSolverPP(3), ss.SASolver(2), ss.DPMSolverPP(2, eta=1.0)):
        out = ss.sample(model, sampler, grid, (2,), n=4000, seed=1)
        data = model.marginal(sde.t_min)
        mean = np.asarray(data.weights) @ np.asarray(data.means)
        assert np.abs(out.x.mean(axis=0) - mean).max() < 0.1, (sampler, out.x.mean(axis=0), mean)
