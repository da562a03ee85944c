"""This module tests fitted grids on closed forms: their gain on fresh starting points, and what they refuse."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.jobs.evaluate import evaluate
from score_sde.jobs.sample import draw_samples
from score_sde.jobs.train import train
from score_sde.sampling.time_grid.search import Axis, search
from tests import small_job
from tests.closed_forms import mixture

SDES = {"vp": ss.VP(), "ve": ss.VE(), "karras": ss.EDM(), "straight": ss.RectifiedFlow()}


def distance(model, sampler, grid, n=256):
    """Return the mean distance of walks from the exact flow, from starting points that no fit has seen."""
    sde = model.sde
    x = float(sde.prior_std) * np.random.default_rng(7).standard_normal((n, 2))
    ends = [float(sde.t_max), float(sde.t_stop)]
    options = {"n": n, "seed": 0, "x": x, "denoise": False}
    exact = ss.sample(model, ss.ProbabilityFlow(1e-10, 1e-10), ends, (2,), **options).x
    return float(np.linalg.norm(ss.sample(model, sampler, grid, (2,), **options).x - exact, axis=1).mean())


def defaults(model, sampler, n):
    sde = model.sde
    grids = [ss.time_grid.uniform(sde, n)]
    grids += [] if float(sde.alpha(sde.t_max)) == 0 else [ss.time_grid.karras(sde, n), ss.time_grid.log_snr(sde, n)]
    return min(distance(model, sampler, grid) for grid in grids)


@pytest.mark.slow
@pytest.mark.parametrize("name", SDES)
def test_a_fitted_grid_has_half_the_error_of_the_best_default_at_most(x64, name):
    model, sampler = mixture(SDES[name]), ss.UniPC()
    for n in (10, 20):
        grid = ss.time_grid.fitted(model, sampler, n)
        assert distance(model, sampler, grid) < 0.5 * defaults(model, sampler, n)


def test_the_goals_over_karras_range(x64):
    """10 and 20 evaluations over 0.002 to 80, where the best published setting has 0.1 and 0.02 on such a mixture."""
    model, sampler = mixture(ss.EDM()), ss.UniPC()
    for n, goal in ((10, 0.026), (20, 0.0058)):
        grid = ss.time_grid.fitted(model, sampler, n)
        error = distance(model, sampler, grid)
        assert error < goal
        # The fit measures root mean square differences of two coordinates, on its own fresh starting points.
        assert abs(np.sqrt(2) * grid.fit.error / error - 1) < 0.5
        assert grid.fit.kept
        assert grid.fit.gain == pytest.approx(grid.fit.default_error - grid.fit.error)
        assert grid.fit.gain > 5 * grid.fit.gain_stderr
        np.testing.assert_array_equal(grid[[0, -1]], [80.0, 0.002])


def test_a_fit_is_reproducible_and_keeps_to_its_budget():
    model = mixture(ss.VP())
    grids = [ss.time_grid.fitted(model, ss.DDIM(), 6, examples=16, budget=12_000, seed=3) for _ in range(2)]
    np.testing.assert_array_equal(*grids)
    assert grids[0].fit == grids[1].fit
    assert grids[0].fit.evaluations <= 12_000
    assert grids[0].fit.sampler == "DDIM(eta=0.0)"
    assert isinstance(grids[0], np.ndarray)
    assert grids[0].shape == (7,)
    assert grids[0][1:].fit is None
    other = ss.time_grid.fitted(model, ss.DDIM(), 6, examples=16, budget=12_000, seed=4)
    assert not np.array_equal(grids[0], other)


def test_grids_of_a_chain_are_levels_and_noise_is_compared_as_a_law():
    chain = ss.DDPM(1000)
    grid = ss.time_grid.fitted(mixture(chain), ss.Ancestral(), 5, examples=256)
    np.testing.assert_allclose(grid * 1000, np.round(grid * 1000), atol=1e-9)
    assert np.all(np.diff(grid) < 0)
    assert grid[0] == 1
    assert grid.fit.error <= grid.fit.default_error


def test_a_fit_is_of_the_guided_denoiser_and_reads_conditions():
    model = ss.GaussianMixture(ss.VP(), [0.5, 0.5], [[-2.0, 0.0], [2.0, 0.0]], 0.5)
    guide = ss.ClassifierFree(model, 3.0)
    cond = {"label": np.arange(16) % 2}
    options = {"examples": 16, "budget": 30_000, "cond": cond}
    guided = ss.time_grid.fitted(guide, ss.UniPC(2), 6, **options)
    plain = ss.time_grid.fitted(model, ss.UniPC(2), 6, **options)
    assert not np.allclose(guided, plain, rtol=1e-3)
    assert guided.fit.evaluations > plain.fit.evaluations  # each step of the guide evaluates twice


def test_when_the_default_is_better_it_is_kept():
    """If every grid has the error 0, the search has nothing to gain."""

    @dataclasses.dataclass(frozen=True)
    class Exact(ss.DDIM):
        """`Exact` ends at the same point on every grid."""

        def step(self, keys, denoiser, x, t, s, state, cond=None):
            return jnp.zeros_like(x), state, ss.evaluations(denoiser, x, t)

    grid = ss.time_grid.fitted(mixture(ss.VP()), Exact(), 4, examples=8, budget=10_000)
    assert not grid.fit.kept
    assert grid.fit.gain == 0
    np.testing.assert_allclose(grid, getattr(ss.time_grid, grid.fit.default)(ss.VP(), 4), rtol=1e-3)


def test_the_search_finds_known_steps():
    """The loss is the distance from the grid even in log-SNR, and the search starts from the uniform grid."""
    sde = ss.VP()
    axis = Axis(sde)
    wanted = axis.levels(axis.even(8))

    def loss(grid):
        return float(np.sqrt(np.mean((axis.levels(grid) - wanted) ** 2))) + 1e-9

    start = ss.time_grid.uniform(sde, 8)
    assert loss(search(axis, start, loss, 300)) < 0.02 * loss(start)


def test_the_axis_of_alpha_0_and_of_chains():
    straight, chain = Axis(ss.RectifiedFlow()), Axis(ss.DDPM(12))
    grid = straight.even(10)
    assert grid[0] == 1
    np.testing.assert_allclose(np.diff(2 * np.log((1 - grid[1:]) / grid[1:])), 3.7, rtol=0.02)
    for n in (3, 11):
        levels = chain.even(n) * 12
        np.testing.assert_array_equal(levels, np.round(levels))
        assert np.all(np.diff(levels) < 0)
        assert levels[0] == 12
        assert levels[-1] == 1


def test_shifted_multiplies_noise_levels():
    straight, vp = ss.RectifiedFlow(), ss.VP()
    grid = ss.time_grid.shifted(straight, 10, 3.0)
    u = np.linspace(1, 0, 11)
    np.testing.assert_allclose(grid, 3 * u / (1 + 2 * u), atol=2e-4)  # Esser et al. 2024, Eq. 23
    for factor in (0.3, 1.0, 4.0):
        grid = ss.time_grid.shifted(vp, 6, factor)
        assert np.all(np.diff(grid) < 0)
        assert (grid[0], grid[-1]) == (1.0, vp.t_stop)
        level = np.exp(-np.asarray(vp.log_snr(grid[1:-1]), float) / 2) / factor
        steps = np.diff(np.asarray(vp.time_of(-2 * np.log(level)), float))
        np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    np.testing.assert_allclose(ss.time_grid.shifted(vp, 6, 1.0), ss.time_grid.uniform(vp, 6), rtol=1e-4)


BAD = [
    (lambda: ss.time_grid.fitted(mixture(ss.VP()), ss.ProbabilityFlow(), 5), "chooses its own steps"),
    (lambda: ss.time_grid.fitted(mixture(ss.VP()), ss.DDIM, 5), "expected an object of it"),
    (lambda: ss.time_grid.fitted(mixture(ss.VP()), ss.DDIM(), 0), "n, the steps of a time grid"),
    (lambda: ss.time_grid.fitted(mixture(ss.VP()), ss.DDIM(), 5, budget=4000), "budget is 4000 .*expected at least"),
    (lambda: ss.time_grid.fitted(mixture(ss.VP()), ss.DDIM(), 5, examples=0), "examples of fitted"),
    (lambda: ss.time_grid.fitted(mixture(ss.VP()), ss.DDIM(), 5, shape=(3,)), r"expected \(2,\)"),
    (lambda: ss.time_grid.fitted(mixture(ss.RectifiedFlow()), ss.LMS(), 5), "alpha"),
    (lambda: ss.time_grid.fitted(mixture(ss.DDPM(10)), ss.DDIM(), 20), "has 10 levels"),
    (lambda: ss.time_grid.shifted(ss.VP(), 5, 0.0), "factor is 0.0"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_what_cannot_be_fitted_is_one_line(make, words):
    with pytest.raises(ss.InputError, match=words):
        make()


def test_a_file_is_of_one_model_and_one_sampler(tmp_path):
    model, path = mixture(ss.VP()), tmp_path / "grid.json"
    grid = ss.time_grid.fitted(model, ss.UniPC(2), 5, examples=16, budget=12_000)
    grid.save(path, model)
    again = ss.time_grid.FittedGrid.read(path, model, ss.UniPC(2))
    np.testing.assert_array_equal(again, grid)
    assert again.fit == grid.fit
    other = ss.GaussianMixture(ss.VP(), [0.3, 0.7], [[1.5, 0.0], [-0.8, 0.7]], [0.3, 0.5])
    for denoiser, sampler, words in (
        (model, ss.DDIM(), r"was fitted for UniPC.*and the sampler is DDIM.*fit again"),
        (other, ss.UniPC(2), "was fitted on another model"),
        (ss.ClassifierFree(model, 2.0), ss.UniPC(2), "or with other guides"),
    ):
        with pytest.raises(ss.InputError, match=words):
            ss.time_grid.FittedGrid.read(path, denoiser, sampler)
    for text, words in (
        ("[1, 2]", "is no fitted time grid"),
        ("{", "is no fitted time grid"),
        (None, "cannot be read"),
    ):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(ss.InputError, match=words):
            ss.time_grid.FittedGrid.read(path, model, ss.UniPC(2))


def test_a_config_names_fitted_grids_of_samples_and_of_likelihoods(tmp_path, capsys):
    """A grid is fitted once for a checkpoint, kept, and used again; another number of steps is another file."""
    config = small_job.get_config()
    train(config, tmp_path)
    config.sample.grid = dict(name="fitted", n=3, examples=8)
    config.sample.sampler = dict(name="DDIM")
    config.eval.what = "Likelihood(steps=2, first=3)"
    draw_samples(config, tmp_path)
    assert "fitted a grid of 3 steps for DDIM" in capsys.readouterr().out
    (path,) = (tmp_path / "samples" / "grids").iterdir()
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        assert set(arrays["nfe"]) == {3 + 1}
    (tmp_path / "samples" / "samples.json").unlink()
    draw_samples(config, tmp_path)
    assert "fitted a grid" not in capsys.readouterr().out
    assert json.loads(path.read_text())["fit"]["examples"] == 8
    evaluate(config, tmp_path)
    assert "fitted 2 steps for the likelihood" in capsys.readouterr().out
    found = json.loads((tmp_path / "eval" / "likelihood.json").read_text())
    assert found["nfe"] == (2 + 1) + (1 + 1)
    assert found["solve_error"] > 0
    config.sample.grid = dict(name="fitted", n=3, exmples=8)
    with pytest.raises(ss.InputError, match="expected name='fitted' with n, examples, seed, budget"):
        draw_samples(config, tmp_path)
