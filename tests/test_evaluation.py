"""An evaluation uses each example exactly once, states its settings, and never overwrites another result."""

import dataclasses
import json
import math
import shutil
import warnings

import jax
import numpy as np
import pytest

import score_sde as ss
from configs import digits
from score_sde import data
from score_sde.core import keys as keys_
from score_sde.jobs import Evaluation, evaluate, train
from score_sde.jobs.runner import batches, equal_batches
from tests.few_digits import FewDigits

LIKELIHOOD = "Likelihood(probes=2, rtol=1e-3, atol=1e-3)"
WHAT = f"HeldOutLoss, LossPerLevel, {LIKELIHOOD}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the config and the workdir of a very small conditional model."""
    config = digits.get_config("vp,conditional")
    config.data.update(name="tests.few_digits.FewDigits", dir=str(tmp_path_factory.mktemp("data")), batch_size=16)
    config.network = dict(name="tests.few_digits.Affine")
    config.train.update(steps=20, log_every=10, eval_every=20, sample_every=0, checkpoint_every=10)
    config.eval.update(what=WHAT, batch_size=4)
    workdir = tmp_path_factory.mktemp("run")
    train(config, workdir)
    return config, workdir


@pytest.fixture
def run(trained, tmp_path):
    """Return the config and a copy of the workdir without results."""
    config, workdir = trained
    shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    return config.copy_and_resolve_references(), tmp_path / "run"


def read(workdir, name="likelihood"):
    return json.loads((workdir / "eval" / f"{name}.json").read_text())


def test_what_an_evaluation_writes(run, capsys):
    config, workdir = run
    evaluate(config, workdir)
    printed = capsys.readouterr().out
    assert "bits/dim over 7 examples" in printed
    result, model = read(workdir), ss.load(workdir)
    codec = model.codec
    with np.load(workdir / "eval" / "likelihood.npz") as arrays:
        columns = {name: arrays[name] for name in arrays}
    assert columns["index"].tolist() == list(range(7))
    assert result["n"] == 7
    assert result["bits_per_dim"] == pytest.approx(columns["bits_per_dim"].mean())
    assert result["stderr"] == pytest.approx(columns["bits_per_dim"].std(ddof=1) / math.sqrt(7))
    assert result["bits_per_dim"] == pytest.approx(sum(result["terms"].values()))
    assert set(result["terms"]) == {"prior", "divergence", "scale", "dequantization"}
    assert result["is"] == "an upper bound"
    assert result["terms"]["scale"] == pytest.approx(3)
    parts = result["stderr_parts"]
    assert parts["data"] ** 2 == pytest.approx(max(result["stderr"] ** 2 - parts["probes"] ** 2, 0))
    assert parts["probes"] == pytest.approx(np.sqrt((columns["stderr"] ** 2).sum()) / 7)
    assert (result["checkpoint_step"], result["checkpoint_digest"]) == (20, model.digest)
    assert (result["rtol"], result["atol"], result["probes"], result["seed"]) == (1e-3, 1e-3, 2, 0)
    assert result["data"] == data.digest(FewDigits(config.data.dir).source("test"))
    assert result["seconds"] > 0 and result["nfe"] == pytest.approx(columns["nfe"].mean())
    assert result["conditional"] is True

    loss, levels = read(workdir, "loss"), read(workdir, "loss_per_level")
    records = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
    last = [record["heldout_loss"] for record in records if "heldout_loss" in record][-1]
    assert loss["loss"] == pytest.approx(last, rel=1e-4)  # the training log has this number
    assert loss["n"] == 7 and loss["stderr"] > 0
    assert len(levels["t"]) == len(levels["loss"]) == len(levels["log_snr"]) == 25
    assert (levels["t"][0], levels["t"][-1]) == (1e-5, 1.0)
    example = data.all_examples(FewDigits(config.data.dir).source("test"))
    x0 = np.repeat(codec.encode(example["values"], None)[0], 32, axis=0)
    cond = {"label": np.repeat(example["label"], 32).astype(np.int32)}
    for k in (6, 12, 24):
        draws = jax.random.split(jax.random.key(k), len(x0))
        reference = ss.denoising_loss(model.denoiser, x0, draws, t=levels["t"][k], cond=cond, train=False)
        assert abs(levels["loss"][k] - float(reference.mean())) < 5 * levels["stderr"][k] + 0.02
    assert (workdir / "eval" / "loss_per_level.png").stat().st_size > 1000

    # The likelihood of an example equals bits_per_dim of this example alone, with the key and label of the example.
    key = jax.random.fold_in(keys_.stream(0, "likelihood"), 6)
    alone = ss.bits_per_dim(
        model.denoiser,
        example["values"][6:7],
        key[None],
        codec=codec,
        cond={"label": example["label"][6:7].astype(np.int32)},
        probes=2,
        rtol=1e-3,
        atol=1e-3,
    )
    assert columns["bits_per_dim"][6] == pytest.approx(alone.value[0], abs=0.02)
    assert columns["prior"][6] == pytest.approx(alone.prior[0], abs=0.02)

    before = (workdir / "eval" / "likelihood.json").read_text()
    evaluate(config, workdir)
    assert "nothing left to evaluate" in capsys.readouterr().out
    assert (workdir / "eval" / "likelihood.json").read_text() == before


@pytest.mark.parametrize(
    "size", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(100, marks=pytest.mark.slow)]
)
def test_every_example_once_whatever_the_batch(run, size):
    config, workdir = run
    config.eval.update(what="Likelihood(probes=2, rtol=1e-3, atol=1e-3, draws=2)", batch_size=size)
    evaluate(config, workdir)
    with np.load(workdir / "eval" / "likelihood.npz") as arrays:
        values = arrays["bits_per_dim"]
    assert len(values) == read(workdir)["n"] == 7
    config.eval.batch_size = 7
    (workdir / "eval").rename(workdir / "other")
    evaluate(config, workdir)
    with np.load(workdir / "eval" / "likelihood.npz") as arrays:
        np.testing.assert_allclose(arrays["bits_per_dim"], values, atol=0.02)


def test_the_first_examples_are_those_of_the_whole(run):
    config, workdir = run
    config.eval.what = LIKELIHOOD
    evaluate(config, workdir)
    config.eval.what = "Likelihood(probes=2, rtol=1e-3, atol=1e-3, first=3)"
    evaluate(config, workdir)
    whole = read(workdir)
    (folder,) = (workdir / "eval").glob("likelihood-*")
    part = json.loads((folder / "likelihood.json").read_text())
    assert (whole["n"], part["n"], part["first"]) == (7, 3, 3)
    assert "first" not in whole
    with np.load(workdir / "eval" / "likelihood.npz") as every, np.load(folder / "likelihood.npz") as some:
        np.testing.assert_allclose(some["bits_per_dim"], every["bits_per_dim"][:3], atol=1e-4)


@pytest.mark.parametrize(("n", "most", "size"), [(297, 150, 149), (7, 4, 4), (7, 100, 7), (1, 5, 1), (10, 3, 3)])
def test_batches_are_about_equal(n, most, size):
    assert equal_batches(n, most) == size
    cut = batches(np.zeros(n, bool), size)
    assert np.concatenate(cut).tolist() == list(range(n))
    assert len(cut) == math.ceil(n / most) and len(cut[-1]) <= size


@dataclasses.dataclass(frozen=True)
class Count(Evaluation):
    """`Count` counts to n; the result has NumPy's types."""

    n: int = 1
    sampler: ss.Sampler = dataclasses.field(default_factory=ss.Heun)

    def run(self, at):
        return {"counted": np.float32(self.n), "all": np.arange(self.n)}, f"{self.n}"


class Renamed(Count):
    def settings(self):
        return super().settings() | {"seed": 3}


def test_two_evaluations_of_one_name_have_a_place_each(run, capsys):
    config, workdir = run
    config.eval.what = f"{__name__}.Count(n=1), {__name__}.Count(n=2), {__name__}.Count(n=2, sampler=DPMSolverPP())"
    evaluate(config, workdir)
    results = [json.loads(path.read_text()) for path in (workdir / "eval").rglob("count.json")]
    assert sorted((result["n"], result["counted"], result["sampler"]["name"]) for result in results) == [
        (1, 1.0, "Heun"),
        (2, 2.0, "DPMSolverPP"),
        (2, 2.0, "Heun"),
    ]
    capsys.readouterr()
    evaluate(config, workdir)
    assert capsys.readouterr().out.count("nothing left to evaluate") == 3
    config.eval.what = f"{__name__}.Renamed"
    with pytest.raises(ss.InputError, match="Renamed has a setting 'seed', which every result has already"):
        evaluate(config, workdir)


def test_results_of_something_else_are_not_touched(run, monkeypatch, capsys):
    """Results of another seed, other data or another checkpoint have their own folders, and are found there again."""
    config, workdir = run
    config.eval.update(what="HeldOutLoss")
    evaluate(config, workdir)
    path = workdir / "eval" / "loss.json"
    text = path.read_text()

    def others():
        return sorted(p.parent.name for p in (workdir / "eval").glob("loss-*/loss.json"))

    config.eval.seed = 5
    evaluate(config, workdir)
    (first,) = others()
    assert read(workdir, f"{first}/loss")["seed"] == 5
    monkeypatch.setattr(FewDigits, "source", lambda self, split: data.Digits(self.dir).source(split))
    evaluate(config, workdir)
    assert len(others()) == 2 and {read(workdir, f"{name}/loss")["n"] for name in others()} == {7, 297}
    monkeypatch.undo()
    config.train.steps = 24
    train(config, workdir)
    evaluate(config, workdir)
    assert len(others()) == 3
    config.eval.seed = 0
    before = [(workdir / "eval" / name / "loss.json").read_text() for name in others()]
    evaluate(config, workdir)
    assert len(others()) == 4  # the fourth has seed 0 and step 24
    capsys.readouterr()
    config.eval.seed = 5
    evaluate(config, workdir)
    assert "nothing left to evaluate" in capsys.readouterr().out
    assert set(before) <= {(workdir / "eval" / name / "loss.json").read_text() for name in others()}
    assert path.read_text() == text
    config.eval.seed = 0

    for torn in (text[:40].encode(), b"[]", b"", b"\xff\xfe{"):
        path.write_bytes(torn)
        with pytest.raises(ss.InputError, match="holds no results: move the file away"):
            evaluate(config, workdir)
        assert path.read_bytes() == torn


def test_an_unfinished_checkpoint_is_not_evaluated(run):
    config, workdir = run
    config.eval.update(what="HeldOutLoss")
    (workdir / "checkpoints" / "30").mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(config, workdir)
    assert any("step 30: its folder is empty" in str(warning.message) for warning in caught)
    assert read(workdir, "loss")["checkpoint_step"] == 20
    for step in (10, 20):
        (workdir / "checkpoints" / str(step)).rename(workdir / "checkpoints" / f"{step}.orbax-checkpoint-tmp")
    with pytest.raises(ss.InputError, match=r"no whole checkpoint .step 30: its folder is empty"):
        evaluate(config, workdir)
    (workdir / "checkpoints" / "30").rmdir()
    with pytest.raises(ss.InputError, match="has no checkpoint"):
        evaluate(config, workdir)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"what": "Likelyhood"}, "'Likelyhood'; expected one of .*HeldOutLoss, .*Likelihood, LossPerLevel"),
        ({"what": ""}, "expected one or several"),
        ({"what": "Likelihood(probes=0)"}, "probes of Likelihood is 0"),
        ({"what": "Likelihood(draws=-1)"}, "draws of Likelihood is -1"),
        ({"what": "Likelihood(tolerance=1)"}, "Likelihood: no argument tolerance"),
        ({"what": "LossPerLevel(levels=1)"}, "levels of LossPerLevel is 1"),
        ({"what": "Likelihood(2)"}, "arguments by name"),
        ({"batch_size": 0}, "eval.batch_size is 0"),
        ({"what": "Likelihood(rtol=0.0, atol=0.0)"}, "both 0"),
        ({"seed": -1}, "eval.seed is -1"),
    ],
)
def test_bad_settings_are_refused(run, change, words):
    config, workdir = run
    config.eval.update(change)
    with pytest.raises(ss.InputError, match=words):
        evaluate(config, workdir)
    assert not (workdir / "eval").exists()


def test_data_outside_the_declared_range_is_refused(run, monkeypatch):
    config, workdir = run
    config.eval.update(what=LIKELIHOOD)
    original = FewDigits.source

    def bright(self, split):
        records = original(self, split)
        records[3] = {**records[3], "values": records[3]["values"] + 20}
        return records

    monkeypatch.setattr(FewDigits, "source", bright)
    with pytest.raises(ss.InputError, match=r"values contain \d+; expected whole numbers from 0 to 16"):
        evaluate(config, workdir)
    assert not list((workdir / "eval").iterdir())
    assert ss.load(workdir).step == 20


def test_a_likelihood_that_cannot_be_computed_names_its_examples(run, monkeypatch):
    """The error has the numbers of the examples in the split, and no number of the padding."""
    config, workdir = run
    config.eval.update(what=LIKELIHOOD)
    original = data.QuantizedCodec.encode

    def bad(self, values, keys):
        x, terms = original(self, values, keys)
        return jax.numpy.where(jax.numpy.arange(len(x))[:, None, None, None] >= 2, 3e38, x), terms

    monkeypatch.setattr(data.QuantizedCodec, "encode", bad)
    with pytest.raises(ss.DivergenceError, match="test examples 2, 3 could not be computed"):
        evaluate(config, workdir)
    assert not list((workdir / "eval").iterdir())
