"""This module tests the files of stopped and damaged runs, and how the runs continue (see also tests/faults.py)."""

import json
import os
import shutil
import signal
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from configs import digits
from score_sde.core import files
from score_sde.core.errors import Stopped, StorageError
from score_sde.data import Records
from score_sde.experiment import Checkpoints, TrainState, digest, items_of
from score_sde.jobs import Action, train
from score_sde.jobs.log import Log, read_records


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = digits.get_config("vp")
    config.network = dict(name="tests.few_digits.Affine")
    config.data.update(dir=str(tmp_path_factory.mktemp("data")), batch_size=16)
    config.train.update(
        steps=8, log_every=4, eval_every=4, sample_every=0, checkpoint_every=2, keep=dict(last=3, every=0)
    )
    config.sample.update(n=4, batch_size=4, grid=dict(name="default", n=3))
    return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """Return the workdir of an uninterrupted run, which has checkpoints of the steps 4, 6 and 8."""
    workdir = tmp_path_factory.mktemp("whole")
    train(config, workdir)
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def outcome(workdir):
    """Return the digests of the last checkpoint, and the log without the seconds."""
    about = json.loads((workdir / "checkpoints" / "8" / "about" / "metadata").read_text())
    log = [{k: v for k, v in r.items() if k != "seconds_per_step"} for r in read_records(workdir / "train.jsonl")]
    return about["digests"], log


def state(step, value=1.0):
    tree = {"a": jnp.full((3, 2), value), "b": {"c": jnp.arange(4, dtype=jnp.bfloat16)}}
    optimizer = (tree, jnp.zeros((), jnp.int32))
    return TrainState(jnp.asarray(step, jnp.int32), tree, {"ema": tree, "slow": tree}, optimizer, ())


def templates():
    return items_of(state(0))


needs_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread only"
)


@needs_main_thread
@pytest.mark.parametrize("at", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_sigterm_saves_at_once_and_the_run_goes_on_as_if_nothing_had_been(config, whole, tmp_path, monkeypatch, at):
    """The checkpoint keeps the losses that the log does not contain yet, so the resumed run has the same log."""
    before = signal.getsignal(signal.SIGTERM)
    due = Action.is_due

    def interrupt(self, step, last):
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return due(self, step, last)

    with monkeypatch.context() as patched:
        patched.setattr(Action, "is_due", interrupt)
        with pytest.raises(Stopped, match=f"step {at} is saved"):
            train(config, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert ss.load(tmp_path).step == at
    assert [r["step"] for r in read_records(tmp_path / "train.jsonl")] == ([2] if at == 3 else [2, 4, 4])
    train(config, tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(config, whole, run, capsys):
    for step, name in ((8, "params"), (6, "optimizer")):
        path = max((run / "checkpoints" / str(step) / name).rglob("*"), key=lambda p: p.stat().st_size)
        path.write_bytes(path.read_bytes()[:-7])
    (run / "checkpoints" / "9").mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ss.load(run, average=None).step == 6  # Loading does not read the damaged optimizer.
    message = str(caught[0].message)
    assert "step 9: its folder is empty" in message and "step 8: params/" in message and "bytes instead of" in message
    with pytest.raises(ss.InputError, match=r"checkpoint of step 8 in .* is not whole: params"):
        ss.load(run, step=8, average=None)
    train(config, run)
    captured = capsys.readouterr()
    assert "resuming from step 4 of 8" in captured.out
    assert captured.err.count("\n") == 1 and "incomplete checkpoints" in captured.err
    assert sorted(p.name for p in (run / "broken").iterdir()) == ["6", "8", "9"]
    assert outcome(run) == outcome(whole)


def test_flipped_bits_are_seen_without_the_list_of_files_too(run):
    """The digests reveal damage where the list of files is missing, which happens if a run is killed."""
    good = {step: ss.load(run, step=step).digest for step in (4, 6, 8)}
    assert len(set(good.values())) == 3
    rng = np.random.default_rng(0)
    folder = run / "checkpoints" / "8"
    (folder / "about" / "files.json").unlink()
    data = sorted((p for p in (folder / "averages.ema").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)[-3:]
    for path in data:
        content = path.read_bytes()
        flipped = bytearray(content)
        for place in rng.integers(0, len(content), 64):
            flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ss.load(run)
        assert model.digest == good[model.step]
        assert digest({"network": model.denoiser.params}) == model.digest
        path.write_bytes(content)
    assert ss.load(run).step == 8


def test_the_digest_sees_every_change():
    tree = state(0).params
    changes = [
        {**tree, "a": tree["a"].at[2, 1].set(np.nextafter(np.float32(1), np.float32(2)))},
        {**tree, "a": tree["a"].T},
        {**tree, "a": tree["a"].astype(jnp.float16)},
        {"b": tree["b"], "d": tree["a"]},
        {"a": tree["a"]},
    ]
    digests = {digest(t) for t in (tree, *changes)}
    assert len(digests) == 6
    assert digest(jax.tree.map(np.asarray, tree)) == digest(tree)


def test_where_no_checkpoint_is_whole_nothing_is_touched(config, run):
    for step in ("4", "6", "8"):
        shutil.rmtree(run / "checkpoints" / step / "params")
    before = sorted(p.relative_to(run) for p in run.rglob("*"))
    with pytest.raises(ss.InputError, match=r"no whole checkpoint .step 8: params.* is missing; step 6: .*move"):
        train(config, run)
    assert sorted(p.relative_to(run) for p in run.rglob("*")) == before


def test_unfinished_folders_are_swept_up(config, whole, run):
    shutil.rmtree(run / "checkpoints" / "8")
    (run / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    (run / "checkpoints" / "8.orbax-checkpoint-tmp" / "part").write_text("x")
    train(config, run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["4", "6", "8"]
    assert outcome(run) == outcome(whole)


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    usage = shutil.disk_usage
    words = r"step 2 could not be written .*No space left.*the checkpoint of step 1 is safe"
    with pytest.raises(StorageError, match=words), Checkpoints(tmp_path, last=2) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.wait()
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=10))
        checkpoints.save(state(2, 2.0))
    monkeypatch.undo()
    with Checkpoints(tmp_path) as checkpoints:
        restored, broken = checkpoints.newest(templates())
        assert restored.step == 1 and not broken
        checkpoints.save(state(2, 2.0), notes={"pending": [{"loss": 0.1}]})
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.newest(templates())
        assert restored.step == 2 and restored.notes == {"pending": [{"loss": 0.1}]}
        np.testing.assert_array_equal(restored.items["params"]["a"], 2.0)


def test_what_the_storage_raises_is_told_in_one_line(tmp_path):
    """The next save raises the error of a write in the background."""
    checkpoints = Checkpoints(tmp_path)

    wait = checkpoints._manager.wait_until_finished

    def fail():
        wait()
        raise ValueError("RESOURCE_EXHAUSTED:\nthe disk")

    checkpoints.save(state(1))
    checkpoints._manager.wait_until_finished = fail
    with pytest.raises(StorageError, match=r"step 1 could not be written .*RESOURCE_EXHAUSTED: the disk"):
        checkpoints.save(state(2))
    checkpoints._manager.wait_until_finished = wait
    checkpoints.__exit__(None, None, None)


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(1))
        with pytest.raises(ss.DivergenceError, match=r"After step 2 the values of params are not finite"):
            checkpoints.save(state(2, np.nan))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]


def test_a_workdir_belongs_to_one_run(config, run, tmp_path):
    with files.exclusive(run):
        with pytest.raises(ss.InputError, match=r"Another run uses .*run: wait"):
            train(config, run)
        assert ss.load(run).step == 8  # Reading needs no lock.
    with files.exclusive(run):
        pass
    with pytest.raises(RuntimeError), files.exclusive(tmp_path / "new"):
        raise RuntimeError
    assert not (tmp_path / "new").exists()


class Damaged:
    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index == 11:
            raise RuntimeError("hash mismatch")
        return {"values": np.full((8, 8, 1), index % 17, np.uint8), "label": np.int64(index % 10)}


def test_a_record_that_cannot_be_read_is_named(config, tmp_path, monkeypatch):
    monkeypatch.setattr("score_sde.data.Digits.source", lambda *_: Records(Damaged(), "digits, split train", tmp_path))
    longer = config.copy_and_resolve_references()
    longer.train.update(steps=40, eval_every=0)
    with pytest.raises(ss.InputError, match=r"Record 11 of digits, split train cannot be read .*hash mismatch"):
        train(longer, tmp_path / "run")


def test_a_log_that_cannot_be_written_is_an_error_at_once(tmp_path, monkeypatch):
    """The main thread writes the TensorBoard file; an error of another thread would be lost."""
    threads = threading.active_count()

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left"), Log(tmp_path, step=0) as log:
        log.write(1, loss=1.0)
        log.write_picture(1, "samples", np.zeros((8, 8, 3), np.uint8))
        assert threading.active_count() == threads
        monkeypatch.setattr(log._board._writer, "flush", full)
        log.write(2, loss=0.5)
    assert [record["step"] for record in read_records(tmp_path / "train.jsonl")] == [1, 2]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_step_is_saved_or_an_error(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(3))
        with pytest.raises(StorageError, match=r"step 2 could not be written .*a checkpoint of step 3 exists already"):
            checkpoints.save(state(2))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3"]


def test_altered_notes_are_seen(tmp_path):
    with Checkpoints(tmp_path, last=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), notes={"pending": [{"loss": 0.25}]})
    about = tmp_path / "checkpoints" / "2" / "about"
    (about / "files.json").unlink()
    (about / "metadata").write_text((about / "metadata").read_text().replace("0.25", "0.35"))
    with Checkpoints(tmp_path) as checkpoints:
        restored, broken = checkpoints.newest(templates())
    assert restored.step == 1 and "notes are not what was saved" in broken[2]
