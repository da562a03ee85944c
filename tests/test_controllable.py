"""The tasks of controllable generation of Song et al. 2021, without the defects of the published code.

The published inpainting and colourisation put noise of the level before the step on the known part, start with a known
part without noise, put a noised part into the result, replace the red channel in the place of the grey at the start,
and take the size of a corrector's step from the whole batch.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.inverse import Gray, Mask, Replacement
from tests.closed_forms import FullGaussian, Images, random_covariance

SDE = ss.VP()
SHAPE = (1, 2, 3)
N = 4000


def problem(name):
    """Return (operator, y, cond): inpainting with three known numbers, or colourisation of two pixels."""
    if name == "grey":
        y = np.asarray([[[0.9], [-1.2]]])
        return Gray(), y, {"y": np.repeat(y[None], N, axis=0)}
    y = np.asarray([[[0.9, -0.4, 1.1], [0.0, 0.0, 0.0]]])
    mask = np.zeros(SHAPE, bool)
    mask[:, 0] = True
    return Mask(), y, {"y": np.repeat(y[None], N, axis=0), "mask": np.repeat(mask[None], N, axis=0)}


def model(seed=0):
    rng = np.random.default_rng(seed)
    return Images(FullGaussian(SDE, rng.standard_normal(6), random_covariance(rng, 6)), SHAPE)


def known_of(operator, x, cond):
    """Return the known numbers of x, (n, count)."""
    known = np.asarray(operator(jnp.asarray(x), cond)).reshape(len(x), -1)
    return known if isinstance(operator, Gray) else known[:, :3]


@pytest.mark.parametrize("name", ["mask", "grey"])
def test_the_known_part_has_the_level_after_the_step(name):
    operator, y, cond = problem(name)
    grid = [1.0, 0.6, 0.3]
    drawn = ss.sample(model(), Replacement(operator=operator), grid, SHAPE, n=N, seed=0, cond=cond, denoise=False)
    known = known_of(operator, drawn.x, cond)
    s, error = grid[-1], 4 / math.sqrt(N)
    np.testing.assert_allclose(known.mean(axis=0), float(SDE.alpha(s)) * given_of(operator, y), atol=error)
    np.testing.assert_allclose(known.std(axis=0), float(SDE.sigma(s)), rtol=error)
    assert abs(float(SDE.sigma(0.6)) / float(SDE.sigma(s)) - 1) > 2 * error  # the level before the step differs


def given_of(operator, y):
    """Return the known numbers that y states, (count,)."""
    return y.ravel() if isinstance(operator, Gray) else y.ravel()[:3]


def one(cond):
    return {name: value[:1] for name, value in cond.items()}


@dataclasses.dataclass(frozen=True)
class Shown(ss.Sampler):
    """`Shown` takes no step, and writes what it sees of the known part into the unknown part."""

    grey: bool

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        if self.grey:
            seen = jnp.sum(x, axis=-1, keepdims=True) / math.sqrt(3)
            other = jnp.asarray([1.0, -1.0, 0.0]) / math.sqrt(2)
            x = x + (seen - jnp.sum(x * other, axis=-1, keepdims=True)) * other
        else:
            x = x.at[:, :, 1].set(x[:, :, 0])
        return x, state, jnp.zeros(len(x), jnp.int32)


@pytest.mark.parametrize("name", ["mask", "grey"])
def test_the_first_step_sees_the_known_part_with_noise(name):
    """At the start the known part, the grey and not the red channel, is alpha y + sigma z at t_max."""
    operator, y, cond = problem(name)
    sampler = Replacement(Shown(name == "grey"), operator=operator)
    sde = ss.VP(beta_max=3.0)  # much signal is left at t_max
    inner = Images(FullGaussian(sde, np.zeros(6), np.eye(6)), SHAPE)
    t, x = sde.t_max, np.zeros((N, *SHAPE), np.float32)
    drawn = ss.sample(inner, sampler, [t, 0.5], SHAPE, n=N, seed=0, cond=cond, x=x, denoise=False).x
    if name == "grey":
        seen = (drawn[..., 0] - drawn[..., 1]).reshape(N, 2) / math.sqrt(2)
    else:
        seen = drawn[:, 0, 1]
    error = 4 / math.sqrt(N)
    expected = float(sde.alpha(t)) * given_of(operator, y)
    assert np.abs(expected).max() > 5 * error
    np.testing.assert_allclose(seen.mean(axis=0), expected, atol=error)
    np.testing.assert_allclose(seen.std(axis=0), float(sde.sigma(t)), rtol=error)


@pytest.mark.parametrize("name", ["mask", "grey"])
def test_the_last_denoising_acts_and_keeps_y(name):
    """The result is E[x_0 | x_t] of the last x_t, with y in the place of its known part."""
    operator, y, cond = problem(name)
    denoiser, few = model(), {name: value[:6] for name, value in cond.items()}
    grid, options = [1.0, 0.6, 0.3], dict(n=6, seed=0, cond=few)
    before = ss.sample(denoiser, Replacement(operator=operator), grid, SHAPE, denoise=False, **options).x
    after = ss.sample(denoiser, Replacement(operator=operator), grid, SHAPE, **options).x
    clean = np.asarray(denoiser.denoise(before, grid[-1]))
    assert np.abs(clean - before).max() > 0.1
    np.testing.assert_allclose(known_of(operator, after, few), np.repeat(given_of(operator, y)[None], 6, 0), atol=1e-5)
    if name == "grey":

        def colours(x):
            return x - x.mean(axis=-1, keepdims=True)

        np.testing.assert_allclose(colours(after), colours(clean), atol=1e-5)
    else:
        np.testing.assert_allclose(after[:, :, 1], clean[:, :, 1], atol=1e-5)


@pytest.mark.parametrize("name", ["mask", "grey"])
def test_a_corrector_does_not_mix_the_examples(name):
    operator, _, cond = problem(name)
    pair = ss.PredictorCorrector(ss.ReverseDiffusion(), ss.Langevin(snr=0.16, norms="expected"))
    sampler, grid = Replacement(pair, operator=operator), ss.time_grid.default(SDE, 8)
    few = {name: value[:5] for name, value in cond.items()}
    together = ss.sample(model(), sampler, grid, SHAPE, n=5, seed=0, cond=few).x
    alone = ss.sample(model(), sampler, grid, SHAPE, n=1, first=3, seed=0, cond=one(cond)).x
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-4, atol=1e-5)


def test_class_guidance_has_a_weight_and_does_not_mix_the_examples():
    """The guided score is score + weight grad log p(y | x_t) of each example, and each example has its own class."""
    means = [[-1.0, 0.0], [1.0, 0.5], [0.0, -1.5]]
    conditional = ss.GaussianMixture(SDE, [0.2, 0.5, 0.3], means, 0.4)
    labels = jnp.asarray([2, 0, 1, 0])
    x, t = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2)), jnp.float32), 0.4
    plain = conditional.score(x, t)
    gradient = conditional.score(x, t, {"label": labels}) - plain  # of log p(label | x_t)

    def log_prob(x, t, cond):
        alpha = SDE.alpha(t)[:, None, None]
        variance = (SDE.alpha(t) ** 2 * 0.4**2 + SDE.variance(t))[:, None]
        distance = jnp.sum((x[:, None] - alpha * jnp.asarray(means)) ** 2, axis=-1)
        logits = jnp.log(jnp.asarray([0.2, 0.5, 0.3])) - distance / (2 * variance)
        picked = jnp.take_along_axis(logits, cond["asked"][:, None], axis=1)[:, 0]
        return picked - jnp.log(jnp.sum(jnp.exp(logits), axis=1))

    reads = {"asked": ss.Label(3)}
    for weight in (1.0, 2.5):
        guided = ss.ClassifierGuided(conditional, log_prob, weight, reads=reads)
        found = guided.score(x, t, {"asked": labels})
        np.testing.assert_allclose(found, plain + weight * gradient, rtol=2e-4, atol=2e-4)
        alone = guided.score(x[2:3], t, {"asked": labels[2:3]})
        np.testing.assert_allclose(alone[0], found[2], rtol=1e-5, atol=1e-5)
