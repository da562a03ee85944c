"""This module tests the distributions of the toy data sets, and the configs of every variant."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import score_sde as ss
from configs import digits, toy, variants
from score_sde import data, jobs, plots
from score_sde.core import keys as keys_
from score_sde.experiment import Experiment
from score_sde.jobs.generator import Generator
from tests.closed_forms import energy_distance

LAWS = [data.GaussianRing, data.Checkerboard, data.SwissRoll, data.TwoMoons]


def points(law, split="train"):
    examples = data.all_examples(law().source(split))
    return examples["values"].astype(np.float64), examples["label"]


def test_the_ring_is_its_mixture():
    x, label = points(data.GaussianRing)
    centred = x - data.GaussianRing().means()[label]
    np.testing.assert_allclose(np.linalg.norm(data.GaussianRing().means(), axis=1), 1.4)
    for column in centred.T:
        assert stats.kstest(column / 0.1, "norm").pvalue > 1e-4
    assert stats.chisquare(np.bincount(label)).pvalue > 1e-4


def test_the_board_is_uniform_on_squares_that_share_no_side():
    x, label = points(data.Checkerboard)
    square = np.floor(x).astype(int)
    dark = {tuple(corner) for corner in square}
    assert len(dark) == 8
    for a, b in itertools.combinations(dark, 2):
        assert abs(a[0] - b[0]) + abs(a[1] - b[1]) >= 2
    for column in (x - square).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    for k in range(8):
        assert len({tuple(corner) for corner in square[label == k]}) == 1
    assert stats.chisquare(np.bincount(label)).pvalue > 1e-4


def test_moons_and_roll_lie_on_their_curves():
    x, label = points(data.TwoMoons)
    x = x / 1.4 + [0.5, 0.25]
    radius = np.where(label == 0, np.hypot(*x.T), np.hypot(x[:, 0] - 1, x[:, 1] - 0.5))
    assert abs(radius.mean() - 1) < 0.01 and abs(radius.std() - 0.07) < 0.003
    x, label = points(data.SwissRoll)
    # A point at the angle a of the roll has the radius a / 7.
    roll_angle, angle = 7 * np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    difference = (roll_angle - angle + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(difference).mean() < 0.5
    assert np.mean((roll_angle > 3 * np.pi) == label) > 0.95


@pytest.mark.parametrize("law", LAWS)
def test_splits_are_apart_and_always_the_same(law):
    train, test = points(law)[0], points(law, "test")[0]
    assert (train.shape, test.shape) == ((20_000, 2), (2_000, 2))
    assert not {tuple(x) for x in train} & {tuple(x) for x in test}
    np.testing.assert_array_equal(points(law, "test")[0], test)
    assert np.abs(train.mean(axis=0)).max() < 0.3 and 0.5 < train.std() < 1.5


def test_continuous_data_change_scale_by_the_change_of_variables():
    codec = data.ContinuousCodec((2,), 3.0, np.asarray([2.0, 0.5]))
    values = np.random.default_rng(0).normal([3.0, 3.0], [2.0, 0.5], (5, 2))
    x, terms = codec.encode(values, None)
    np.testing.assert_allclose(codec.decode(x), values, rtol=1e-5)
    density = stats.norm(3.0, [2.0, 0.5]).logpdf(values).sum(axis=1)
    np.testing.assert_allclose(stats.norm.logpdf(x).sum(axis=1) + terms["scale"], density, rtol=1e-5)
    with pytest.raises(ss.InputError, match=r"std=0\.0"):
        data.ContinuousCodec((2,), std=0.0)


def test_a_picture_of_points_shows_them():
    corner = np.tile([[2.0, -1.0]], (50, 1)) + 0.01 * np.arange(50)[:, None]
    picture = plots.picture(np.concatenate([corner, -corner]), None)
    dark = np.argwhere(picture.mean(axis=2) < 200)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert len(dark) > 50
    line = plots.picture(np.random.default_rng(0).normal(size=(100, 1)), None)
    assert line.shape == picture.shape
    floats = plots.picture(np.random.default_rng(0).normal(size=(3, 8, 8, 1)), None)
    assert (floats.min(), floats.max()) == (0, 255)


def parts(config):
    """Build the objects that a run builds before the run writes any file."""
    experiment = Experiment.from_config(config)
    denoiser = experiment.denoiser(experiment.param_shapes["network"])
    Generator.from_config(config.sample, denoiser, experiment.codec)


# The noise and the score give x_0 by a division by alpha, and the velocity needs derivatives, which a chain lacks.
REFUSED = {(sde, meaning) for sde in ("rectified_flow", "cosine_ddpm") for meaning in ("noise", "score")} | {
    (chain, "velocity") for chain in variants.CHAINS
}


@pytest.mark.parametrize("module", [digits, pytest.param(toy, marks=pytest.mark.slow)], ids=["digits", "toy"])
@pytest.mark.parametrize("sde", variants.SDES)
def test_every_variant_builds_or_says_why_not(module, sde):
    parts(module.get_config(sde))
    for meaning in variants.PARAMETRIZATIONS:
        config = module.get_config(f"{sde},{meaning},conditional")
        if (sde, meaning) in REFUSED:
            with pytest.raises(ss.InputError, match="VPrediction"):
                parts(config)
        else:
            parts(config)
    if sde in variants.CHAINS:
        with pytest.raises(ss.InputError, match=r"levels only|knots"):
            parts(module.get_config(f"{sde},likelihood"))
        config = module.get_config(sde)
        config.objective.times = "uniform"
        with pytest.raises(ss.InputError, match=r"objective\.times='knots'"):
            parts(config)


def test_stratified_times_have_one_in_each_part_of_the_whole_batch():
    """A time is uniform within its part, and depends on the key and the place of the example in the whole batch."""
    config = toy.get_config("vp")
    objective = Experiment.from_config(config).objective
    sde, n = objective.parts.sde, config.data.batch_size
    place = np.arange(n, dtype=np.uint32)
    draws = []
    for step in range(4):
        keys = keys_.examples(keys_.stream(step, "train"), place)
        t, factor = objective.draw_times(keys, place)
        u = (np.asarray(t, np.float64) - sde.t_min) / (sde.t_max - sde.t_min) * n
        np.testing.assert_array_equal(np.floor(u + 1e-4 * (u - np.round(u) < 0)), place)
        assert (factor == 1).all()
        draws.append(u - place)
        share = slice(n // 2, n // 2 + 5)
        np.testing.assert_array_equal(objective.draw_times(keys[share], place[share])[0], t[share])
    assert stats.kstest(np.concatenate(draws), "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(draws)[0, 1:]).max() < 0.3


def test_weights_that_are_not_finite_are_refused():
    """The likelihood weight is -log_snr', which is infinite at the end of a path without signal, and is refused."""
    config = toy.get_config("rectified_flow,likelihood")
    with pytest.raises(ss.InputError, match=r"finite weights, but RectifiedFlow.*times='uniform'"):
        parts(config)


def test_a_small_error_of_x0_stays_small_on_the_straight_line():
    """The sampler of the config keeps the error small; steps in the time of the flow divide the error by the last t."""
    config = toy.get_config("rectified_flow,x0")
    sde = Experiment.from_config(config).sde
    ring = data.GaussianRing()
    ideal = ss.GaussianMixture(sde, np.ones(8), ring.means(), ring.std)

    class Off(ss.Denoiser):
        def predict(self, x, t, cond=None, *, keys=None):
            x0 = ideal.predict(x, t).x0
            return ss.Prediction.from_x0(self.sde, x, t, x0 + 0.03 * jnp.sin(3 * x0))

    x = Generator.from_config(config.sample, Off(sde), ring.codec)(Off(sde), 500).values
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1.4, atol=0.6)


@pytest.mark.parametrize("law", toy.LAWS)
def test_every_law_has_its_variant(law):
    assert isinstance(Experiment.from_config(toy.get_config(f"{law},v")).dataset, getattr(data, toy.LAWS[law]))


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("vp,rectified", r"'rectified' \(rectified_flow\?\)"),
        ("vp,ve", "'ve' beside 'vp'"),
        ("checkerboard,zzz", "'zzz'; expected at most one word of each of: mixture, checkerboard"),
    ],
)
def test_bad_variants_are_named(variant, words):
    with pytest.raises(ss.InputError, match=words):
        toy.get_config(variant)


# Each kind of time, of loss and of sampler occurs once: a chain, the straight line, Karras, and importance.
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param("mixture,edm", marks=pytest.mark.long),
        pytest.param("mixture,ddpm,v", marks=pytest.mark.slow),
        pytest.param("two_moons,rectified_flow", marks=pytest.mark.long),
        pytest.param("swiss_roll,vp,likelihood", marks=pytest.mark.long),
    ],
)
def test_a_toy_learns_its_law(tmp_path, variant):
    config = toy.get_config(variant)
    config.train.steps = config.optimizer.schedule.decay_steps = 1200
    config.sample.update(n=2000, batch_size=2000)
    config.eval.what = "Likelihood(probes=1, rtol=1e-3, atol=1e-3)"
    jobs.train(config, tmp_path)
    jobs.evaluate(config, tmp_path)
    jobs.draw_samples(config, tmp_path)
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        x = arrays["points"].astype(np.float64)
    law = getattr(data, config.data.name)
    y, z = points(law, "test")[0], points(law)[0][:2000]

    # The energy distance to a distribution that is moved by a tenth of its spread is about 0.005.
    assert energy_distance(x, y) < energy_distance(z, y) + 0.005
    if "mixture" in variant:
        bits = json.loads((tmp_path / "eval" / "likelihood.json").read_text())
        entropy = np.log2(8) / 2 + np.log2(2 * np.pi * np.e * 0.1**2) / 2  # The components do not overlap.
        assert -3 * bits["stderr"] < bits["bits_per_dim"] - entropy < 0.1 + 3 * bits["stderr"]
