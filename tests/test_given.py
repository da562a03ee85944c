"""Data that are not as declared and settings without effect are refused, and no earlier result is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from configs import digits
from score_sde import config as config_
from score_sde import data, jobs, networks
from score_sde.data import Arrays, Examples
from score_sde.experiment import started_from
from score_sde.jobs.log import read_records

LABELLED = ss.Conditions(label=ss.Label(3))
PIXELS = ss.QuantizedCodec((4, 4, 1), 255)


def pixels(n=5, **changes):
    return dict(values=np.zeros((n, 4, 4, 1), np.uint8), label=np.arange(n) % 3) | changes


def altered(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


WRONG = [
    (dict(label=[0, 1, 2, 3, 0]), "Example 3 of .*contains 3; expected classes from 0 to 2"),
    (dict(label=[0, -1, 0, 0, 0]), "Example 1 of .*contains -1"),
    (dict(label=[0.5, 1, 0, 0, 0]), "dtype float64"),
    (dict(label=["cat", "dog", "cat", "cat", "cat"]), "'cat'; expected a whole number"),
    (dict(values=np.full((5, 4, 4, 1), 0.5)), "Example 0 of .*contain 0.5; expected whole numbers from 0 to 255"),
    (dict(values=altered(np.zeros((5, 4, 4, 1), np.uint16), 4, 256)), "Example 4 of .*contain 256"),
    (dict(values=altered(np.zeros((5, 4, 4, 1)), (2, 1), np.nan)), "Example 2 of .*contain nan"),
    (dict(values=np.zeros((5, 1, 4, 4), np.uint8)), r"shape \(1, 4, 4\); expected \(4, 4, 1\).*channels come last"),
    (dict(values=np.zeros((5, 4, 4), np.uint8)), r"single channel needs its own axis"),
    (dict(values=np.array([["a"] * 4] * 5)), "expected"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=range(len(WRONG)))
def test_an_example_that_is_not_as_declared_is_named(changes, words):
    columns = pixels(**changes)
    rows = [{name: column[i] for name, column in columns.items()} for i in range(5)]
    for source in (Arrays(**columns), rows):
        examples = Examples(source, LABELLED, PIXELS, "the split 'train' of mine")
        with pytest.raises(ss.InputError, match=words):
            examples.look()
        with pytest.raises(ss.InputError, match=words):
            examples.batch(np.arange(5))


def test_examples_of_several_forms_are_named():
    rows = [dict(values=np.zeros((4, 4, 1), np.uint8)) for _ in range(3)]
    rows[2] = dict(values=np.zeros((4, 5, 1), np.uint8))
    with pytest.raises(ss.InputError, match=r"Example 2 has 'values' of another form \(shape \(4, 5, 1\)\)"):
        Examples(rows, codec=PIXELS).batch([0, 1, 2])
    with pytest.raises(ss.InputError, match="label has 4"):
        Arrays(values=np.zeros((5, 2)), label=np.zeros(4, int))
    with pytest.raises(ss.InputError, match="is empty"):
        Examples([], codec=PIXELS, name="the split 'train' of mine").look()


def test_real_numbers_that_are_not_finite_are_named():
    values = altered(np.zeros((9, 2), np.float32), (7, 0), np.inf)
    with pytest.raises(ss.InputError, match=r"Example 7 of .*NaN or infinity"):
        Examples(Arrays(values=values), codec=ss.ContinuousCodec((2,))).look()


class Half(data.Digits):
    """`Half` has 32 digits in each split, and the test split has the defect `wrong`."""

    def __init__(self, dir=None, wrong=""):
        super().__init__(dir)
        self.wrong = wrong

    def source(self, split):
        source = super().source("train")
        few = {name: column[:32] for name, column in source.columns.items()}
        if split == "test" and self.wrong == "missing":
            raise ss.InputError("There is no folder test/.")
        if split == "test" and self.wrong == "nan":
            few["values"] = altered(few["values"].astype(np.float32), (5, 0, 0), np.nan)
        return Arrays(**{name: column[:0] for name, column in few.items()} if self.wrong == "empty" else few)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = digits.get_config("vp,conditional")
    config.network = dict(name="tests.few_digits.Affine")
    config.data = dict(
        name="tests.test_given.Half", dir=str(tmp_path_factory.mktemp("data")), given=("label",), batch_size=16
    )
    config.data.update(wrong="", flip=False, conditions="", drop={})
    config.train.update(steps=4, log_every=2, eval_every=4, sample_every=0, checkpoint_every=2)
    return config


@pytest.mark.parametrize(("wrong", "words"), [("missing", "no folder"), ("empty", "empty"), ("nan", "Example 5 of")])
def test_a_test_split_that_cannot_be_used_is_told_before_the_first_step(config, tmp_path, wrong, words):
    other = config.copy_and_resolve_references()
    other.data.wrong = wrong
    with pytest.raises(ss.InputError, match=words):
        jobs.train(other, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists() and not (tmp_path / "run" / "checkpoints").exists()


def test_a_checkpoint_comes_before_what_may_fail_and_the_loss_is_made_up_for(config, tmp_path, monkeypatch):
    calls = []

    def fail(self, *_):
        calls.append(1)
        raise RuntimeError("out of memory")

    from score_sde.losses import HeldOut

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(HeldOut, "__call__", fail)
        jobs.train(config, tmp_path / "run")
    assert calls and (tmp_path / "run" / "checkpoints" / "4").is_dir()
    jobs.train(config, tmp_path / "run")
    jobs.train(config, tmp_path / "whole")
    ours, theirs = (read_records(tmp_path / name / "train.jsonl") for name in ("run", "whole"))
    losses = [record["heldout_loss"] for record in ours if "heldout_loss" in record]
    assert losses == [record["heldout_loss"] for record in theirs if "heldout_loss" in record] and len(losses) == 1
    before = (tmp_path / "run" / "train.jsonl").read_bytes()
    jobs.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "train.jsonl").read_bytes() == before


def test_a_run_starts_from_the_weights_of_another(config, tmp_path):
    first = config.copy_and_resolve_references()
    first.train.update(eval_every=0)
    jobs.train(first, tmp_path / "a")
    again = first.copy_and_resolve_references()
    again.train.update(start_from=str(tmp_path / "a"), steps=2)
    again.optimizer.schedule = dict(name="constant_schedule", value=1e-5)
    again.data.batch_size = 8
    again.seed = 7
    jobs.train(again, tmp_path / "b")
    weights, drawn = ss.load(tmp_path / "a").denoiser.params, ss.load(tmp_path / "b", average=None).denoiser.params
    for name, value in weights.items():
        np.testing.assert_allclose(drawn[name], value, atol=3e-5)  # each of two steps adds about 1e-5
    experiment = ss.Experiment.from_config(again)
    other = first.copy_and_resolve_references()
    other.data.given = ()
    state = ss.Experiment.from_config(other).init_state()
    with pytest.raises(ss.InputError, match=r"network does not fit the config \(\['classes'\] has shape \(11, 64\)"):
        started_from(experiment, tmp_path / "a", state)
    with pytest.raises(ss.InputError, match="no workdir"):
        started_from(experiment, tmp_path / "nothing", state)


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("optimizer", dict(schedule=dict(name="constant_schedule", value=-1e-3)), "is -0.001 at step 0"),
        ("optimizer", dict(schedule=dict(name="constant_schedule", value=0.0)), "0 at every step"),
        ("train", dict(start_from=3), "start_from is 3"),
        ("sample", dict(clip="yes"), "sample.clip is 'yes'"),
    ],
)
def test_settings_that_do_nothing_are_refused(config, tmp_path, section, change, words):
    other = config.copy_and_resolve_references()
    with other.ignore_type():
        for name, value in change.items():
            other[section][name] = value
    with pytest.raises(ss.InputError, match=words):
        jobs.train(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_attention_where_no_level_has_that_height_is_told():
    options = dict(channels=8, multipliers=(1, 2), blocks=1)
    (remark,) = networks.DDPMpp((8, 8, 1), attention=(4, 5), **options).remarks()
    assert remark.startswith("network.attention has 5, and no level has that height (the levels have 8, 4)")
    assert networks.DDPMpp((8, 8, 1), attention=(4,), **options).remarks() == ()
    assert networks.DDPMpp((8, 8, 1), **options).attention == ()
    assert networks.DDPMpp((32, 32, 3), **options).attention == (16,)


def test_an_argument_that_the_config_does_not_state_can_be_given():
    config = config_.complete(dict(data=dict(name="Digits"), network=dict(name="MLP")))
    assert config_.add_argument(config, "sde.beta_max", "10.") and config.sde.beta_max == 10.0
    assert config_.add_argument(config, "network.embedding", "fourier") and config.network.embedding == "fourier"
    assert not config_.add_argument(config, "train.steps", "5")
    for wrong in ("train.stepz", "nothing", "train.steps.more", "nothing.at.all"):
        with pytest.raises(ss.InputError, match="nothing reads"):
            config_.add_argument(config, wrong, "1")
    config_.add_argument(config, "sde.n", "100")
    with pytest.raises(ss.InputError, match="VP: no argument n"):
        ss.Experiment.from_config(config)


def test_a_clipped_denoiser_keeps_both_halves_consistent_and_an_exact_one_as_it_is(sde):
    mixture = ss.GaussianMixture(sde, [0.5, 0.5], [[0.9, -0.9], [-0.8, 0.3]], 0.05)
    x = np.asarray(mixture.marginal(0.3).sample(jax.random.split(jax.random.key(0), 64)))
    inside = ss.Clipped(mixture, -1.2, 1.2).predict(x, 0.3)
    np.testing.assert_allclose(inside.x0, mixture.predict(jnp.asarray(x), 0.3).x0)
    cut = ss.Clipped(mixture, -0.5, 0.5).predict(x, 0.3)
    assert np.abs(cut.x0).max() == 0.5
    np.testing.assert_allclose(sde.alpha(0.3) * cut.x0 + sde.sigma(0.3) * cut.noise, x, rtol=2e-4, atol=2e-4)
    for low, high in ((1, -1), (0, 0), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ss.InputError, match=r"low below high|low of Clipped is nan; expected a number"):
            ss.Clipped(mixture, low, high)


@pytest.mark.parametrize(
    ("sde", "figure"), [(ss.DDPM(100), "0.6"), (ss.VP(beta_max=1.0), "0.76"), (ss.VE(sigma_max=0.5), "1 x_0")]
)
def test_a_prior_that_the_noise_does_not_reach_is_told(sde, figure):
    mixture = ss.GaussianMixture(sde, [1.0], [[2.0]], 0.1)
    with pytest.warns(UserWarning, match=f"does not reach its prior: x at t_max is {figure}"):
        ss.sample(mixture, ss.DDIM(), ss.time_grid.uniform(sde, 2), (1,), n=2, seed=0)


def test_no_warning_where_the_prior_is_reached(sde, recwarn):
    mixture = ss.GaussianMixture(sde, [1.0], [[2.0]], 0.1)
    ss.sample(mixture, ss.DDIM(), ss.time_grid.uniform(sde, 2), (1,), n=2, seed=0)
    assert not [warning for warning in recwarn if "prior" in str(warning.message)]
