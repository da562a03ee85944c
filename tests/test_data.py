"""The digits against scikit-learn, the transform by change of variables, and the order of reading."""

import concurrent.futures
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import score_sde as ss
from score_sde.data import Arrays, Digits, QuantizedTransform, all_examples, cache_dir, read, training_batches


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return Digits(tmp_path_factory.mktemp("data"))


def test_digits_are_scikit_learns_in_its_order(digits):
    train, test = (all_examples(digits.source(split)) for split in ("train", "test"))
    assert len(train["label"]) == 1500
    assert len(test["label"]) == 297
    images = np.concatenate([train["image"], test["image"]])
    assert images.dtype == np.uint8
    assert images.shape == (1797, *digits.shape)
    np.testing.assert_array_equal(images[..., 0], load_digits().images)
    np.testing.assert_array_equal(np.concatenate([train["label"], test["label"]]), load_digits().target)
    assert images.max() == digits.transform.maximum


def test_data_are_written_once_and_leave_nothing_beside(digits):
    digits.source("train")
    stamp = {p: p.stat().st_mtime_ns for p in digits.dir.rglob("*")}
    digits.source("test")
    assert {p: p.stat().st_mtime_ns for p in digits.dir.rglob("*")} == stamp
    assert [p.name for p in digits.dir.iterdir()] == ["digits"]


def _read(folder):
    return len(Digits(folder).source("train"))


@pytest.mark.slow
def test_two_processes_may_prepare_at_once(tmp_path):
    import multiprocessing

    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_read, [tmp_path] * 2)) == [1500, 1500]
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_a_failed_preparation_leaves_nothing(tmp_path, monkeypatch):
    from score_sde.data.digits_builder import DigitsBuilder

    def fail(self, start, stop):
        raise OSError("No space left on device")
        yield

    monkeypatch.setattr(DigitsBuilder, "_generate_examples", fail)
    with pytest.raises(OSError, match="No space left"):
        Digits(tmp_path).source("train")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert len(Digits(tmp_path).source("train")) == 1500


def test_the_cache_is_the_users(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == pathlib.Path("/somewhere/score_sde")
    assert Digits(None).dir == Digits("").dir == pathlib.Path("/somewhere/score_sde/data")


class Numbers:
    """Image i is an image of i, not symmetric."""

    def __init__(self, n=10):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"image": np.array([[[i], [i + 100]]]), "label": i}


def take(n, **options):
    return list(itertools.islice(training_batches(Numbers(), 4, **options), n))


def test_every_epoch_has_every_example_in_another_order():
    labels = np.concatenate([batch["label"] for batch in take(10, seed=0)]).reshape(4, 10)
    for epoch in labels:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in labels}) == 4
    assert all(batch["image"][0, 0, 0, 0] == batch["label"][0] for batch in take(3, seed=0))


def test_batch_k_is_a_function_of_seed_and_k():
    whole, tail, other = take(9, seed=1, flip=True), take(4, seed=1, start=5, flip=True), take(9, seed=2, flip=True)
    for a, b in zip(whole[5:], tail):
        np.testing.assert_array_equal(a["image"], b["image"])
    assert any(not np.array_equal(a["label"], b["label"]) for a, b in zip(whole, other))


@pytest.mark.parametrize("rows", [[0, 1], [2, 3], [3], [1, 2]])
def test_a_process_reads_its_rows_and_no_others(rows):
    """Before anything is decoded, and as they stand in the whole batch, flips too."""
    seen = []

    class Watched(Numbers):
        def __getitem__(self, i):
            seen.append(i)
            return super().__getitem__(i)

    part = training_batches(Watched(), 4, seed=1, flip=True, rows=np.array(rows))
    for whole, mine in zip(take(7, seed=1, flip=True), itertools.islice(part, 7)):
        for name in whole:
            np.testing.assert_array_equal(mine[name], whole[name][rows])
    part.close()
    ahead = 8 + 4  # batches that are read in the background
    assert 7 * len(rows) <= len(seen) <= (7 + ahead) * len(rows)


def test_sources_in_memory_are_read_as_others_are():
    numbers = all_examples(Numbers())
    for start in (0, 3):
        options = {"seed": 5, "start": start, "flip": True}
        for a, b in zip(take(6, **options), training_batches(Arrays(**numbers), 4, **options)):
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(read(Arrays(**numbers), [7, 2])["label"], read(Numbers(), [7, 2])["label"])


def test_batches_may_be_larger_than_an_epoch():
    labels = next(training_batches(Numbers(3), 8, seed=0))["label"]
    assert sorted(labels[:3]) == sorted(labels[3:6]) == [0, 1, 2]


def test_flips_are_half_of_the_time_and_per_example():
    images = np.concatenate([batch["image"] for batch in take(250, seed=0, flip=True)])
    flipped = images[:, 0, 0, 0] > images[:, 0, 1, 0]
    assert abs(flipped.mean() - 0.5) < 4 / np.sqrt(4 * 1000)
    assert not any(b["image"][:, 0, 0, 0].max() > 10 for b in take(20, seed=0))


def test_an_empty_source_is_refused():
    with pytest.raises(ss.InputError, match="empty"):
        next(training_batches(Numbers(0), 4, seed=0))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 1000), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_whole_numbers_survive_the_round_trip(maximum, fractions):
    transform = QuantizedTransform(maximum)
    values = np.round(np.array(fractions) * maximum).astype(int).reshape(2, 2)
    x = transform.forward(values)
    assert float(jnp.abs(x).max()) <= 1
    np.testing.assert_array_equal(transform.quantize(x), values)
    np.testing.assert_allclose(transform.inverse(x), values, atol=1e-4 * maximum)
    noisy = transform.dequantize(values, jax.random.split(jax.random.key(0), 2))
    assert np.all(np.abs(noisy - values) <= 0.5)
    # u is drawn below 1/2, but values + u is rounded to float32, which may land on the boundary.
    inside = np.abs(np.asarray(noisy) - values) < 0.5
    np.testing.assert_array_equal(np.asarray(transform.quantize(transform.forward(noisy)))[inside], values[inside])


def test_dequantisation_is_uniform_and_keyed():
    transform, keys = QuantizedTransform(16), jax.random.split(jax.random.key(0), 5000)
    u = np.asarray(transform.dequantize(np.zeros((5000, 4), int), keys))
    assert abs(u.mean()) < 4 * np.sqrt(1 / 12 / u.size)
    assert abs(u.var() * 12 - 1) < 4 * np.sqrt(0.8 / u.size)
    np.testing.assert_array_equal(transform.dequantize(np.zeros((3, 4), int), keys[7:10]), u[7:10])
    np.testing.assert_array_equal(transform.dequantize(np.arange(4)[None]), np.arange(4.0)[None])


def test_log_determinant_by_differentiation(x64):
    transform = QuantizedTransform(16)
    values = np.random.default_rng(0).uniform(0, 16, (3, 2, 2))
    jacobian = jax.vmap(jax.jacfwd(transform.forward))(values).reshape(3, 4, 4)
    np.testing.assert_allclose(transform.log_det(values), np.linalg.slogdet(jacobian)[1], rtol=1e-12)


def test_samples_outside_the_range_are_clipped():
    got = QuantizedTransform(16).quantize(jnp.array([[-3.0, -1.0, 1.0, 1.2]]))
    assert got.tolist() == [[0, 0, 16, 16]]
    assert got.dtype == np.uint8
    with pytest.raises(ss.InputError, match="maximum=0"):
        QuantizedTransform(0)
