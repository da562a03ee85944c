"""This module tests runs on one device, on eight devices and on two processes, and the loss of a process."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import score_sde as ss
from score_sde.core import keys as keys_
from score_sde.jobs.log import read_records
from score_sde.parallel import native_output
from tests import cheap_compiles

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return the cache folder of all runs, for prepared data and compiled programs."""
    return tmp_path_factory.mktemp("cache")


def start(cache, workdir, *arguments, devices=1, **environment):
    keep = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    keep |= {"XDG_CACHE_HOME": str(cache), "JAX_NUM_CPU_DEVICES": str(devices)}
    keep |= {"XLA_FLAGS": cheap_compiles.flags(1)}
    command = [sys.executable, "main.py", "--config=tests/small_job.py", f"--workdir={workdir}", *arguments]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=ROOT, env=keep | environment, **pipes)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_by_slurm(cache, workdir, *arguments, **options):
    """Start two processes that connect through the variables of Slurm; JAX derives the port from the job number."""
    port = 61440 + free_port() % 4096
    variables = {"SLURM_JOB_ID": str(port - 61440), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    tasks = [variables | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    return [start(cache, workdir, *arguments, "--distributed", **options, **task) for task in tasks]


def start_two(cache, workdir, *arguments, **options):
    flags = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    return [start(cache, workdir, *arguments, *flags, f"--process={i}", **options) for i in range(2)]


def finish(*running, seconds=120):
    """Return (status, stdout, stderr) of each process after all processes have ended."""
    ended = []
    try:
        for process in running:
            out, err = process.communicate(timeout=seconds)
            ended.append((process.returncode, out, err))
    finally:
        for process in running:
            process.kill()
    return ended


def complete(*running):
    """Return the stdout of the first process; every process must end with status 0 and an empty stderr."""
    ended = finish(*running)
    assert all((status, err) == (0, "") for status, _, err in ended), ended
    assert all(out == "" for _, out, _ in ended[1:])  # Only the first process reports.
    return ended[0][1]


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """Return the workdir and the stdout of the job in one process on one device."""
    workdir = tmp_path_factory.mktemp("whole")
    output = complete(start(cache, workdir, "--mode=train,eval,sample"))
    return workdir, output


def check_same(workdir, whole):
    """Check that training, likelihoods and samples of two workdirs are equal, up to rounding."""
    a, b = ss.load(workdir, average=None), ss.load(whole, average=None)
    start = a.denoiser.apply.init(keys_.stream(0, "init"))
    for name in ("matrix", "classes"):
        ours, theirs, before = (np.asarray(p[name]) for p in (a.denoiser.params, b.denoiser.params, start))
        moved = np.abs(theirs - before).max()
        assert moved > 0.01
        assert np.abs(ours - theirs).max() < 1e-4 * moved, name
    for ours, theirs in zip(*(read_records(w / "train.jsonl") for w in (workdir, whole)), strict=True):
        speed = "seconds_per_step"
        assert {**ours, speed: 0} == pytest.approx({**theirs, speed: 0}, rel=1e-4)
    for archive in ("eval/likelihood.npz", "samples/samples.npz"):
        with np.load(workdir / archive) as ours, np.load(whole / archive) as theirs:
            assert ours.files == theirs.files
            assert ours["index"].tolist() == list(range(len(ours["index"])))
            for name in ours.files:
                # Rounding may decide whether a step is accepted, and a step takes 6 network evaluations.
                bound = 12 if name in ("nfe", "accepted", "rejected") and "eval" in archive else 1e-3
                np.testing.assert_allclose(ours[name].astype(float), theirs[name].astype(float), atol=bound)
    pictures = [w / "samples" / "step_0000020.png" for w in (workdir, whole)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    likelihood, other_likelihood = (json.loads((w / "eval" / "likelihood.json").read_text()) for w in (workdir, whole))
    assert likelihood["n"] == other_likelihood["n"] == 7
    assert likelihood["bits_per_dim"] == pytest.approx(other_likelihood["bits_per_dim"], abs=1e-4)
    names = sorted(p.name for folder in ("eval", "samples") for p in (workdir / folder).iterdir())
    assert names == sorted(p.name for folder in ("eval", "samples") for p in (whole / folder).iterdir())
    assert not any("parts" in name for name in names)


@pytest.mark.slow
def test_two_processes_are_one(cache, whole, tmp_path):
    output = complete(*start_two(cache, tmp_path / "two", "--mode=train,eval,sample", devices=2))
    assert "on 4 cpu device(s) of 2 processes" in output and "on 1 cpu device(s)" in whole[1]
    assert "bits/dim over 7 examples" in output and "sampled 11 images" in output
    check_same(tmp_path / "two", whole[0])


@pytest.mark.slow
def test_eight_devices_are_one(cache, whole, tmp_path):
    output = complete(start(cache, tmp_path / "eight", "--mode=train,eval,sample", devices=8))
    assert "on 8 cpu device(s)" in output
    check_same(tmp_path / "eight", whole[0])


@pytest.mark.parametrize(
    "first", [pytest.param("one", marks=pytest.mark.long), pytest.param("two", marks=pytest.mark.slow)]
)
def test_a_run_goes_on_with_other_processes_and_devices(cache, whole, tmp_path, first):
    """A run of ten steps in one process continues with two processes and other options, or the reverse."""
    two = ["--config.train.fused=5", "--config.train.microbatches=2", "--config.parallel=fsdp"]
    short = "--config.train.steps=10"
    if first == "one":
        complete(start(cache, tmp_path, "--mode=train", short))
        complete(*start_two(cache, tmp_path, "--mode=train,eval,sample", *two, devices=2))
    else:
        complete(*start_by_slurm(cache, tmp_path, "--mode=train", short, *two, devices=2))
        complete(start(cache, tmp_path, "--mode=train,eval,sample", devices=2))
    # The run that ends at step 10 evaluates held-out data and draws a picture at step 10; the whole run does not.
    records = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    kept = [record for record in records if record["step"] != 10 or "loss" in record]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    (tmp_path / "samples" / "step_0000010.png").unlink()
    check_same(tmp_path, whole[0])


def wait_for(condition, running, seconds=60):
    """Wait until a condition holds; all processes must run until then."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and all(p.poll() is None for p in running), [p.communicate() for p in running]
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.slow)])
def test_sigterm_to_one_saves_all_at_one_step(cache, whole, tmp_path, victim):
    flags = ["--mode=train", "--config.train.steps=20000", "--config.train.checkpoint_every=20000"]
    running = start_two(cache, tmp_path, *flags, "--config.train.log_every=20", "--config.train.eval_every=0")
    wait_for(lambda: read_records(tmp_path / "train.jsonl"), running)
    running[victim].send_signal(signal.SIGTERM)
    ended = finish(*running)
    assert [(status, err) for status, _, err in ended] == [(0, "")] * 2
    step = ss.load(tmp_path).step
    assert f"stopped by SIGTERM: step {step} is saved" in ended[0][1]
    # An uninterrupted run of the same number of steps gives the expected parameters.
    other = tmp_path / "other"
    complete(
        start(cache, other, "--mode=train", f"--config.train.steps={step}", *flags[2:], "--config.train.eval_every=0")
    )
    for ours, theirs in zip(*(jax.tree.leaves(ss.load(w, average=None).denoiser.params) for w in (tmp_path, other))):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.slow)])
def test_a_job_whose_process_is_killed_ends_the_same(cache, whole, tmp_path, victim):
    """The other process ends within a minute with one line, and the repeated command draws the same samples."""
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir, ignore=shutil.ignore_patterns("samples", "eval"))
    job = ["--mode=sample", "--config.sample.n=4001", "--config.sample.batch_size=10"]
    running = start_two(cache, workdir, *job)
    wait_for(lambda: len(list(workdir.glob("samples/*parts*/*.npz"))) > 20, running)
    running[victim].kill()
    began = time.monotonic()
    survivor = finish(running[1 - victim])[0]
    assert time.monotonic() - began < 60
    assert survivor[0] not in (0, None)
    assert survivor[2] == native_output.LOST + "\n"
    parts = {p.name: p.read_bytes() for p in workdir.glob("samples/*parts*/*.npz")}
    assert 20 < len(parts) < 401
    complete(*start_two(cache, workdir, *job))
    other = tmp_path / "other"
    shutil.copytree(whole[0], other, ignore=shutil.ignore_patterns("samples", "eval"))
    complete(start(cache, other, *job))
    assert (workdir / "samples" / "samples.npz").read_bytes() == (other / "samples" / "samples.npz").read_bytes()
    assert not list(workdir.glob("samples/*parts*"))


BAD = [
    (["--process=0"], "--coordinator=None, --processes=None, --process=0: expected all three"),
    (["--coordinator=10.0.0.1", "--processes=2", "--process=0"], "'10.0.0.1'; expected HOST:PORT"),
    (["--coordinator=h:99999", "--processes=2", "--process=0"], "'h:99999'; expected HOST:PORT"),
    (["--coordinator=h:1", "--processes=2", "--process=2"], "--process is 2 of --processes=2; expected 0 .. 1"),
    (["--coordinator=h:1", "--processes=0", "--process=0"], "--process is 0 of --processes=0"),
    (["--distributed"], "did not find one another through the settings of the cluster"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_flags_that_make_no_run(cache, tmp_path, arguments, words):
    ((status, out, err),) = finish(start(cache, tmp_path / "run", "--mode=train", *arguments))
    assert (status, out) == (1, "")
    assert words in err and err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_must_agree(cache, tmp_path):
    """Processes with different configs or different numbers of devices end with one line each."""
    flags = ["--mode=train", f"--workdir={tmp_path / 'run'}", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    running = [
        start(cache, tmp_path / "run", *flags, "--process=0"),
        start(cache, tmp_path / "run", *flags, "--process=1", "--config.optimizer.schedule.peak_value=0.1"),
    ]
    for status, _, err in finish(*running):
        assert status == 1 and err.count("\n") == 1, err
        assert "Process 1 does not see the config as process 0 does" in err or err == native_output.LOST + "\n"
    flags.append("--config.data.batch_size=15")
    flags[2] = f"--coordinator=127.0.0.1:{free_port()}"
    running = [start(cache, tmp_path / "run", *flags, f"--process={i}", devices=i + 1) for i in range(2)]
    errors = [err for _, _, err in finish(*running)]
    assert any("different numbers of devices (process 0: 1, process 1: 2)" in err for err in errors), errors
    assert all(err.count("\n") == 1 for err in errors), errors
    assert not (tmp_path / "run").exists()


def test_pmap_is_for_one_process(cache, tmp_path):
    ended = finish(*start_two(cache, tmp_path / "run", "--mode=train", "--config.parallel=pmap"))
    assert ended[0][0] == 1 and ended[1][0] != 0
    assert "expected 'jit' or 'fsdp' there" in ended[0][2]
    assert all(err.count("\n") == 1 for _, _, err in ended), ended
    assert not (tmp_path / "run").exists()


def test_what_the_runtime_prints_is_passed_on_but_for_chatter():
    fatal = b"F1121 20:31:40.8 2175 client.h:80] Terminating: the JAX distributed service detected fatal errors. More\n"
    chatter = [
        b"[Gloo] Rank [Gloo] Rank 1 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3\n",
        b"2 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3\n",
        b"E1121 20:31:53.9 22 coordination_service.cc:1549] Use error polling to propagate: UNAVAILABLE:\n",
        b"1\n",
        b":UNAVAILABLE:Stream removed (Socket closed)\n",
        b"=== Source Location Trace: ===\n",
        b"external/xla+/xla/util.h:302\n",
        b". This is only expected if one of the tasks is unhealthy.\n",
        b"W1121 20:31:40.8 2175 preemption_sync_manager.cc:147] Failed to retrieve preemption notice\n",
    ]
    shown = [b"oneDNN is on\n", b"free(): invalid pointer\n", b"12 apples\n"]
    message = native_output.LOST.encode() + b"\n"
    assert list(native_output.passed_on([*chatter, *shown])) == shown
    assert list(native_output.passed_on([shown[0], *chatter, fatal, b"*** stack\n", fatal])) == [shown[0], message]
    assert list(native_output.passed_on([shown[0], b"\x01error: why\n", fatal, shown[0]])) == [
        shown[0],
        b"error: why\n",
    ]
