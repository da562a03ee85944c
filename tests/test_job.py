"""A job computes each example exactly once, even after an interruption, a stop or damage."""

import json
import os
import signal
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import score_sde as ss
from score_sde.core import progress as progress_
from score_sde.core.errors import Stopped
from score_sde.jobs import draw_samples, evaluate, train
from score_sde.jobs import runner as room
from score_sde.jobs.parts import Parts
from score_sde.parallel import processes
from tests import small_job


def squares(numbers):
    return {"square": numbers.astype(float) ** 2, "pair": np.stack([numbers, -numbers], axis=1)}


def run(folder, n=23, size=4, compute=squares, identity=None):
    parts = Parts(folder, "squares", {"of": 1} if identity is None else identity)
    room.run(parts, n, size, compute, "numbers")
    parts.merge(folder / "squares.npz", n)
    return parts


def check(folder, n=23):
    with np.load(folder / "squares.npz") as arrays:
        assert arrays.files == ["index", "square", "pair"]
        assert arrays["index"].tolist() == list(range(n))
        assert arrays["square"].tolist() == [i**2 for i in range(n)]
        assert arrays["pair"].tolist() == [[i, -i] for i in range(n)]


def stop_at(call, error=KeyboardInterrupt):
    """Return a function like `squares`; its call number `call` fails."""
    calls = iter(range(1000))

    def compute(numbers):
        if next(calls) == call:
            raise error
        return squares(numbers)

    return compute


@pytest.mark.parametrize("size", [1, 4, 23, 100])
def test_a_job_in_one_go(tmp_path, size):
    parts = run(tmp_path, size=size)
    check(tmp_path)
    # Other tools read these entries.
    with np.load(sorted(parts.folder.iterdir())[-1]) as part:
        assert part["index"][-1] == 22 and part["square"][-1] == 22**2 and part["seconds"] >= 0
    parts.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["squares.npz"]


@pytest.mark.parametrize("stops", [[0], [3], [1, 0, 2], [5]])
def test_a_job_that_is_killed_ends_with_the_same_file(tmp_path, stops):
    asked = []

    def counted(numbers):
        asked.extend(numbers.tolist())
        return squares(numbers)

    for call in stops:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", compute=stop_at(call))
    run(tmp_path / "parts", compute=counted)
    run(tmp_path / "whole")
    assert (tmp_path / "parts" / "squares.npz").read_bytes() == (tmp_path / "whole" / "squares.npz").read_bytes()
    assert len(asked) == len(set(asked)) == 23 - 4 * sum(stops)


def test_a_job_may_go_on_with_another_batch_size(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, compute=stop_at(2))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, size=7, compute=stop_at(1))
    run(tmp_path, size=2)
    check(tmp_path)


def test_sigterm_keeps_what_is_done(tmp_path):
    def compute(numbers):
        if numbers[0] == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return squares(numbers)

    with pytest.raises(Stopped, match=r"stopped by SIGTERM: .*squares.parts-\w+ keeps what is done"):
        run(tmp_path, compute=compute)
    assert Parts(tmp_path, "squares", {"of": 1}).done(23).sum() == 12
    run(tmp_path)
    check(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "renamed", "text"])
def test_a_damaged_part_is_done_again(tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, compute=stop_at(4))
    part = next(tmp_path.glob("*parts*/00000004.npz"))
    content = part.read_bytes()
    if damage == "renamed":
        part.rename(part.with_name("00000005.npz"))
    else:
        flipped = content[:200] + bytes([content[200] ^ 4]) + content[201:]
        part.write_bytes({"cut": content[:-40], "flipped": flipped, "empty": b"", "text": b"no archive"}[damage])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tmp_path)
    assert any("cannot be read" in str(warning.message) for warning in caught)
    check(tmp_path)


def test_parts_that_overlap_are_not_counted(tmp_path):
    parts = Parts(tmp_path, "squares", {"of": 1})
    parts.write(0, squares(np.arange(4)), 1.0)
    parts.write(3, squares(np.arange(3, 8)), 1.0)
    with pytest.raises(ss.InputError, match="holds 9 results of 8 examples, some of them twice"):
        parts.merge(tmp_path / "squares.npz", 8)
    assert not (tmp_path / "squares.npz").exists()


def test_parts_of_another_kind_are_not_joined(tmp_path):
    parts = Parts(tmp_path, "squares", {"of": 1})
    parts.write(0, squares(np.arange(4)), 1.0)
    parts.write(4, squares(np.arange(4, 8)) | {"square": np.zeros(4, np.float32)}, 1.0)
    with pytest.raises(ss.InputError, match=r"00000004.npz holds square of another dtype or shape than 00000000.npz"):
        parts.merge(tmp_path / "squares.npz", 8)
    assert not (tmp_path / "squares.npz").exists()


def test_a_job_may_want_fewer_than_one_before_it(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, n=40, compute=stop_at(8))
    run(tmp_path, n=23)
    run(tmp_path / "alone", n=23)
    assert (tmp_path / "squares.npz").read_bytes() == (tmp_path / "alone" / "squares.npz").read_bytes()


def test_results_that_are_not_seen_are_waited_for(tmp_path, monkeypatch):
    """A job waits for results of other hosts, which a network file system may show late, but not for ever."""
    parts = Parts(tmp_path, "squares", {"of": 1})
    parts.write(0, squares(np.arange(4)), 1.0)
    monkeypatch.setattr("time.sleep", lambda _: parts.write(4, squares(np.arange(4, 8)), 1.0))
    parts.merge(tmp_path / "squares.npz", 8)
    check(tmp_path, 8)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("score_sde.jobs.parts._WAIT_S", 0.0)
    with pytest.raises(ss.InputError, match="shows 8 results of 9 examples on this host: run the same command again"):
        parts.merge(tmp_path / "squares.npz", 9)


def test_other_settings_have_other_parts(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, compute=stop_at(4), identity={"rtol": 1e-3})
    assert not Parts(tmp_path, "squares", {"rtol": 1e-4}).done(23).any()
    assert Parts(tmp_path, "squares", {"rtol": 1e-3}).done(23).sum() == 16


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 50))
def test_batches_cover_what_is_missing_once(done, size):
    done = np.asarray(done, bool)
    cut = room.batches(done, size)
    assert np.concatenate([*cut, np.zeros(0, int)]).tolist() == np.flatnonzero(~done).tolist()
    for batch in cut:
        assert 0 < len(batch) <= size and np.all(np.diff(batch) == 1)


def test_each_process_does_its_share(tmp_path, monkeypatch):
    """Two processes compute the 6 batches of 23 examples by 4 alternately.

    The processes run one after the other here, and do not wait for each other.
    """
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "barrier", lambda name: None)
    monkeypatch.setattr(processes, "from_first", lambda array: np.zeros_like(array))
    asked = {}
    for index in (1, 0):
        monkeypatch.setattr(processes, "index", lambda index=index: index)
        monkeypatch.setattr(processes, "is_first", lambda index=index: index == 0)
        asked[index] = []

        def compute(numbers, index=index):
            asked[index].extend(numbers.tolist())
            return squares(numbers)

        room.run(Parts(tmp_path, "squares", {"of": 1}), 23, 4, compute, "numbers")
    assert asked[0] == [*range(0, 4), *range(8, 12), *range(16, 20)]
    assert asked[1] == [*range(4, 8), *range(12, 16), *range(20, 23)]
    Parts(tmp_path, "squares", {"of": 1}).merge(tmp_path / "squares.npz", 23)
    check(tmp_path)
    # Each process has a batch if there are enough examples.
    assert [room.equal_batches(n, 150) for n in (1, 7, 297, 301)] == [1, 4, 149, 76]


def test_times_are_told_in_words():
    assert [progress_.in_words(t) for t in (0.4, 75, 3661, 100_000)] == [
        "0 s",
        "1 min 15 s",
        "1 h 1 min",
        "27 h 46 min",
    ]


def test_progress_is_told_with_the_time_left(tmp_path, monkeypatch, capsys):
    """The job prints a line if a minute has passed; here every call takes 40 seconds."""
    now = iter(range(0, 10**6, 40))
    monkeypatch.setattr(progress_.time, "perf_counter", lambda: float(next(now)))
    with progress_.Progress("examples", 100, 20, 80) as progress:
        for _ in range(4):
            progress.add(20)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["60 of 100 examples, about 1 min 20 s left", "100 of 100 examples, about 0 s left"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = small_job.get_config()
    config.data.dir = str(tmp_path_factory.mktemp("data"))
    config.train.update(sample_every=0)
    workdir = tmp_path_factory.mktemp("run")
    train(config, workdir)
    return config, workdir


def test_several_checkpoints_in_one_job(trained, capsys):
    config, workdir = trained
    config = config.copy_and_resolve_references()
    config.eval.checkpoints, config.sample.checkpoints = "20,10", "all"
    evaluate(config, workdir)
    draw_samples(config, workdir)
    capsys.readouterr()
    results = {
        step: json.loads((workdir / "eval" / f"step_00000{step}" / "likelihood.json").read_text()) for step in (10, 20)
    }
    assert [results[step]["checkpoint_step"] for step in (10, 20)] == [10, 20]
    assert results[10]["bits_per_dim"] != results[20]["bits_per_dim"]
    config.eval.checkpoints = config.sample.checkpoints = "newest"
    evaluate(config, workdir)
    draw_samples(config, workdir)
    newest = json.loads((workdir / "eval" / "likelihood.json").read_text())
    assert newest["bits_per_dim"] == pytest.approx(results[20]["bits_per_dim"], abs=1e-6)
    with np.load(workdir / "samples" / "samples.npz") as a, np.load(workdir / "samples/step_0000020/samples.npz") as b:
        np.testing.assert_array_equal(a["images"], b["images"])
    with np.load(workdir / "samples/step_0000010/samples.npz") as b:
        assert b["images"].shape == (11, 8, 8, 1)
    capsys.readouterr()
    draw_samples(config, workdir)
    assert "nothing left to sample" in capsys.readouterr().out
    before = (workdir / "samples" / "samples.json").read_text()
    config.sample.seed = 1  # samples of other settings have their own folder
    draw_samples(config, workdir)
    assert "sampled 11 images" in capsys.readouterr().out
    assert (workdir / "samples" / "samples.json").read_text() == before
    (other,) = (workdir / "samples").glob("samples-*/samples.json")
    assert json.loads(other.read_text())["seed"] == 1 and (other.parent / "samples.npz").exists()
    draw_samples(config, workdir)
    assert f"nothing left to sample: {other.parent} has 11" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("10,15", "has no checkpoint of step 15, which eval.checkpoints requires; existing: 10, 20"),
        ("latest", "eval.checkpoints is 'latest'; expected 'newest'"),
        ("1.5", "eval.checkpoints is '1.5'; expected 'newest'"),
    ],
)
def test_checkpoints_that_are_not_there(trained, steps, words):
    config, workdir = trained
    config = config.copy_and_resolve_references()
    config.eval.checkpoints = steps
    with pytest.raises(ss.InputError, match=words):
        evaluate(config, workdir)
