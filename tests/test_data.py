"""The digits equal scikit-learn's, codecs obey the change of variables, and each batch is a function of the seed."""

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
from score_sde import data
from score_sde.data import Arrays, Digits, QuantizedCodec, all_examples, cache_dir, read, training_batches


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return Digits(tmp_path_factory.mktemp("data"))


def test_digits_are_scikit_learns_in_its_order(digits):
    train, test = (all_examples(digits.source(split)) for split in ("train", "test"))
    assert len(train["label"]) == 1500
    assert len(test["label"]) == 297
    images = np.concatenate([train["values"], test["values"]])
    assert images.dtype == np.uint8
    assert images.shape == (1797, *digits.shape)
    np.testing.assert_array_equal(images[..., 0], load_digits().images)
    np.testing.assert_array_equal(np.concatenate([train["label"], test["label"]]), load_digits().target)
    assert images.max() == digits.codec.maximum


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
    """`Numbers` has image i with the number i; the image is not symmetric."""

    def __init__(self, n=10):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"values": np.array([[[i], [i + 100]]]), "label": i}


READS = ss.Conditions(label=ss.Label(200))


def take(n, **options):
    return list(itertools.islice(training_batches(Numbers(), 4, reads=READS, **options), n))


def test_every_epoch_has_every_example_in_another_order():
    labels = np.concatenate([batch["cond"]["label"] for batch in take(10, seed=0)]).reshape(4, 10)
    for epoch in labels:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in labels}) == 4
    assert all(batch["values"][0, 0, 0, 0] == batch["cond"]["label"][0] for batch in take(3, seed=0))


def test_batch_k_is_a_function_of_seed_and_k():
    whole, tail, other = take(9, seed=1, flip=True), take(4, seed=1, start=5, flip=True), take(9, seed=2, flip=True)
    for a, b in zip(whole[5:], tail):
        np.testing.assert_array_equal(a["values"], b["values"])
    assert any(not np.array_equal(a["cond"]["label"], b["cond"]["label"]) for a, b in zip(whole, other))


@pytest.mark.parametrize("rows", [[0, 1], [2, 3], [3], [1, 2]])
def test_a_process_reads_its_rows_and_no_others(rows):
    """A process decodes its own rows only; the rows equal the rows of the whole batch, flips included."""
    seen = []

    class Watched(Numbers):
        def __getitem__(self, i):
            seen.append(i)
            return super().__getitem__(i)

    part = training_batches(Watched(), 4, seed=1, flip=True, rows=np.array(rows), reads=READS)
    for whole, mine in zip(take(7, seed=1, flip=True), itertools.islice(part, 7)):
        jax.tree.map(lambda ours, theirs: np.testing.assert_array_equal(ours, theirs[rows]), mine, whole)
    part.close()
    ahead = 8 + 4  # this number of batches is read in the background
    assert 7 * len(rows) <= len(seen) <= (7 + ahead) * len(rows)


def test_sources_in_memory_are_read_as_others_are():
    numbers = all_examples(Numbers())
    for start in (0, 3):
        options = {"seed": 5, "start": start, "flip": True}
        for a, b in zip(take(6, **options), training_batches(Arrays(**numbers), 4, reads=READS, **options)):
            jax.tree.map(np.testing.assert_array_equal, a, b)
    np.testing.assert_array_equal(read(Arrays(**numbers), [7, 2])["label"], read(Numbers(), [7, 2])["label"])


def test_batches_may_be_larger_than_an_epoch():
    labels = next(training_batches(Numbers(3), 8, seed=0, reads=READS))["cond"]["label"]
    assert sorted(labels[:3]) == sorted(labels[3:6]) == [0, 1, 2]


def test_flips_are_half_of_the_time_and_per_example():
    images = np.concatenate([batch["values"] for batch in take(250, seed=0, flip=True)])
    flipped = images[:, 0, 0, 0] > images[:, 0, 1, 0]
    assert abs(flipped.mean() - 0.5) < 4 / np.sqrt(4 * 1000)
    assert not any(b["values"][:, 0, 0, 0].max() > 10 for b in take(20, seed=0))


def test_an_empty_source_is_refused():
    with pytest.raises(ss.InputError, match="empty"):
        next(training_batches(Numbers(0), 4, seed=0))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 1000) | st.just(65_535), st.lists(st.floats(0, 1), min_size=4, max_size=4), st.booleans())
def test_whole_numbers_survive_the_round_trip(maximum, fractions, centered):
    codec = QuantizedCodec((2,), maximum, centered)
    values = np.round(np.array(fractions) * maximum).astype(int).reshape(2, 2)
    x, terms = codec.encode(values, None)
    low, high = codec.model_range
    assert low <= float(jnp.min(x)) and float(jnp.max(x)) <= high and terms["dequantization"] is None
    np.testing.assert_array_equal(codec.quantize(codec.decode(x)), values)
    np.testing.assert_allclose(codec.decode(x), values, atol=1e-4 * maximum)
    noisy = codec.decode(codec.encode(values, jax.random.split(jax.random.key(0), 2))[0])
    distance = np.abs(np.asarray(noisy) - values)
    assert np.all(distance <= 0.5 + 1e-6 * maximum)
    np.testing.assert_array_equal(codec.quantize(noisy), values)
    codec.check(values)


def test_every_draw_of_16_bits_rounds_back_and_more_levels_are_refused():
    codec, values = QuantizedCodec((1000,), 65_535), np.random.default_rng(0).integers(0, 65_536, (200, 1000))
    x, _ = codec.encode(values, jax.random.split(jax.random.key(0), 200))
    np.testing.assert_array_equal(codec.quantize(codec.decode(x)), values)
    # The uniform distribution on [-1/2, 1/2) has variance 1/12.
    noise = np.asarray(x, np.float64) * 65_535 / 2 + 65_535 / 2 - values
    assert abs(noise.var() * 12 - 1) < 0.01 and abs(noise.mean()) < 0.01
    for maximum in (65_536, 1.5, 0, -1, None):
        with pytest.raises(ss.InputError, match="whole number from 1 to 65535"):
            QuantizedCodec((2,), maximum)


def test_dequantisation_is_uniform_and_keyed():
    codec, keys = QuantizedCodec((4,), 16), jax.random.split(jax.random.key(0), 5000)

    def noise(values, keys):
        return np.asarray(codec.decode(codec.encode(values, keys)[0])) - values

    u = noise(np.zeros((5000, 4), int), keys)
    assert abs(u.mean()) < 4 * np.sqrt(1 / 12 / u.size)
    assert abs(u.var() * 12 - 1) < 4 * np.sqrt(0.8 / u.size)
    np.testing.assert_array_equal(noise(np.zeros((3, 4), int), keys[7:10]), u[7:10])


@pytest.mark.parametrize("centered", [True, False])
def test_the_scale_term_by_differentiation(x64, centered):
    codec = QuantizedCodec((2, 2), 16, centered)
    values = np.random.default_rng(0).uniform(0, 16, (3, 2, 2))
    jacobian = jax.vmap(jax.jacfwd(lambda value: codec.encode(value[None], None)[0][0]))(values).reshape(3, 4, 4)
    np.testing.assert_allclose(codec.encode(values, None)[1]["scale"], np.linalg.slogdet(jacobian)[1], rtol=1e-6)


def test_samples_outside_the_range_are_clipped():
    codec = QuantizedCodec((4,), 16)
    pixels = codec.quantize(codec.decode(jnp.array([[-3.0, -1.0, 1.0, 1.2]])))
    assert pixels.tolist() == [[0, 0, 16, 16]]
    assert pixels.dtype == np.uint8
    for maximum in (0, 1.5, -3):
        with pytest.raises(ss.InputError, match=f"maximum={maximum}"):
            QuantizedCodec((4,), maximum)


def test_examples_are_joined_with_the_conditions_that_are_read():
    """Other conditions are left out, text is parsed as declared, and a missing condition is marked as absent."""
    source = [
        {"values": np.zeros(2), "label": i, "caption": word, "absent": {"caption": i == 1}}
        for i, word in enumerate(["red", "", "blüe"])
    ]
    reads = ss.Conditions(caption=ss.Text(4))
    batch = data.as_batch(read(source, [2, 1, 0]), reads)
    assert batch["cond"].keys() == {"caption", "absent"}
    tokens = [list(word.encode())[:4] for word in ("blüe", "", "red")]
    np.testing.assert_array_equal(batch["cond"]["caption"]["tokens"], [t + [0] * (4 - len(t)) for t in tokens])
    assert batch["cond"]["caption"]["mask"].sum(axis=1).tolist() == [4, 0, 3]
    assert batch["cond"]["absent"]["caption"].tolist() == [False, True, False]
    assert data.as_batch(read(source, [0]), ss.Conditions())["cond"] is None
    with pytest.raises(ss.InputError, match="The examples have no 'depth'"):
        data.as_batch(read(source, [0]), ss.Conditions(depth=ss.Condition()))
    with pytest.raises(ss.InputError, match=r"\['label'\] has shape \(2,\) and .*expected \(2, 3\)"):
        data.as_batch(read(source, [0, 1]), ss.Conditions(label=ss.Condition(shape=(3,))))


def test_the_digest_of_data_sees_every_change():
    """A source has one digest, by number or in memory; another value, label, order or dtype changes the digest."""
    examples = all_examples(Numbers())
    digests = {data.digest(Numbers()), data.digest(Arrays(**examples))}
    assert len(digests) == 1
    for name, change in (
        ("values", examples["values"] + (np.arange(10) == 3)[:, None, None, None]),
        ("label", np.roll(examples["label"], 1)),
        ("values", examples["values"].astype(np.int32)),
        ("values", examples["values"][::-1]),
    ):
        digests.add(data.digest(Arrays(**examples | {name: change})))
    assert len(digests) == 5


class Scaled(data.ComputedCondition):
    """`Scaled` is the mean of the values times a random number, plus the label, of each example."""

    conditions = ss.Conditions(level=ss.Condition())
    needs = ("label",)

    def make(self, values, cond, keys):
        u = jax.vmap(jax.random.uniform)(keys)
        return cond | {"level": values.mean(axis=1) * (1 + u) + cond["label"]}


def test_conditions_are_computed_and_left_out_example_by_example():
    reads = ss.Conditions(level=ss.Condition(), label=ss.Label(10))
    conditioning = data.Conditioning(reads, (Scaled(),), (("level", 0.25), ("label", 0.1)))
    n = 4000
    values, label, keys = jnp.ones((n, 2)), jnp.arange(n) % 10, jax.random.split(jax.random.key(0), n)
    _, cond = conditioning(values, {"label": label, "other": label}, keys, train=True)
    assert cond.keys() == {"level", "label", "absent"}
    level = np.asarray(cond["level"] - label)
    assert level.min() >= 1 and level.max() <= 2 and abs(level.mean() - 1.5) < 4 * np.sqrt(1 / 12 / n)
    absent = {name: np.asarray(flags) for name, flags in cond["absent"].items()}
    for name, rate in (("level", 0.25), ("label", 0.1)):
        assert abs(absent[name].mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    both = (absent["level"] & absent["label"]).mean()  # independent of each other
    assert abs(both - 0.025) < 4 * np.sqrt(0.025 / n)
    _, some = conditioning(values[5:9], {"label": label[5:9]}, keys[5:9], train=True)
    jax.tree.map(lambda part, whole: np.testing.assert_array_equal(part, whole[5:9]), some, dict(cond))
    assert "absent" not in conditioning(values, {"label": label}, keys, train=False)[1]
    # A condition that is absent in the data stays absent.
    lacking = {"label": label, "absent": {"label": label == 3}}
    assert np.asarray(conditioning(values, lacking, keys, train=True)[1]["absent"]["label"])[
        np.asarray(label) == 3
    ].all()


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        ((("text", 0.1),), "data.drop names 'text', which the model does not read; it reads: label, size"),
        ((("label", 1.5),), "data.drop.label is 1.5; expected a probability"),
        ((("size", 0.1),), "the model requires 'size'"),
    ],
)
def test_what_cannot_be_left_out(drop, words):
    reads = ss.Conditions(label=ss.Label(3), size=ss.Condition(required=True))
    with pytest.raises(ss.InputError, match=words):
        data.Conditioning(reads, (), drop)


def test_caches_of_another_version_are_refused(tmp_path, monkeypatch):
    """A folder whose records have other names, as in version 0.1, is refused."""
    digits = Digits(tmp_path)
    digits.source("train")
    folder = tmp_path / "digits" / "2.0.0"
    for path in folder.glob("features.json"):
        path.write_text(path.read_text().replace('"values"', '"image"'))
    with pytest.raises(ss.InputError, match=r"(have image, label; expected values and label|cannot be read).*delete"):
        digits.source("test")


def test_flips_take_images_among_the_conditions_with_them():
    values = np.random.default_rng(0).integers(0, 9, (32, 4, 4, 1)).astype(np.uint8)
    source = data.Arrays(values=values, low=values.astype(np.float32), size=np.arange(32.0, dtype=np.float32))
    reads = ss.Conditions(low=ss.Condition(shape=(4, 4, 1)), size=ss.Condition())
    batch = next(data.training_batches(source, 32, seed=0, flip=True, reads=reads))
    np.testing.assert_array_equal(batch["values"], batch["cond"]["low"])
    original = values[batch["cond"]["size"].astype(int)]
    turned = (batch["values"] != original).any(axis=(1, 2, 3))
    assert 6 < turned.sum() < 26
    np.testing.assert_array_equal(batch["values"][turned], original[turned][:, :, ::-1])
    rows = data.Arrays(values=values, row=np.zeros((32, 4, 4), np.float32))
    with pytest.raises(ss.InputError, match=r"values of shape \(4, 4\), which is not an image"):
        next(data.training_batches(rows, 8, seed=0, flip=True, reads=ss.Conditions(row=ss.Condition(shape=(4, 4)))))


def test_conditions_of_examples_are_checked():
    values, reads = np.zeros((3, 2)), ss.Conditions(label=ss.Label(10))
    for wrong in ([0, 10, 1], [0, -1, 1]):
        with pytest.raises(ss.InputError, match="expected classes from 0 to 9"):
            data.as_batch({"values": values, "label": np.array(wrong)}, reads)
    with pytest.raises(ss.InputError, match="dtype float64; expected"):
        data.as_batch({"values": values, "label": np.array([0, 1, 3.7])}, reads)
    columns = {"values": values, "label": np.array([0, -1, 2]), "absent": {"label": np.array([False, True, False])}}
    assert data.as_batch(columns, reads)["cond"]["label"].tolist() == [0, -1, 2]  # the second has no label
    texts = np.array([b"row", "row", "column"], object)
    tokens = data.as_batch({"values": values, "t": texts}, ss.Conditions(t=ss.Text(3)))["cond"]["t"]["tokens"]
    np.testing.assert_array_equal(tokens[0], tokens[1])


def test_the_digest_of_text_is_of_its_letters():
    def digest(*texts):
        return data.digest(data.Arrays(values=np.zeros(2), t=np.array(["".join(list(text)) for text in texts], object)))

    assert digest("a row", "a column") == digest("a row", "a column") != digest("a row", "a columm")
    assert digest("ab", "c") != digest("a", "bc")
    with pytest.raises(ss.InputError, match="A column of dtype object contains a dict"):
        data.digest(data.Arrays(values=np.zeros(1), t=np.array([{}], object)))
