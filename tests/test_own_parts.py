"""A user's own part that returns something else than its interface asks for is told in one line."""

import dataclasses

import pytest

import score_sde as ss
from score_sde import config as config_
from score_sde.jobs import evaluate, train
from score_sde.jobs.evaluation import Evaluation

SDE = ss.VP()
GAUSSIAN = ss.GaussianMixture(SDE, [1.0], [[0.0, 0.0]], 1.0)


@dataclasses.dataclass(frozen=True)
class Pair(ss.Sampler):
    """A sampler that forgets its nfe."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        return x, state


@dataclasses.dataclass(frozen=True)
class Flat(ss.Sampler):
    """A sampler that changes the shape of x."""

    def step(self, keys, denoiser, x, t, s, state, cond=None):
        return x[:, :1], state, ss.evaluations(denoiser, x, t)


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (Pair(), r"step of Pair returned 2 values; expected \(x, state, nfe\)"),
        (Flat(), r"step of Flat returned x of shape \(4, 1\); expected \(4, 2\)"),
    ],
)
def test_a_sampler_that_returns_something_else(sampler, words):
    with pytest.raises(ss.InputError, match=words):
        ss.sample(GAUSSIAN, sampler, ss.time_grid.uniform(SDE, 3), (2,), n=4, seed=0)


class NoCodec(ss.data.Dataset):
    """A data set without a codec."""

    def source(self, split):
        return []


class NoSource(ss.data.Dataset):
    """A data set whose method lacks its return."""

    codec = ss.ContinuousCodec((2,))

    def source(self, split):
        pass


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NoCodec", "NoCodec has codec=None; expected a codec, such as ss.QuantizedCodec"),
        ("NoSource", "The source of .* is None; expected an object with a length and items"),
    ],
)
def test_a_data_set_that_lacks_a_part(name, words, tmp_path):
    config = dict(
        data=dict(name=f"tests.test_own_parts.{name}", batch_size=4), network=dict(name="MLP", width=8, blocks=1)
    )
    with pytest.raises(ss.InputError, match=words):
        train(config, tmp_path)


@dataclasses.dataclass(frozen=True)
class Count(Evaluation):
    """An evaluation that returns what it is told."""

    returns: str = "number"
    name = "count"

    def run(self, at):
        return {
            "number": ({"count": len(at.source)}, "a count"),
            "alone": {"count": 1},
            "precision": ({"precision": 0.5}, "a precision"),
        }[self.returns]


@dataclasses.dataclass(frozen=True)
class OtherCount(Count):
    """Another evaluation of the same name and settings."""

    def run(self, at):
        return {"count": -1}, "another count"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    train(config(), folder)
    return folder


def config(**eval_):
    return dict(
        data=dict(name="GaussianRing", batch_size=32, dir=""),
        network=dict(name="MLP", width=8, blocks=1),
        train=dict(steps=2, eval_every=0, sample_every=0, checkpoint_every=2),
        eval=dict(what="HeldOutLoss", batch_size=64) | eval_,
    )


def test_two_evaluations_of_one_name_have_two_results(workdir, capsys):
    evaluate(config(what="tests.test_own_parts.Count"), workdir)
    evaluate(config(what="tests.test_own_parts.OtherCount"), workdir)
    out = capsys.readouterr().out
    assert "a count" in out and "another count" in out and "nothing left" not in out
    evaluate(config(what="tests.test_own_parts.Count"), workdir)
    out = capsys.readouterr().out
    assert "nothing left to evaluate: step 2 has a count" in out and "to evaluate again, delete count.json" in out


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        ("alone", r"run of Count returned dict; expected \(dictionary, line of text\)"),
        ("precision", "Count returns 'precision', which every result has already: rename the entry"),
    ],
)
def test_an_evaluation_that_returns_something_else(workdir, returns, words):
    with pytest.raises(ss.InputError, match=words):
        evaluate(config(what=f"tests.test_own_parts.Count(returns={returns!r})"), workdir)


@pytest.mark.parametrize(
    ("entry", "hint"),
    [("sample.steps", "sample.grid.n"), ("train.batch_size", "data.batch_size"), ("train.lr", "optimizer.schedule")],
)
def test_an_entry_that_users_look_for_under_another_name(entry, hint):
    section, _, name = entry.partition(".")
    with pytest.raises(ss.InputError, match=f"{entry}, which nothing reads; did you mean {hint}"):
        config_.complete(config() | {section: {name: 1}})
