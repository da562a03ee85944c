"""This module tests the command line: main.py writes the files of a run, and reports bad input in one line."""

import json
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import score_sde as ss
from tests import cheap_compiles

ROOT = pathlib.Path(__file__).parent.parent
TINY = [
    "--config.network.channels=8",
    "--config.network.multipliers=(1,)",
    "--config.network.blocks=1",
    "--config.data.batch_size=16",
    "--config.train.steps=4",
    "--config.train.log_every=2",
    "--config.train.eval_every=4",
    "--config.train.sample_every=0",
    "--config.train.checkpoint_every=4",
    "--config.sample.n=12",
    "--config.sample.batch_size=8",
    "--config.sample.grid.n=2",
    "--config.eval.what=HeldOutLoss, LossPerLevel, Likelihood(probes=1, rtol=0.1, atol=0.1)",
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def run(cache, *arguments):
    keep = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    environment = keep | {
        "XDG_CACHE_HOME": str(cache),
        "XLA_FLAGS": cheap_compiles.flags(1),
    }
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments], env=environment, capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.xdist_group("main")
def test_train_and_sample_then_again(cache, tmp_path):
    job = ["--config=configs/digits.py:subvp,conditional", f"--workdir={tmp_path}", "--mode=train,eval,sample", *TINY]
    first = run(cache, *job, "--config.sample.guidance=ClassifierFree(weight=2.0)")
    assert first.returncode == 0, first.stderr
    assert "note: network.attention has 4, and no level has that height (the levels have 8)" in first.stdout
    assert "%|" not in first.stderr  # The command draws a progress bar on a terminal only.
    for words in (
        "trained to step 4",
        "held-out loss",
        "seconds: compiling",
        "bits/dim over 297",
        "sampled 12 images",
        "samples.png",
    ):
        assert words in first.stdout
    for name in (
        "config.json",
        "train.jsonl",
        "checkpoints/4",
        "tensorboard",
        "loss.png",
        "samples/samples.png",
        "eval/likelihood.json",
    ):
        assert (tmp_path / name).exists(), name
    with np.load(tmp_path / "samples" / "samples.npz") as arrays:
        images, labels, nfe = arrays["images"], arrays["labels"], arrays["nfe"]
    assert images.shape == (12, 8, 8, 1)
    assert images.dtype == np.uint8
    assert images.max() <= 16
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert nfe.tolist() == [6] * 12  # Two steps and the last denoising take two network evaluations each.
    picture = np.asarray(Image.open(tmp_path / "samples" / "samples.png"))
    assert picture.shape[2] == 3
    assert json.loads((tmp_path / "config.json").read_text())["sde"]["name"] == "SubVP"
    model = ss.load(tmp_path)
    assert (model.shape, model.conditions["label"].classes, model.step) == ((8, 8, 1), 10, 4)

    # The command reads the config of the workdir, so no config is given.
    again = run(cache, f"--workdir={tmp_path}", "--mode=train,eval,sample")
    assert again.returncode == 0, again.stderr
    for job_done in ("train", "evaluate", "sample"):
        assert f"nothing left to {job_done}" in again.stdout

    other = run(cache, *job, "--config.network.channels=16", "--mode=sample")
    assert other.returncode == 1
    assert "network.channels = 8, and the config says 16" in other.stderr


BAD = [
    (["--config=configs/nothing.py"], ["configs/nothing.py"]),
    (["--config=configs/digits.py:vq"], ["'vq'", "vp, subvp, ve", "conditional"]),
    (["--config=configs/digits.py:vp,ve"], ["'vp,ve'"]),
    (["--config.network.chanels=3"], ["chanels", "channels"]),
    (["--config.train.steps=many"], ["steps", "many"]),
    (["--config.sde.name=VPP"], ["'VPP'", "SubVP, VE, VP"]),
    (["--config.sde.name=VE"], ["beta_min", "sigma_min"]),
    (["--mode=trian"], ["'trian'", "train, eval, sample"]),
    (["--mode=sample"], ["no workdir of a trained model"]),
    (["--mode=eval"], ["no workdir of a trained model"]),
    (["--config.data.batch_size=0"], ["data.batch_size is 0"]),
    (["--workdir=/proc/nothing/here"], ["/proc/nothing"]),
    (["stray"], ["'stray'"]),
    (["--config=README.md"], ["README.md"]),
    (["--wrokdir=x"], ["wrokdir", "workdir"]),
    (["--mode="], ["--mode is missing"]),
    (["--mode=import"], ["--weights is missing"]),
    (["--mode=import", "--weights=README.md"], ["README.md is not read"]),
    (["--weights=README.md"], ["--weights is for --mode=import"]),
    (["--mode=train,eval", "--config.eval.what=FED(n=3)"], ["'FED'", "Likelihood"]),
    (["--mode=train,eval", "--config.eval.what=Likelihood(__import__('os'))"], ["eval.what", "arguments by name"]),
    (["--config.sample.cond=label"], ["sample.cond", "by name"]),
    (["--mode=os.system"], ["'os.system'", "not a subclass of Job"]),
    (["--config.optimizer.schedule.name=constant"], ["'constant'"]),
    (["--config.sde.n=100"], ["VP: no argument n", "beta_max"]),
    (["--config.sde.nothing.more=1"], ["sde.nothing.more, which nothing reads"]),
    (["--config.optimizer.schedule.peak_value=-1.0"], ["learning rate of network is -0.00"]),
    (["--config.train.start_from=/proc/nothing"], ["no workdir of a trained model"]),
]


def call(arguments, cache, stderr):
    """Run main.py with the arguments, in a process that has already imported the package."""
    os.environ["XDG_CACHE_HOME"] = cache
    os.dup2(os.open(stderr, os.O_CREAT | os.O_WRONLY), 2)
    os.chdir(ROOT)
    sys.argv = [str(ROOT / "main.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.fixture(scope="session")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["score_sde", "test_main"])
    return context


@pytest.mark.parametrize(("change", "words"), BAD, ids=[change[-1] for change, _ in BAD])
def test_bad_input_gets_one_clear_line(processes, cache, tmp_path, change, words):
    workdir, stderr = tmp_path / "run", tmp_path / "stderr"
    arguments = ["--config=configs/digits.py:vp", f"--workdir={workdir}", "--mode=train", *TINY, *change]
    process = processes.Process(target=call, args=(arguments, str(cache), str(stderr)))
    process.start()
    process.join()
    assert process.exitcode == 1
    lines = stderr.read_text().strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert not workdir.exists()


@pytest.mark.slow
def test_a_published_checkpoint_from_the_command_line(cache, tmp_path):
    """The command imports, compares and samples a checkpoint; the repeated command imports nothing."""
    files, workdir = ROOT / "tests" / "fixtures" / "published", tmp_path / "run"
    small = ["channels=4", "multipliers=(1,2)", "blocks=1", "attention=(4,)"]
    job = ["--config=configs/celeba.py:ve,ncsnpp", f"--workdir={workdir}", "--mode=import,sample"]
    job += [f"--config.network.{entry}" for entry in small]
    job += ["--config.sde.sigma_max=50.0", "--config.data.size=8", "--config.data.batch_size=2", "--config.sample.n=2"]
    job += ["--config.sample.batch_size=2", "--config.sample.grid.n=3", f"--weights={files / 'ncsnpp_residual.pth'}"]
    first = run(cache, *job, f"--expect={files / 'ncsnpp_residual.npz'}")
    assert first.returncode == 0 and not first.stderr, first.stderr
    assert "157 of 157 tensors matched" in first.stdout and "outputs by params: largest difference" in first.stdout
    assert np.load(workdir / "samples" / "samples.npz")["images"].shape == (2, 8, 8, 3)
    again = run(cache, *job)
    assert again.returncode == 0 and "nothing left to import" in again.stdout, again.stderr


def test_too_little_memory_is_one_line(monkeypatch):
    # The import defines flags. The processes of the other tests define the flags by running main.py.
    from score_sde import command as command_line

    def exhausted(argv):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 68719476736 bytes.")

    monkeypatch.setattr(command_line, "main", exhausted)
    with pytest.raises(
        SystemExit, match=r"^error: the device .* allocating 68719476736 bytes\.\); .*train\.microbatches"
    ):
        command_line._run([])
