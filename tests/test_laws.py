"""Every sampler gives the known mean, covariance and distribution of a mixture on every SDE and chain."""

import functools

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import rice

import score_sde as ss
from score_sde.sampling import time_grid
from tests.closed_forms import energy_distance, mixture

SDES = {
    "vp": ss.VP(),
    "subvp": ss.SubVP(),
    "ve": ss.VE(sigma_max=20.0),
    "cosine": ss.CosineVP(),
    "sigmoid": ss.SigmoidVP(),
    "karras": ss.EDM(sigma_min=0.01, sigma_max=20.0),
    "straight": ss.RectifiedFlow(),
    "discrete_vp": ss.DiscreteVP(250),
    "smld": ss.SMLD(250, sigma_max=20.0),
    "smooth_smld": ss.SMLD(250, sigma_max=20.0).smooth(),
}
SAMPLERS = {
    "euler_maruyama": ss.EulerMaruyama(),
    "less_noise": ss.EulerMaruyama(noise=0.4),
    "more_noise": ss.EulerMaruyama(noise=1.5),
    "reverse_diffusion": ss.ReverseDiffusion(),
    "ancestral": ss.Ancestral(),
    "ancestral_forward": ss.Ancestral("forward"),
    "ddim": ss.DDIM(),
    "ddim_0.6": ss.DDIM(eta=0.6),
    "euler": ss.Euler(),
    "heun": ss.Heun(),
    "churn": ss.Heun(gamma=0.05),
    "euler_ancestral": ss.EulerAncestral(),
    "2m": ss.DPMSolverPP(),
    "2s": ss.DPMSolverPP2S(),
    "lms": ss.LMS(),
    "dpm2": ss.DPM2(),
    "dpm2_ancestral": ss.DPM2Ancestral(),
    "probability_flow": ss.ProbabilityFlow(1e-3, 1e-3),
}
# Euler's method in the SDE's own time is the least exact of all samplers, so it has more steps.
N, COMPARED, STEPS = 20_000, 2_000, {"euler": 1200}
# The quick tests try each kind of sampler with one SDE. `python tests/test_verify.py` runs the pairs of VERIFIED. CI
# has time for every second pair of the other pairs; each SDE and each sampler is in some pair.
VERIFIED = ("vp", "subvp", "ve", "straight", "discrete_vp")
QUICK = {
    ("vp", "ancestral"),
    ("ve", "euler_maruyama"),
    ("subvp", "heun"),
    ("straight", "ddim"),
    ("discrete_vp", "2m"),
    ("smld", "reverse_diffusion"),
    ("karras", "lms"),
    ("cosine", "dpm2_ancestral"),
}


def defined():
    """Yield the pairs that are defined: a chain has no times between its levels and no derivatives."""
    for row, (name, sde) in enumerate(SDES.items()):
        for column, (which, sampler) in enumerate(SAMPLERS.items()):
            quick = (name, which) in QUICK
            if not quick and (name in VERIFIED or not is_defined(sampler, sde)):
                continue
            late = pytest.mark.long if (row + column) % 2 else pytest.mark.slow
            yield pytest.param(name, which, marks=() if quick else late)


def is_defined(sampler, sde):
    if sde.levels is None:  # `check` would compile programs at each collection of tests
        return True
    try:
        sampler.check(sde, time_grid.uniform(sde, sde.levels - 1))
    except ss.InputError:
        return False
    return True


def grid_of(name, which):
    """Return times even in log-SNR, or all levels of a chain; RectifiedFlow starts just after alpha = 0."""
    return grid_with(name, STEPS.get(which, 200))


@functools.cache
def grid_with(name, steps):
    sde = SDES[name]
    if sde.levels is not None:
        return time_grid.uniform(sde, sde.levels - 1)
    start = 0.99 if name == "straight" else float(sde.t_max)
    ends = np.asarray(sde.log_snr(np.asarray([start, float(sde.t_stop)])), np.float64)
    times = np.array(sde.time_of(np.linspace(*ends, steps + 1)), np.float64)
    times[0], times[-1] = start, float(sde.t_stop)
    return times


@functools.cache
def ends_of(name):
    """Return exact draws at the start and at the end of the sampling loop."""
    model, grid = mixture(SDES[name]), grid_of(name, "")
    keys = jax.random.split(jax.random.key(11), N), jax.random.split(jax.random.key(12), N)
    return tuple(np.asarray(model.marginal(t).sample(k)) for t, k in zip((grid[0], grid[-1]), keys, strict=True))


@pytest.mark.parametrize(("name", "which"), list(defined()))
def test_the_law_of_a_mixture(name, which):
    """The moments are exact within 4 standard errors, and 2 % of the spread for the bias of the steps.

    The energy distance between n points and n points of one distribution is on average 2 E|X - Y| / n. The distance
    exceeds 4 times this average far less often than once in a thousand.
    """
    sde, sampler = SDES[name], SAMPLERS[which]
    start, exact = ends_of(name)
    grid = grid_of(name, which)
    if which == "probability_flow":
        grid = grid[[0, -1]]
    x = ss.sample(mixture(sde), sampler, grid, (2,), n=N, seed=0, x=start, denoise=False, batch_size=N).x
    x, law = x.astype(np.float64), mixture(sde).marginal(grid[-1])
    mean, covariance = np.asarray(law.mean()), np.asarray(law.covariance())
    std = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(x.mean(axis=0) - mean) < (4 / np.sqrt(N) + 0.02) * std)
    # The standard error of a covariance is at most sqrt(3 / N) std_i std_j here (kurtosis below 3).
    assert np.all(np.abs(np.cov(x.T) - covariance) < (4 * np.sqrt(3 / N) + 0.03) * np.outer(std, std))
    x, exact = x[:COMPARED], exact[:COMPARED]
    assert energy_distance(x, exact) < 4 * 2 * cdist(x, exact).mean() / COMPARED


def test_the_energy_distance_tells_laws_apart():
    """The distance of two normal distributions has a closed form in their shift d; without a shift the bound holds."""
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal((COMPARED, 2)) + shift for shift in (0.0, 0.0, [1.0, 0.0]))
    bound = 4 * 2 * cdist(x, y).mean() / COMPARED
    assert energy_distance(x, y) < bound < energy_distance(x, z)
    # X - Y is N(d, 2 I) in the plane, so E|X - Y| is the mean of a Rice distribution.
    exact = 2 * (rice.mean(1 / np.sqrt(2), scale=np.sqrt(2)) - rice.mean(0, scale=np.sqrt(2)))
    # The slope in the shift is below 1, and the shift of two sample means has the standard error sqrt(2 / n).
    assert energy_distance(x, z) == pytest.approx(exact, abs=4 * np.sqrt(2 / COMPARED) + bound)
