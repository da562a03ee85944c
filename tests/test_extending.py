"""Each extension of docs/extending.md is one file of at most 40 lines; a config names its dotted path."""

import json
import re
import sys

import jax
import numpy as np
import pytest

import score_sde as ss
from score_sde.experiment import Experiment, load_trained
from score_sde.jobs import draw_samples, evaluate, train
from score_sde.jobs.log import read_records
from tests.test_docs import ROOT

TEXT = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
FILES = {
    "A condition": "mycolours",
    "A guide": "myguides",
    "A data set": "mybars",
    "A data set with captions": "mypackage",
    "A codec": "mycodecs",
    "An objective": "mylosses",
    "An evaluation": "myevaluations",
    "A job": "myjobs",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Yield a folder with the files of the page; Python imports from this folder."""
    folder = tmp_path_factory.mktemp("mine")
    for title, name in FILES.items():
        (folder / f"{name}.py").write_text(BLOCKS[title])
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def small(**changes):
    """Return the config of a run that takes seconds."""
    return dict(
        data=dict(name="tests.few_digits.FewDigits", batch_size=16, dir=""),
        network=dict(name="tests.few_digits.Affine"),
        train=dict(steps=8, log_every=4, eval_every=8, sample_every=0, checkpoint_every=4),
        sample=dict(n=6, batch_size=6, grid=dict(name="default", n=3)),
        eval=dict(what="HeldOutLoss, Likelihood(probes=1, rtol=0.01, atol=0.01)", batch_size=8),
    ) | {name: {**value} for name, value in changes.items()}


@pytest.mark.parametrize("title", FILES)
def test_each_is_one_file_of_at_most_forty_lines(title):
    assert BLOCKS[title].count("\n") <= 40


@pytest.mark.slow
def test_a_condition_of_ones_own(files, tmp_path):
    data = dict(name="tests.few_digits.FewDigits", batch_size=16, dir="", conditions="mycolours.Brightness")
    config = small(data=data | dict(drop=dict(brightness=0.5)), network=dict(name="mycolours.Told"))
    train(config, tmp_path)
    evaluate(config, tmp_path)
    model = ss.load(tmp_path)
    assert set(model.conditions) == {"brightness"}
    # Training has changed every parameter, also the bias of the absent condition.
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(model.denoiser.params))
    config["sample"]["cond"] = "brightness=[0.2, 0.8]"
    draw_samples(config, tmp_path)
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        np.testing.assert_allclose(arrays["brightness"], [0.2, 0.8] * 3)
    drawn = [model.sample(2, seed=3, brightness=b).x for b in (0.1, 0.9, None)]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
    guided = ss.ClassifierFree(model.denoiser, 3.0)
    out = ss.sample(guided, ss.Heun(), ss.time_grid.default(guided.sde, 4), model.shape, n=2, seed=0)
    assert out.nfe.tolist() == [2 * (2 * 4 + 1)] * 2
    with pytest.raises(ss.InputError, match=r"cond has 'label', which is not read; conditions read: brightness"):
        ss.sample(model.denoiser, ss.Heun(), [1.0, 1e-5], model.shape, n=2, seed=0, cond={"label": np.zeros(2, int)})
    # An optional condition that the data do not have is absent for all examples.
    assert not Experiment.from_config(small(network=dict(name="mycolours.Told"))).reads


def test_a_data_set_with_captions(files):
    reads = {"caption": ss.Text(10)}
    config = small(data=dict(name="mypackage.Stripes", given=("caption",), batch_size=16))
    config["network"] = dict(name=f"{__name__}.Reader")
    experiment = Experiment.from_config(config)
    assert experiment.network.conditions == ss.Conditions(caption=ss.Text(24))  # the data set declares 24
    assert experiment.reads["caption"] == ss.Text(24) and dict(experiment.dataset.conditions) != reads


class Reader(ss.networks.Network):
    """`Reader` is a network that accepts all conditions."""

    def __init__(self, shape, conditions=None):
        self.shape, self.conditions = shape, ss.Conditions(conditions)

    def init(self, key):
        return {"w": jax.numpy.zeros(())}

    def apply(self, params, x, time_label, cond=None, *, keys=None):
        return params["w"] * x


def test_a_codec_of_ones_own(files):
    __import__("mycodecs")  # the import runs the file's assertions


class Grey(ss.Guide):
    """`Grey` replaces x_0 by the grey level of the condition."""

    @property
    def reads(self):
        return ss.Conditions(self.denoiser.reads, grey=ss.Condition(required=True))

    def predict(self, x, t, cond=None, *, keys=None):
        inner = self.denoiser.predict(x, t, ss.without(cond, ["grey"]), keys=keys)
        return ss.Prediction(0 * inner.x0 + cond["grey"].reshape(-1, 1, 1, 1), inner.noise, inner.variance)


def test_a_guide_of_ones_own(tmp_path):
    """A config names the guide, and the guide reads its own condition when samples are drawn."""
    config = small()
    train(config, tmp_path)
    config["sample"] |= dict(guidance=f"{__name__}.Grey", cond="grey=[-1.0, 0.0, 1.0]")
    draw_samples(config, tmp_path)
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"].reshape(6, -1).mean(axis=1), [0, 8, 16] * 2)
        np.testing.assert_array_equal(arrays["grey"], [-1, 0, 1] * 2)


def run_of_two(config, workdir, stop):
    """Train to step `stop`, then to the end; return the trained run."""
    for steps in (stop, config["train"]["steps"]):
        train(config | dict(train=config["train"] | dict(steps=steps)), workdir)
    return load_trained(workdir)


@pytest.mark.slow
def test_an_objective_with_state(files, tmp_path):
    """Training changes the state of the objective; fsdp and pmap give the same state, and a stop the same bits."""
    config = small(objective=dict(name="mylosses.Balanced", target="noise"))
    train(config, tmp_path / "whole")
    whole, parts = load_trained(tmp_path / "whole"), run_of_two(config, tmp_path / "parts", 4)
    assert np.ptp(whole.state) > 0.01
    for a, b in zip(jax.tree.leaves((whole.params, whole.state)), jax.tree.leaves((parts.params, parts.state))):
        np.testing.assert_array_equal(a, b)
    for parallel in ("fsdp", "pmap"):
        train(config | dict(parallel=parallel), tmp_path / parallel)
        np.testing.assert_allclose(load_trained(tmp_path / parallel).state, whole.state, rtol=1e-5)
    assert any("least_usual" in record for record in read_records(tmp_path / "whole" / "train.jsonl"))
    assert isinstance(ss.load(tmp_path / "whole"), ss.Model)


def test_an_evaluation_that_asks_for_samples(files, tmp_path, capsys):
    config = small()
    train(config, tmp_path)
    config["eval"] = dict(what="myevaluations.Brightness(n=6)", batch_size=8)
    evaluate(config, tmp_path)
    result = json.loads((tmp_path / "eval" / "brightness.json").read_text())
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        assert result["drawn"] == pytest.approx(arrays["images"].mean())
    assert result["n"] == 6 and result["sample"]["seed"] == 0
    capsys.readouterr()
    draw_samples(config, tmp_path)  # the samples exist
    evaluate(config, tmp_path)
    printed = capsys.readouterr().out
    assert "nothing left to sample" in printed and "nothing left to evaluate" in printed
    config["sample"] = config["sample"] | dict(seed=1)  # other samples have another result
    evaluate(config, tmp_path)
    assert len(list((tmp_path / "eval").glob("brightness-*/brightness.json"))) == 1


def test_a_job_of_ones_own(files, tmp_path, capsys):
    from score_sde.command import find_job

    config = small()
    train(config, tmp_path)
    capsys.readouterr()
    job = find_job("myjobs.Norms")
    assert job.needs_workdir and set(job.flags) == {"average"}
    job.run(Experiment.from_config(config), tmp_path, average="none")
    lines = capsys.readouterr().out.splitlines()
    matrix = ss.load(tmp_path, average=None).denoiser.params["matrix"]
    assert lines[1].split() == ["matrix", f"{np.linalg.norm(matrix):.4f}"]
