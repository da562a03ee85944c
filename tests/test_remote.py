"""This module tests workdirs at an address: an incomplete checkpoint does not count, and no file is lost.

The address is in fsspec's memory filesystem.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

import score_sde as ss
from score_sde.core import remote
from score_sde.core.errors import StorageError
from score_sde.experiment import Experiment, read_config
from score_sde.jobs import checkpoints, draw_samples, evaluate, train
from tests import small_job

fsspec = pytest.importorskip("fsspec")
ADDRESS = "memory://bucket/run"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Yield an empty store, on a machine without local copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = small_job.get_config()
    config.data.dir = str(tmp_path_factory.mktemp("data"))
    config.train.update(
        steps=8, log_every=4, eval_every=0, sample_every=0, checkpoint_every=4, keep=dict(last=1, every=0)
    )
    config.eval.what = "HeldOutLoss"
    return config


def names(fs):
    return {path.removeprefix("/bucket/run/") for path in fs.find("/bucket/run")}


def another_machine(tmp_path):
    shutil.rmtree(tmp_path / "cache")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("gs://bucket/run", True),
        (pathlib.Path("s3://bucket/run"), True),
        ("memory://run", True),
        ("runs/digits", False),
        ("/tmp/run", False),
        ("C:/runs/digits", False),
        ("runs/a:b", False),
        (pathlib.Path("~/run"), False),
    ],
)
def test_what_is_an_address(path, is_one):
    assert remote.is_address(path) == is_one


def test_jobs_on_one_machine_after_another_are_as_on_a_disk(store, config, tmp_path):
    train(config, tmp_path / "local")
    draw_samples(config, tmp_path / "local")

    config = config.copy_and_resolve_references()
    config.train.steps = 4
    train(config, ADDRESS)
    assert read_config(ADDRESS).train.steps == 4
    another_machine(tmp_path)
    config.train.steps = 8
    train(config, ADDRESS)
    another_machine(tmp_path)
    evaluate(config, ADDRESS)
    draw_samples(config, ADDRESS)

    ours, theirs = ss.load(ADDRESS), ss.load(tmp_path / "local")
    assert (ours.step, ours.digest) == (8, theirs.digest)
    assert {"checkpoints/8.json", "eval/loss.json", "samples/samples.npz", "train.jsonl"} <= names(store)
    assert not any(name.startswith("checkpoints/4") for name in names(store))  # config.train.keep keeps one checkpoint.
    local_images = np.load(tmp_path / "local" / "samples" / "samples.npz")["images"]
    with store.open("/bucket/run/samples/samples.npz") as file:
        np.testing.assert_array_equal(np.load(file)["images"], local_images)
    evaluate(config, ADDRESS)  # The fetched result leaves nothing to evaluate.


class Broken(Exception):
    """`Broken` is the error of a store that is out of reach."""


def breaking(monkeypatch, fs, after):
    """Let the store accept `after` more files, and raise `Broken` for all later files."""
    remaining = iter(range(after))
    put, pipe = type(fs).put_file, type(fs).pipe_file

    def counted(write):
        def write_or_break(self, *arguments, **options):
            if next(remaining, None) is None:
                raise Broken("no connection")
            return write(self, *arguments, **options)

        return write_or_break

    monkeypatch.setattr(type(fs), "put_file", counted(put))
    monkeypatch.setattr(type(fs), "pipe_file", counted(pipe))


@pytest.mark.parametrize("after", [1, 4, 12, 25])
def test_a_store_that_goes_away_leaves_whole_checkpoints_alone(store, config, tmp_path, monkeypatch, after):
    with monkeypatch.context() as patch:
        breaking(patch, store, after)
        with pytest.raises(
            StorageError, match=r"memory://bucket/run cannot be written \(Broken: no connection\); all files are"
        ):
            train(config, ADDRESS)
    lists = [name for name in names(store) if name.startswith("checkpoints/") and name.endswith(".json")]
    lists = [name for name in lists if name.count("/") == 1]
    for name in lists:  # A checkpoint with a list must have all listed files.
        for file in json.loads(store.cat_file(f"/bucket/run/{name}")):
            assert f"{name.removesuffix('.json')}/{file}" in names(store)
    # The local copy is complete, so the same command sends the missing files.
    train(config, ADDRESS)
    another_machine(tmp_path)
    assert ss.load(ADDRESS).step == 8


def test_a_checkpoint_that_lacks_a_file_does_not_exist_and_the_run_goes_on(store, config, tmp_path):
    train(config, ADDRESS)
    digest = ss.load(ADDRESS).digest
    another_machine(tmp_path)
    store.rm_file("/bucket/run/" + max(name for name in names(store) if name.startswith("checkpoints/8/")))
    with pytest.raises(ss.InputError, match="has no checkpoint"):
        ss.load(ADDRESS)
    train(config, ADDRESS)
    another_machine(tmp_path)
    assert ss.load(ADDRESS).digest == digest


def test_what_was_not_sent_is_put_aside_where_another_machine_went_on(store, config, tmp_path):
    cache = tmp_path / "cache" / "score_sde"
    with remote.here(ADDRESS, cache, writes=True) as folder:
        (folder / "a.txt").write_text("one")
    ahead = remote.Copy(ADDRESS, cache)
    ahead.open(writes=True)
    (ahead.folder / "a.txt").write_text("never sent")  # The process is killed before the file is sent.
    with remote.here(ADDRESS, tmp_path / "other", writes=True) as folder:
        assert (folder / "a.txt").read_text() == "one"
        (folder / "a.txt").write_text("two")
    with (
        pytest.warns(
            UserWarning, match=r"Another run has written to .*; the files that were not sent from here are in .*unsent"
        ),
        remote.here(ADDRESS, cache, writes=False) as folder,
    ):
        assert (folder / "a.txt").read_text() == "two"
    (aside,) = (cache / "workdirs").glob("*-unsent-*")
    assert (aside / "a.txt").read_text() == "never sent"


def test_what_is_removed_here_is_removed_there(store, tmp_path):
    with remote.here(ADDRESS, tmp_path / "cache", writes=True) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b.txt").write_text("text")
        (folder / ".hidden").write_text("text")
    assert names(store) == {"a/b.txt", ".token"}
    with remote.here(ADDRESS, tmp_path / "cache", writes=True) as folder:
        (folder / "a" / "b.txt").unlink()
    with remote.here(ADDRESS, tmp_path / "cache", writes=True) as folder:
        (folder / "c.txt").write_text("text")
        (folder / "d.txt").write_text("text")
        (folder / "d.txt").unlink()
    assert names(store) == {"c.txt", ".token"}


def test_a_name_that_leads_out_of_the_workdir_is_refused(store, tmp_path, monkeypatch):
    store.pipe_file("/outside.txt", b"text")
    monkeypatch.setattr(remote.Copy, "_sizes", lambda copy: {"a/../../../outside.txt": 4})
    with pytest.raises(ss.InputError, match="leads out of the workdir"):
        remote.Copy(ADDRESS, tmp_path / "cache").open(writes=False)
    assert not list(tmp_path.rglob("outside.txt"))


@pytest.mark.parametrize("address", ["nosuch://bucket/run", "gs://bucket/run"])
def test_a_store_that_is_not_installed_is_one_line(address, tmp_path, monkeypatch):
    def none(name, *_, **__):
        raise ImportError(f"no package for {name}")

    monkeypatch.setattr(fsspec.core, "get_filesystem_class", none)
    with pytest.raises(ss.InputError, match=rf"^{address} cannot be opened: .*pip install 'score_sde\[cloud\]'"):
        ss.load(address)


def test_several_processes_do_not_share_a_job_there(config, monkeypatch):
    monkeypatch.setattr(checkpoints.processes, "count", lambda: 2)
    with pytest.raises(ss.InputError, match="memory://bucket/run is an address, and 2 processes share the job"):
        evaluate(Experiment.from_config(config), ADDRESS)


def test_what_is_missing_at_the_end_is_not_taken_for_sent(store, tmp_path, monkeypatch):
    """A FileNotFoundError of a store that is out of reach is an error, and the files do not count as sent."""

    def gone(*arguments, **options):
        raise FileNotFoundError("no bucket")

    with (
        monkeypatch.context() as patch,
        pytest.raises(StorageError, match="no bucket"),
        remote.here(ADDRESS, tmp_path / "cache", writes=True) as folder,
    ):
        (folder / "a.txt").write_text("text")
        patch.setattr(type(store), "put_file", gone)
    assert not (folder / ".all-sent").exists()


def test_a_store_with_folders(tmp_path):
    """A store such as a disk, where a file needs an existing folder, holds workdirs too."""
    address = f"file://{tmp_path}/store/run"
    with remote.here(address, tmp_path / "one", writes=True) as folder:
        (folder / "checkpoints" / "5" / "params").mkdir(parents=True)
        (folder / "checkpoints" / "5" / "params" / "a").write_text("weights")
        (folder / "eval").mkdir()
        (folder / "eval" / "loss.json").write_text("{}")
    with remote.here(address, tmp_path / "two", writes=False) as folder:
        assert (folder / "checkpoints" / "5" / "params" / "a").read_text() == "weights"
        assert (folder / "eval" / "loss.json").read_text() == "{}"
    (tmp_path / "store" / "run" / "checkpoints" / "5.json").unlink()
    with remote.here(address, tmp_path / "three", writes=False) as folder:
        assert not (folder / "checkpoints").exists()
