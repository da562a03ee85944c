"""`fit` makes a model from arrays in one call; the model is saved and loaded."""

import numpy as np
import pytest
from scipy.special import logsumexp

import score_sde as ss
from score_sde import config as config_
from score_sde import denoisers, jobs, networks, sde
from score_sde.denoisers import parametrization

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(300, 2)) * [0.5, 1.0] + [1.0, 0.0]
QUICK = dict(steps=3, progress=False, batch_size=16)
SMALL = ss.networks.DDPMpp((8, 8, 1), channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)


def spirals(n, rng):
    """Return points of two spirals of one and a half turns, without and with noise of standard deviation 0.03."""
    turn = np.sqrt(rng.random(n)) * 3 * np.pi
    angle = turn + np.pi * rng.integers(2, size=n)
    curve = (2 * turn / (3 * np.pi))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return curve, (curve + 0.03 * rng.standard_normal((n, 2))).astype(np.float32)


def test_a_model_is_saved_loaded_and_the_same(tmp_path):
    model = ss.fit(POINTS, **QUICK)
    assert repr(model) == "Model of InMemory at step 3: shape (2,), EDM, reads nothing"
    model.save(tmp_path / "kept")
    loaded = ss.load(tmp_path / "kept")
    assert loaded.digest == model.digest and loaded.step == 3
    np.testing.assert_array_equal(loaded.sample(5, seed=2).x, model.sample(5, seed=2).x)
    with pytest.raises(ss.InputError, match="holds a model already"):
        model.save(tmp_path / "kept")
    jobs.draw_samples(loaded.config, tmp_path / "kept")
    with np.load(tmp_path / "kept" / "samples" / "samples.npz") as arrays:
        assert arrays["points"].shape == (64, 2)
    with pytest.raises(ss.InputError, match="array in memory"):
        jobs.train(config_.complete(loaded.config.to_dict() | {"train": {"steps": 5}}), tmp_path / "kept")


@pytest.mark.long  # other tests in CI fit points with labels, and digits
def test_images_with_labels(tmp_path):
    images = RNG.integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    model = ss.fit(images, ss.VP(), SMALL, label=np.arange(40) % 3, **QUICK)
    assert model.conditions["label"].classes == 3
    drawn = model.sample(4, label=2, grid=ss.time_grid.uniform(ss.VP(), 3)).x
    assert drawn.shape == (4, 8, 8, 1) and drawn.dtype == np.uint8
    one, none = (model.bits_per_dim(images[:2], rtol=1e-2, atol=1e-2, **more).value for more in (dict(label=1), {}))
    assert np.isfinite(one).all() and (one != none).any()
    model.save(tmp_path)
    np.testing.assert_array_equal(ss.load(tmp_path).sample(4, label=2, grid=ss.time_grid.uniform(ss.VP(), 3)).x, drawn)


@pytest.mark.slow
def test_a_data_set_is_fitted_and_known_by_its_workdir(tmp_path):
    """Training continues in the workdir, because the config makes the data set again."""
    model = ss.fit(ss.data.TwoMoons(), data=dict(given=("label",)), **QUICK)
    assert model.config.data.name == "TwoMoons" and model.conditions["label"].classes == 2
    model.save(tmp_path)
    config = ss.load(tmp_path).config
    with config.unlocked():
        config.train.steps = 5
    jobs.train(config, tmp_path)
    assert ss.load(tmp_path).step == 5
    with pytest.raises(ss.InputError, match="with the data set TwoMoons; expected only its own conditions"):
        ss.fit(ss.data.TwoMoons(), label=[0, 1], **QUICK)
    with pytest.raises(ss.InputError, match="Local is defined inside a function"):

        class Local(ss.data.TwoMoons):
            pass

        ss.fit(Local(), **QUICK)


@pytest.mark.slow
def test_density_on_the_scale_of_real_data():
    """`fit` standardises data of another scale; the density is that of the original data: log p(x) - D log std."""
    far = 1000 + 50 * POINTS
    model = ss.fit(far, **QUICK)
    x = far[:6].astype(np.float32)
    log_probs = model.log_prob(x, trace="exact", rtol=1e-4, atol=1e-4).value
    inside, _ = model.codec.encode(x, None)
    assert abs(np.asarray(inside).mean()) < 1.5
    direct = ss.log_prob(model, inside, None, trace="exact", rtol=1e-4, atol=1e-4).value
    np.testing.assert_allclose(log_probs, direct - 2 * np.log(far.std()), rtol=1e-4)


def test_an_exact_gaussian_is_learned():
    """300 steps on a Gaussian give the log-density, up to the error of such short training."""
    points = np.random.default_rng(1).normal(size=(4000, 2)).astype(np.float32)
    model = ss.fit(points, steps=300, progress=False, network=ss.networks.MLP((2,), width=32, blocks=1))
    x = points[:50]
    exact = -0.5 * (x**2).sum(axis=1) - np.log(2 * np.pi)
    log_probs = model.log_prob(x, trace="exact", rtol=1e-3, atol=1e-3).value
    assert np.abs(log_probs - exact).mean() < 0.3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(data=None), "expected examples as the first argument"),
        (dict(data=ss.data.TwoMoons), r"the class TwoMoons; expected an object of it"),
        (dict(data=[1.0, 2.0]), "shape"),
        (dict(data=np.zeros((5, 2))), "0 throughout"),
        (dict(data=np.full((5, 2), np.nan)), "Example 0 of the data contains NaN"),
        (dict(data=[[1, 2], [3]]), "cannot be read as arrays"),
        (dict(data="points"), "shape"),
        (dict(data=np.array([["a", "b"]])), "dtype"),
        (dict(data=-np.ones((3, 2), int)), "contain -1"),
        (dict(data=np.zeros((5, 3, 16, 16), np.uint8) + np.arange(16, dtype=np.uint8)), "channels last"),
        (dict(label=[0, 1]), "one entry for each of the 300"),
        (dict(label=np.arange(300) / 2), "return_inverse"),
        (dict(label=np.arange(300) - 1), "return_inverse"),
        (dict(label=["a"] * 300), "return_inverse"),
        (dict(sde=ss.VP), "the class VP was given"),
        (dict(sde="VP"), "a str was given"),
        (dict(network=ss.networks.MLP), "the class MLP was given"),
        (dict(network=ss.networks.MLP((3,))), r"network has shape \(3,\)"),
        (dict(steps=0), "steps is 0"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(learning_rate=-1.0), "is -"),
        (dict(seed=-1), "seed is -1"),
        (dict(train=dict(stepz=3)), "stepz"),
    ],
)
def test_what_cannot_be_fitted_is_refused(given, words):
    arguments = dict(data=POINTS) | QUICK | given
    with pytest.raises(ss.InputError, match=words):
        ss.fit(arguments.pop("data"), **arguments)


FITTED = [ss.VP(), ss.RectifiedFlow(), ss.DDPM(100)]
SDES = [kind() for kind in (ss.VP, ss.SubVP, ss.VE, ss.EDM, ss.CosineVP, ss.SigmoidVP, ss.RectifiedFlow)]
SDES += [ss.DDPM(100), ss.CosineDDPM(100), ss.DiscreteVP(100), ss.SMLD(100, sigma_max=20.0), ss.VP(beta_max=7.0)]


@pytest.mark.parametrize("one", SDES, ids=[str(k) + type(one).__name__ for k, one in enumerate(SDES)])
def test_the_spec_of_an_sde_makes_it_again(one):
    spec = config_.spec_of(one, sde, ss.SDE)
    again = config_.build(sde, spec, base=ss.SDE)
    assert type(again) is type(one)
    for t in (0.3, 0.7, 1.0):
        t = t * float(one.t_max)
        np.testing.assert_array_equal(again.alpha(t), one.alpha(t))
        np.testing.assert_array_equal(again.variance(t), one.variance(t))


@pytest.mark.parametrize("one", FITTED, ids=lambda one: type(one).__name__)
def test_other_sdes_can_be_fitted(one):
    model = ss.fit(POINTS, one, network=ss.networks.MLP((2,), width=8, blocks=1), **QUICK)
    assert type(model.denoiser.sde) is type(one)
    assert np.isfinite(model.sample(3, grid=ss.time_grid.default(one, 4), sampler=ss.DDIM()).x).all()


def test_specs_of_other_things():
    meaning = ss.Preconditioned("sigma", 0.7)
    spec = config_.spec_of(meaning, parametrization, denoisers.Parametrization, skip=("data_range",))
    assert spec == {"name": "Preconditioned", "time_label": "sigma", "data_std": 0.7}
    spec = config_.spec_of(SMALL, networks, networks.Network, skip=("shape", "conditions", "levels"))
    assert config_.build(networks, spec, shape=(8, 8, 1)) == SMALL
    with pytest.raises(ss.InputError, match="cannot be kept in a config"):
        config_.spec_of(ss.Noise(lambda sde, t: t), parametrization, denoisers.Parametrization)


@pytest.mark.slow
def test_two_spirals_are_learned():
    _, points = spirals(2000, np.random.default_rng(0))
    _, test = spirals(200, np.random.default_rng(1))
    model = ss.fit(points, progress=False)
    drawn = model.sample(500).x
    fine, _ = spirals(50_000, np.random.default_rng(2))

    def density(x):
        """Return the log-density of the data's distribution, a sum over 50,000 points of the curve."""
        squares = ((fine - x) ** 2).sum(axis=1)
        return logsumexp(-squares / (2 * 0.03**2)) - np.log(len(fine) * 2 * np.pi * 0.03**2)

    far = np.array([np.sqrt(((fine - x) ** 2).sum(axis=1).min()) for x in drawn])
    assert (far > 0.12).mean() < 0.05  # 0.12 is four standard deviations of the noise
    out = model.log_prob(test, probes=4, rtol=1e-4, atol=1e-4)
    assert np.mean(np.asarray(out.value) - [density(x) for x in test]) > -0.4
    assert np.isfinite(out.stderr).all()
