"""The data set `Files` chooses settings for a user's files, and prepares, holds out and keeps examples."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

import score_sde as ss
from score_sde import data
from score_sde.core import files as files_
from score_sde.data import prepared as prepared_
from score_sde.data.declared import as_arrays, declare
from score_sde.data.parting import alike, held_out
from score_sde.experiment import Experiment
from tests import given_files as given

VALUES, LABELS = given.pictures(40, 24, 24)


@pytest.fixture
def folder(tmp_path):
    given.class_folders(tmp_path / "pictures", VALUES, LABELS)
    return tmp_path / "pictures"


def files(path, tmp_path, **arguments):
    return data.Files(path, dir=tmp_path / "cache", **arguments)


def both(dataset):
    return {split: data.all_examples(dataset.source(split)) for split in ("train", "test")}


def test_the_examples_are_those_of_the_folder(folder, tmp_path):
    dataset = files(folder, tmp_path)
    parts = both(dataset)
    assert dataset.shape == (24, 24, 3)
    assert dataset.arguments["classes"] == given.CLASSES
    values = np.concatenate([parts["train"]["values"], parts["test"]["values"]])
    labels = np.concatenate([parts["train"]["label"], parts["test"]["label"]])
    places = [int(np.flatnonzero((value == VALUES).all(axis=(1, 2, 3)))[0]) for value in values]
    assert sorted(places) == list(range(40))
    np.testing.assert_array_equal(labels, LABELS[places])
    assert 1 <= len(parts["test"]["values"]) <= 12
    assert isinstance(dataset.conditions["label"], ss.Label)


def test_what_is_held_out_does_not_depend_on_the_other_pictures(folder, tmp_path):
    def names(path):
        dataset = files(path, tmp_path, held_out=0.3)
        dataset.prepare()
        rows = dataset.source("test")._rows
        return {dataset._collection.names[row] for row in rows}

    before = names(folder)
    given.write(folder / "cat" / "new.png", given.png(given.pictures(1, 24, 24, seed=9)[0][0]))
    assert names(folder) - {"cat/new.png"} == before


def test_duplicates_fall_on_one_side(tmp_path):
    root = tmp_path / "pictures"
    for i in range(60):  # each picture has three files here and a fourth as BMP
        given.write(root / f"{i}.png", given.png(VALUES[i % 20]))
    for i in range(20):
        Image.fromarray(VALUES[i]).save(root / f"again {i}.bmp")
    dataset = files(root, tmp_path, held_out=0.4)
    parts = both(dataset)
    train, test = ({value.tobytes() for value in parts[split]["values"]} for split in ("train", "test"))
    assert train and test and not train & test
    assert len(parts["train"]["values"]) == 4 * len(train)
    assert any(line == "duplicates: 60" for line in dataset.lines())


def test_a_share_is_held_out_and_every_class_stays_in_training():
    names = [f"{i}.png" for i in range(5000)]
    firsts, labels = np.arange(5000), np.arange(5000) % 1200
    labels[labels > 900] = 0
    chosen = held_out(names, firsts, labels, 0.2)
    assert abs(chosen.mean() - 0.2) < 0.03  # 0.03 is 5 standard deviations of a binomial
    assert set(labels[~chosen]) == set(labels)
    assert held_out(["a", "b"], np.arange(2), None, 0.001).sum() == 1
    assert held_out(["a", "b"], np.arange(2), None, 0.999).sum() == 1
    np.testing.assert_array_equal(alike(np.array([[1, 2], [3, 4], [1, 2], [0, 0], [3, 4]], np.uint8)), [0, 1, 0, 3, 1])


@pytest.mark.parametrize("maker", ["jpeg", "text"])
def test_what_cannot_be_read_is_named_and_left_out_when_asked(folder, tmp_path, maker):
    content = b"words" if maker == "text" else given.png(VALUES[0])[:900]
    given.write(folder / "dog" / "bad.jpg", content)
    with pytest.raises(ss.InputError, match=r"1 of 41 examples of .* cannot be read: dog/bad\.jpg .*data.broken=skip"):
        files(folder, tmp_path).prepare()
    dataset = files(folder, tmp_path, broken="skip")
    parts = both(dataset)
    assert sum(len(part["values"]) for part in parts.values()) == 40
    assert any(line.startswith("skipped because unreadable: 1: dog/bad.jpg") for line in dataset.lines())
    with pytest.raises(ss.InputError, match=r"data\.broken is 'ignore'; expected 'refuse' or 'skip'"):
        files(folder, tmp_path, broken="ignore")


def test_a_cache_of_other_settings_or_other_files_is_not_used(folder, tmp_path):
    first = both(files(folder, tmp_path))
    other = both(files(folder, tmp_path, size=12, filter="box"))
    assert other["train"]["values"].shape[1:] == (12, 12, 3)
    expected = np.asarray(Image.fromarray(first["train"]["values"][0]).resize((12, 12), Image.Resampling.BOX))
    np.testing.assert_array_equal(other["train"]["values"][0], expected)
    given.write(folder / "cat" / "000.png", given.png(VALUES[1]))
    os.utime(folder / "cat" / "000.png", ns=(5, 5))
    again = both(files(folder, tmp_path))
    count = sum((part["values"] == VALUES[0]).all(axis=(1, 2, 3)).sum() for part in again.values())
    assert count == 0
    assert len(list((tmp_path / "cache" / "prepared").glob("pictures-*"))) == 3


def test_preparing_goes_on_where_it_stopped(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("score_sde.data.survey._CHUNK", 4)
    decoded = []
    real = prepared_.read_or_told

    def counted(collection, numbers, decode):
        decoded.extend(numbers)
        if 20 in numbers and decoded.count(20) == 1:
            raise KeyboardInterrupt
        return real(collection, numbers, decode)

    monkeypatch.setattr(prepared_, "read_or_told", counted)
    with pytest.raises(KeyboardInterrupt):
        files(folder, tmp_path).prepare()
    assert not list((tmp_path / "cache").rglob("manifest.json"))
    done = len(decoded)
    parts = both(files(folder, tmp_path))
    assert len(decoded) - done < 40
    assert sorted(value.tobytes() for part in parts.values() for value in part["values"]) == sorted(
        value.tobytes() for value in VALUES
    )
    before = len(decoded)
    both(files(folder, tmp_path))
    assert len(decoded) == before


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    dataset = files(folder, tmp_path)
    with pytest.raises(ss.InputError, match=r"needs 69,120 bytes for prepared data, and .* are free: delete other"):
        dataset.prepare()
    assert not list((tmp_path / "cache").rglob("*.npy"))
    monkeypatch.undo()
    assert len(both(dataset)["train"]["values"]) > 0


def test_a_damaged_cache_is_told(folder, tmp_path):
    dataset = files(folder, tmp_path)
    dataset.prepare()
    (dataset._prepared.folder / "columns.npz").write_bytes(b"damaged")
    with pytest.raises(ss.InputError, match=r"cannot be read .*: delete that folder to prepare the data again"):
        dataset.source("train")


def test_the_digest_is_of_what_is_read(folder, tmp_path):
    dataset, other = files(folder, tmp_path), files(folder, tmp_path, size=12)
    digests = {data.digest(variant.source(split)) for variant in (dataset, other) for split in ("train", "test")}
    assert len(digests) == 4
    assert data.digest(files(folder, tmp_path).source("train")) == data.digest(dataset.source("train"))


def test_known_arguments_need_no_files(folder, tmp_path):
    arguments = files(folder, tmp_path).arguments
    away = data.Files(**{**json.loads(json.dumps(arguments)), "path": "/nowhere"})
    assert (away.shape, away.conditions) == ((24, 24, 3), files(folder, tmp_path).conditions)
    with pytest.raises(ss.InputError, match="There is nothing at /nowhere"):
        away.source("train")


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(24, 24)] * 3, (24, 24)),
        ([(24, 32)] * 3, (24, 32)),
        ([(300, 200)] * 3, (64, 64)),
        ([(40, 30), (33, 50), (32, 32)], (32, 32)),
        ([(9, 9), (10, 10)], (16, 16)),
    ],
)
def test_the_size_that_is_chosen(tmp_path, sizes, size):
    for i, (height, width) in enumerate(sizes):
        given.write(tmp_path / "p" / f"{i}.png", given.png(np.full((height, width, 1), 7 * i, np.uint8)))
    dataset = files(tmp_path / "p", tmp_path)
    assert dataset.shape == (*size, 1)


def test_real_numbers_are_standardised_by_the_training_part(tmp_path):
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(500, 3)) * [1, 10, 100] + [0, 5, 1000]).astype(np.float32)
    np.save(tmp_path / "points.npy", points)
    dataset = files(tmp_path / "points.npy", tmp_path)
    train = both(dataset)["train"]["values"]
    np.testing.assert_allclose(dataset.arguments["mean"], train.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(dataset.arguments["std"], train.std(axis=0, dtype=np.float64), rtol=1e-6)
    x, terms = dataset.codec.encode(train, None)
    np.testing.assert_allclose(np.std(np.asarray(x), axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(terms["scale"], -np.log(train.std(axis=0)).sum(), rtol=1e-4)
    for shape in ((20, 7, 5), (20, 6, 6, 2), (20, 100)):
        np.save(tmp_path / "more.npy", rng.normal(size=shape))
        more = files(tmp_path / "more.npy", tmp_path)
        assert more.shape == shape[1:]
        assert np.shape(more.arguments["mean"]) == ()
        assert both(more)["train"]["values"].dtype == np.float32
    np.save(tmp_path / "nan.npy", np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1.0))
    with pytest.raises(ss.InputError, match=r"nan/00000002 of .* contains NaN, infinity or numbers too large"):
        files(tmp_path / "nan.npy", tmp_path)


def test_whole_numbers_keep_their_range(tmp_path):
    np.save(tmp_path / "counts.npy", np.arange(300).reshape(30, 10))
    dataset = files(tmp_path / "counts.npy", tmp_path)
    assert dataset.codec == data.QuantizedCodec((10,), 299)
    np.save(tmp_path / "bytes.npy", np.zeros((30, 12, 8), np.uint8))
    assert files(tmp_path / "bytes.npy", tmp_path).shape == (12, 8, 1)
    np.save(tmp_path / "below.npy", np.full((5, 5), -1))
    with pytest.raises(ss.InputError, match="has values from -1 to -1; expected whole numbers from 0 to 65535"):
        files(tmp_path / "below.npy", tmp_path)


def test_captions_and_numbers_are_conditions(tmp_path):
    rows = [
        {"file_name": f"{i}.png", "text": f"words {i} ü", "weight": i / 2, "box": [1, i], "url": f"http://{i}"}
        for i in range(9)
    ]
    for i in range(10):  # the last picture has no row
        given.write(tmp_path / "p" / f"{i}.png", given.png(VALUES[i]))
    given.write(tmp_path / "p" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    dataset = files(tmp_path / "p", tmp_path)
    assert dataset.conditions["text"] == ss.Text(len("words 0 ü".encode()))
    assert dataset.conditions["box"].shape == (2,)
    assert "url" not in dataset.conditions
    assert "url: not used, as neither a class, a caption nor numbers of one shape" in dataset.lines()
    experiment = Experiment.from_config(
        dict(
            data=dict(name="Files", path=str(tmp_path / "p"), dir=str(tmp_path / "cache")),
            network=dict(name="auto"),
        )
    )
    part = data.Examples(dataset.source("train"), dataset.conditions, experiment.codec)
    batch = part.batch(np.arange(len(part)))
    for value, tokens, mask, box, lacking in zip(
        batch["values"],
        batch["cond"]["text"]["tokens"],
        batch["cond"]["text"]["mask"],
        batch["cond"]["box"],
        batch["cond"]["absent"]["text"],
    ):
        i = int(np.flatnonzero((VALUES[:10] == value).all(axis=(1, 2, 3)))[0])
        assert bool(lacking) == (i == 9)
        assert bytes(tokens[mask].astype(np.uint8)).decode() == ("" if i == 9 else f"words {i} ü")
        assert box.tolist() == ([0, 0] if i == 9 else [1, i])


def test_labels_are_numbers_or_names():
    def arrays(column, classes=()):
        declared, _ = declare({"label": column}, classes)
        return declared.classes, as_arrays({"label": column}, declared)["label"].tolist()

    assert arrays([2, 0, 1]) == (3, [2, 0, 1])
    assert arrays(["b", "a", "b"]) == (("a", "b"), [1, 0, 1])
    assert arrays([1, 0], ("x", "y", "z")) == (("x", "y", "z"), [1, 0])
    declared, _ = declare({"label": [1, None]}, ())
    assert as_arrays({"label": [1, None]}, declared)["absent"]["label"].tolist() == [False, True]
    for column, words in (
        ([-1, 0], "a label is -1"),
        ([1, "a"], "labels include 1"),
        ([10**9, 1], "a label is"),
    ):
        with pytest.raises(ss.InputError, match=words):
            declare({"label": column}, ())


def test_labels_in_one_part_only(tmp_path):
    given.class_folders(tmp_path / "p", VALUES[:9], LABELS[:9], "train")
    for i in range(9, 12):
        given.write(tmp_path / "p" / "test" / f"{i}.png", given.png(VALUES[i]))
    rows = [{"file_name": f"{given.CLASSES[LABELS[i]]}/{i:03d}.png", "label": int(LABELS[i])} for i in range(9)]
    given.write(tmp_path / "p" / "train" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(ss.InputError, match="has labels, but none in its split 'test'"):
        files(tmp_path / "p", tmp_path)


def test_one_picture_is_too_few(tmp_path):
    given.write(tmp_path / "p" / "a.png", given.png(VALUES[0]))
    with pytest.raises(ss.InputError, match="has one example; expected two or more"):
        files(tmp_path / "p", tmp_path)


def test_a_class_of_one_picture_is_for_training(tmp_path):
    given.class_folders(tmp_path / "p", VALUES, LABELS)
    given.write(tmp_path / "p" / "rare" / "a.png", given.png(given.pictures(1, 24, 24, seed=5)[0][0]))
    dataset = files(tmp_path / "p", tmp_path, held_out=0.9)
    assert 3 in both(dataset)["train"]["label"]
    assert any("1 with one example, which is for training" in line for line in dataset.lines())


def test_two_at_once(folder, tmp_path):
    dataset = files(folder, tmp_path)
    with files_.exclusive(dataset._prepared.folder), pytest.raises(ss.InputError, match="Another process prepares"):
        dataset.prepare()


def test_what_a_config_leaves_to_the_data_is_kept(folder, tmp_path):
    from configs import folder as folder_config

    config = folder_config.get_config()
    with config.ignore_type():
        config.data.update(path=str(folder), dir=str(tmp_path / "cache"))
    experiment = Experiment.from_config(config)
    kept = experiment.config
    assert kept.data.size == (24, 24)
    assert kept.data.given == ("label", "augment")
    assert kept.data.conditions == "Augment"
    assert kept.data.drop.label == 0.1
    assert (kept.network.name, kept.network.multipliers, kept.network.attention) == ("DDPMpp", (1, 2), (12, 6))
    assert (kept.network.fold, kept.network.stem) == (2, 8)
    assert kept.network.dropout == 0.2
    assert kept.parametrization.data_std == kept.objective.weight.data_std == 0.5
    assert experiment.chosen["network.multipliers"] == (1, 2)
    with config.ignore_type():
        config.data.given = ()
    assert Experiment.from_config(config).config.data.conditions == ""
    again = Experiment.from_config(kept)
    assert again.chosen == {}
    assert again.network == experiment.network


def test_image_folder_reads_pictures_as_people_have_them(tmp_path):
    level = np.full((24, 24), 32768, np.uint16)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(level).save(tmp_path / split / "a.png")
        given.write(tmp_path / split / "._b.png", b"junk")
        given.write(tmp_path / split / "cut.png", given.png(VALUES[0])[:500])
        (tmp_path / split / "frames.png").mkdir()
    source = data.ImageFolder(tmp_path, size=8).source("train")
    assert len(source) == 2
    assert (source[0]["values"] == 128).all()
    with pytest.raises(ss.InputError, match=r"train/cut\.png cannot be decoded"):
        data.read(source, [1])


def test_fashion_mnist_is_read_where_it_is(tmp_path):
    values, labels = given.pictures(12, 28, 28, 1)
    given.idx_folder(tmp_path / "fashion", values, labels)
    source = data.FashionMNIST(tmp_path / "fashion").source("test")
    np.testing.assert_array_equal(source.columns["values"], values[8:])
    np.testing.assert_array_equal(source.columns["label"], labels[8:])
    with pytest.raises(ss.InputError, match=r"Fashion-MNIST is not in .*: on Debian and Ubuntu `apt-get install"):
        data.FashionMNIST(tmp_path / "nowhere").source("train")
    given.idx_folder(tmp_path / "other", *given.pictures(12, 20, 28, 1))
    with pytest.raises(ss.InputError, match="expected Fashion-MNIST"):
        data.FashionMNIST(tmp_path / "other").source("train")


@pytest.mark.skipif(not data.FashionMNIST().dir.is_dir(), reason="Debian's package dataset-fashion-mnist is not here")
def test_fashion_mnist_of_debian():
    """The counts and the mean equal the figures of the data set's authors."""
    dataset = data.FashionMNIST()
    train, test = dataset.source("train").columns, dataset.source("test").columns
    assert (len(train["values"]), len(test["values"])) == (60_000, 10_000)
    assert np.bincount(train["label"]).tolist() == [6000] * 10
    assert np.bincount(test["label"]).tolist() == [1000] * 10
    assert abs(train["values"].mean() / 255 - 0.2860) < 1e-4


def test_a_cache_that_was_half_made_is_not_taken_for_whole(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_.Prepared, "_finish", lambda *_: pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception):
        files(folder, tmp_path).prepare()
    monkeypatch.undo()
    (path,) = (tmp_path / "cache").rglob("values.npy")
    path.unlink()
    assert both(files(folder, tmp_path))["train"]["values"].any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", ["values.npy", "columns.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_any_damage_of_a_cache_is_told_in_a_line(folder, tmp_path, name, damage):
    dataset = files(folder, tmp_path)
    dataset.prepare()
    path = dataset._prepared.folder / name
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"{}"}[damage])
    with pytest.raises(ss.InputError, match="delete"):
        files(folder, tmp_path).source("train")


def test_classes_keep_their_numbers_when_folders_are_renamed(folder, tmp_path):
    arguments = files(folder, tmp_path).arguments
    (folder / "emu").rename(folder / "ant")
    with pytest.raises(ss.InputError, match="a label is 'ant'; expected one of the 3 classes cat, dog, emu"):
        data.Files(**arguments, dir=tmp_path / "cache").source("train")
    (folder / "ant").rename(folder / "emu")
    turned = data.Files(**(arguments | dict(classes=("emu", "dog", "cat"))), dir=tmp_path / "cache")
    part = data.all_examples(turned.source("train"))
    for value, label in zip(part["values"], part["label"]):
        place = int(np.flatnonzero((value == VALUES).all(axis=(1, 2, 3)))[0])
        assert ("emu", "dog", "cat")[label] == given.CLASSES[LABELS[place]]


def test_both_parts_have_an_example(tmp_path):
    given.class_folders(tmp_path / "single", VALUES[:3], np.arange(3))  # each class has one picture
    parts = both(files(tmp_path / "single", tmp_path))
    assert (len(parts["train"]["values"]), len(parts["test"]["values"])) == (2, 1)
    for i in range(4):
        given.write(tmp_path / "alike" / f"{i}.png", given.png(VALUES[0]))
    with pytest.raises(ss.InputError, match="4 examples are all equal; expected two that differ"):
        files(tmp_path / "alike", tmp_path).prepare()


def test_moments_are_of_the_very_training_part(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "few.npz", x=rng.normal(size=(6, 2)), y=np.arange(6))
    dataset = files(tmp_path / "few.npz", tmp_path)
    train = both(dataset)["train"]["values"]
    np.testing.assert_allclose(dataset.arguments["mean"], train.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("value", [1e39, np.inf, np.nan])
def test_numbers_that_float32_cannot_hold(tmp_path, value):
    np.save(tmp_path / "x.npy", np.array([[value, 2.0], [3.0, 5.0], [1.0, 2.0]]))
    with pytest.raises(ss.InputError, match="too large for float32"):
        files(tmp_path / "x.npy", tmp_path)
    with pytest.raises(ss.InputError, match="too large for float32"):
        files(tmp_path / "x.npy", tmp_path, mean=1.0, std=2.0).prepare()
    rows = [{"file_name": f"{i}.png", "n": [value, 10**400][i % 2], "m": 1.0} for i in range(4)]
    for i in range(4):
        given.write(tmp_path / "p" / f"{i}.png", given.png(VALUES[i]))
    given.write(tmp_path / "p" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert set(files(tmp_path / "p", tmp_path).conditions) == {"m"}


def test_settings_that_the_data_contradict(tmp_path, folder):
    np.save(tmp_path / "n.npy", np.arange(60).reshape(12, 5) * 3)
    with pytest.raises(ss.InputError, match=r"values from .* expected 0 to 10"):
        files(tmp_path / "n.npy", tmp_path, maximum=10).prepare()
    with pytest.raises(ss.InputError, match=r"has the shape \(5,\); expected \(7,\)"):
        files(tmp_path / "n.npy", tmp_path, shape=(7,)).prepare()
    with pytest.raises(ss.InputError, match=r"data.maximum is 5; expected 255"):
        files(folder, tmp_path, maximum=5)
    with pytest.raises(ss.InputError, match=r"The examples are pictures, but data\.shape is set, as for arrays"):
        files(folder, tmp_path, shape=(24, 24, 3)).prepare()


@pytest.mark.parametrize(
    "wrong",
    [dict(size=0), dict(size="big"), dict(size=(64,)), dict(size=10**9), dict(size=True), dict(size=2.5)]
    + [dict(background=5), dict(background=(300, 0, 0)), dict(classes="cat"), dict(classes=None), dict(others="x")]
    + [dict(held_out=0), dict(held_out=1), dict(held_out="x"), dict(channels=2), dict(way="fill"), dict(path=5)],
)
def test_settings_of_another_kind(folder, tmp_path, wrong):
    with pytest.raises(ss.InputError, match=next(iter(wrong))):
        data.Files(**(dict(path=folder, dir=tmp_path / "cache") | wrong))


def test_labels_in_the_forms_that_people_have(tmp_path):
    for name, labels in (
        ("floats", LABELS.astype(float)),
        ("one_hot", np.eye(3)[LABELS]),
        ("names", np.array(given.CLASSES)[LABELS]),
    ):
        np.savez(tmp_path / f"{name}.npz", images=VALUES, labels=labels)
        dataset = files(tmp_path / f"{name}.npz", tmp_path)
        part = both(dataset)["train"]
        places = [int(np.flatnonzero((value == VALUES).all(axis=(1, 2, 3)))[0]) for value in part["values"]]
        np.testing.assert_array_equal(part["label"], LABELS[places])
    np.savez(tmp_path / "vectors.npz", images=VALUES, labels=np.random.default_rng(0).normal(size=(40, 5)))
    assert files(tmp_path / "vectors.npz", tmp_path).conditions["label_vector"].shape == (5,)
    np.savez(tmp_path / "one.npz", images=VALUES, labels=np.int64(3))
    with pytest.raises(ss.InputError, match="40 examples and 1 entries of 'label'"):
        files(tmp_path / "one.npz", tmp_path)


def test_a_condition_may_have_any_name(tmp_path):
    rows = [{"file_name": f"{i}.png", "file": i, "allow_pickle": i, "train": i} for i in range(4)]
    for i in range(4):
        given.write(tmp_path / "p" / f"{i}.png", given.png(VALUES[i]))
    given.write(tmp_path / "p" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    part = both(files(tmp_path / "p", tmp_path))["train"]
    assert {"file", "allow_pickle", "train"} <= set(part)
