"""Each form of pictures and arrays is read back as the written examples, with class and split."""

import json
import os
import pathlib
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import score_sde as ss
from score_sde.readers.pictures import Fit, decode, open_collection
from tests import given_files as given

VALUES, LABELS = given.pictures()
SMALL, SMALL_LABELS = given.pictures(18, 32, 32, seed=1)


def read(collection):
    """Return all examples of a collection, decoded."""
    fit = None
    examples = []
    for number in range(len(collection)):
        example = collection.get(number)
        if isinstance(example, bytes):
            fit = fit or Fit(*VALUES.shape[1:3])
            example = decode(example, fit)
        examples.append(example)
    return np.stack(examples)


def label_names(collection):
    return [collection.classes[label] for label in collection.columns["label"]]


def in_order(collection, values=VALUES):
    """Return the index in `values` of each example of a collection."""
    examples = read(collection)
    assert len(examples) == len(values)
    return [int(np.flatnonzero((values == example).reshape(len(values), -1).all(axis=1))[0]) for example in examples]


def test_class_folders(tmp_path):
    given.class_folders(tmp_path, VALUES, LABELS)
    collection = open_collection(tmp_path)
    places = in_order(collection)
    assert sorted(places) == list(range(12))
    assert label_names(collection) == [given.CLASSES[LABELS[place]] for place in places]
    assert collection.splits is None
    assert collection.kind == "a folder of pictures"


def test_one_folder_is_no_class(tmp_path):
    for i, value in enumerate(VALUES):
        given.write(tmp_path / "all" / f"{i:03d}.PNG", given.png(value))
    collection = open_collection(tmp_path)
    assert in_order(collection) == list(range(12))
    assert not collection.columns


@pytest.mark.parametrize("second", ["test", "val", "Validation"])
def test_train_and_test_are_parts(tmp_path, second):
    given.class_folders(tmp_path, VALUES[:8], LABELS[:8], "train")
    given.class_folders(tmp_path, VALUES[8:], LABELS[8:], second)
    collection = open_collection(tmp_path)
    places = in_order(collection)
    assert [split == "train" for split in collection.splits] == [place < 8 for place in places]
    assert label_names(collection) == [given.CLASSES[LABELS[place]] for place in places]


def test_what_systems_leave_behind_is_not_read(tmp_path):
    given.class_folders(tmp_path, VALUES, LABELS)
    for name in (".ipynb_checkpoints/000-checkpoint.png", "cat/._000.png", "__MACOSX/cat/000.png", ".hidden.png"):
        given.write(tmp_path / name, given.png(VALUES[0]))
    (tmp_path / "cat" / "frames.png").mkdir()
    given.write(tmp_path / "cat" / "frames.png" / "inner.txt", "text")
    given.write(tmp_path / "Thumbs.db", b"123")
    given.write(tmp_path / "licence.md", "text")
    collection = open_collection(tmp_path)
    assert len(collection) == 12
    assert collection.notes == ("2 other files are not used (cat/frames.png/inner.txt, licence.md)",)


def test_links_are_followed_and_loops_refused(tmp_path):
    given.class_folders(tmp_path / "elsewhere", VALUES, LABELS)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in given.CLASSES[:2]:
        os.symlink(tmp_path / "elsewhere" / name, folder / name)
    (folder / "emu").mkdir()
    for file in (tmp_path / "elsewhere" / "emu").iterdir():
        os.symlink(file, folder / "emu" / file.name)
    assert sorted(in_order(open_collection(folder))) == list(range(12))
    os.symlink(folder, folder / "cat" / "again")
    with pytest.raises(ss.InputError, match="remove this loop"):
        open_collection(folder)
    os.unlink(folder / "cat" / "again")
    os.symlink(tmp_path / "nowhere", folder / "emu" / "lost.png")
    with pytest.raises(ss.InputError, match=r"lost\.png is a link that leads nowhere"):
        open_collection(folder)


@pytest.mark.parametrize("form", ["pairs", "object", "null"])
def test_dataset_json_of_edm(tmp_path, form):
    files = {f"0000{i % 2}/img{i:08d}.png": given.png(value) for i, value in enumerate(VALUES)}
    pairs = [[name, int(label)] for name, label in zip(files, LABELS)]
    labels = {"pairs": pairs, "object": dict(pairs), "null": None}[form]
    given.zipped(tmp_path / "edm.zip", {**files, "dataset.json": json.dumps({"labels": labels})})
    collection = open_collection(tmp_path / "edm.zip")
    places = in_order(collection)
    if form == "null":
        assert not collection.classes or collection.classes == ("00000", "00001")
    else:
        assert collection.columns["label"] == [int(LABELS[place]) for place in places]
        assert not collection.classes


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("container", ["folder", "zip"])
def test_metadata_with_captions(tmp_path, form, container):
    rows = [
        {"file_name": f"a/{i} ü.png", "text": f'a "{i}", naïve', "label": int(label), "weight": i / 2}
        for i, label in enumerate(LABELS)
    ][:-1]  # the last picture has no row
    files = {f"a/{i} ü.png": given.png(value) for i, value in enumerate(VALUES)}
    text = given.metadata_csv(rows) if form == "csv" else "\n".join(json.dumps(row) for row in rows)
    files[f"metadata.{form}"] = text.encode()
    if container == "zip":
        given.zipped(tmp_path / "set.zip", files)
        collection = open_collection(tmp_path / "set.zip")
    else:
        for name, content in files.items():
            given.write(tmp_path / "set" / name, content)
        collection = open_collection(tmp_path / "set")
    places = in_order(collection)
    assert collection.columns["text"] == [None if i == 11 else f'a "{i}", naïve' for i in places]
    assert collection.columns["label"] == [None if i == 11 else int(LABELS[i]) for i in places]
    assert collection.columns["weight"] == [None if i == 11 else i / 2 for i in places]


def test_captions_beside_pictures(tmp_path):
    for i, value in enumerate(VALUES):
        given.write(tmp_path / f"{i}.png", given.png(value))
        given.write(tmp_path / f"{i}.txt", f"picture {i}\nBild {i}\n")
    collection = open_collection(tmp_path)
    assert collection.columns == {"text": [f"picture {i}" for i in in_order(collection)]}
    assert collection.notes == ()


@pytest.mark.parametrize("shards", [1, 3])
def test_webdataset(tmp_path, shards):
    parts = np.array_split(np.arange(12), shards)
    for number, rows in enumerate(parts):
        files = {}
        for i in rows:
            files |= {f"{i:04d}.png": given.png(VALUES[i]), f"{i:04d}.cls": str(LABELS[i]).encode()}
            files |= {f"{i:04d}.txt": f"words {i}".encode(), f"{i:04d}.json": json.dumps({"width": 14}).encode()}
        given.tarred(tmp_path / f"shard-{number:03d}.tar", files)
    collection = open_collection(tmp_path if shards > 1 else tmp_path / "shard-000.tar")
    assert in_order(collection) == list(range(12))
    assert collection.columns["label"] == LABELS.tolist()
    assert collection.columns["text"] == [f"words {i}" for i in range(12)]
    assert collection.columns["width"] == [14] * 12


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_of_class_folders(tmp_path, mode):
    files = {
        f"./set/{given.CLASSES[label]}/{i:03d}.png": given.png(v) for i, (v, label) in enumerate(zip(VALUES, LABELS))
    }
    given.tarred(tmp_path / "set.tar", files, mode)
    collection = open_collection(tmp_path / "set.tar")
    places = in_order(collection)
    assert label_names(collection) == [given.CLASSES[LABELS[place]] for place in places]


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files(tmp_path, packed):
    values, labels = given.pictures(12, 28, 28, 1)
    given.idx_folder(tmp_path, values, labels, packed=packed)
    collection = open_collection(tmp_path)
    np.testing.assert_array_equal(collection.values, values)
    assert collection.columns["label"] == labels.tolist()
    assert collection.splits == ["train"] * 8 + ["test"] * 4
    training = open_collection(tmp_path / ("train-images-idx3-ubyte" + ".gz" * packed))
    np.testing.assert_array_equal(training.values, values[:8])


@pytest.mark.parametrize("container", ["folder", "tar.gz"])
@pytest.mark.parametrize("hundred", [False, True])
@pytest.mark.parametrize("form", ["binary", "python 2", "python 3"])
def test_cifar(tmp_path, container, hundred, form):
    dump = given.old_pickle if form == "python 2" else given.new_pickle
    files, names = given.cifar_files(SMALL, SMALL_LABELS, form == "binary", hundred, dump)
    if container == "folder":
        for name, content in files.items():
            given.write(tmp_path / "cifar-batches" / name, content)
        collection = open_collection(tmp_path)
    else:
        given.tarred(tmp_path / "c.tar.gz", {f"cifar-batches/{name}": c for name, c in files.items()}, "w:gz")
        collection = open_collection(tmp_path / "c.tar.gz")
    np.testing.assert_array_equal(collection.values, SMALL)
    assert collection.columns["label"] == SMALL_LABELS.tolist()
    assert collection.columns.get("coarse", (SMALL_LABELS // 2).tolist()) == (SMALL_LABELS // 2).tolist()
    assert ("coarse" in collection.columns) == hundred
    assert collection.classes == tuple(f"c{i}" for i in range(100 if hundred else 10))
    last = len(np.array_split(np.arange(18), len(names))[-1])
    assert collection.splits == ["train"] * (18 - last) + ["test"] * last


def test_npy_and_npz(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    np.testing.assert_array_equal(open_collection(tmp_path / "a.npy").values, VALUES)
    np.save(tmp_path / "first.npy", VALUES.transpose(0, 3, 1, 2))
    collection = open_collection(tmp_path / "first.npy")
    np.testing.assert_array_equal(collection.values, VALUES)
    assert collection.notes == ("the channels were first in each example and are now last",)
    np.savez(tmp_path / "gd.npz", VALUES, LABELS)  # guided-diffusion has these names: arr_0, arr_1
    collection = open_collection(tmp_path / "gd.npz")
    np.testing.assert_array_equal(collection.values, VALUES)
    assert collection.columns["label"] == LABELS.tolist()
    np.savez_compressed(
        tmp_path / "keras.npz", x_train=VALUES[:8], y_train=LABELS[:8], x_test=VALUES[8:], y_test=LABELS[8:]
    )
    collection = open_collection(tmp_path / "keras.npz")
    np.testing.assert_array_equal(collection.values, VALUES)
    assert collection.splits == ["train"] * 8 + ["test"] * 4
    np.savez(tmp_path / "half.npz", x_train=VALUES[:8], y_train=LABELS[:8], x_test=VALUES[8:])
    with pytest.raises(ss.InputError, match="labels in one split only"):
        open_collection(tmp_path / "half.npz")
    np.savez(tmp_path / "other.npz", a=VALUES, b=LABELS)
    with pytest.raises(ss.InputError, match="has the arrays a, b; expected the examples under one of the names"):
        open_collection(tmp_path / "other.npz")


def test_pickled_arrays_are_not_opened(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ss.InputError, match="not a NumPy array of numbers"):
        open_collection(tmp_path / "o.npy")


def test_huggingface_parquet(tmp_path):
    captions = [f"words {i}" for i in range(12)]
    for part, rows in (
        ("train-00000-of-00002", slice(0, 5)),
        ("train-00001-of-00002", slice(5, 8)),
        ("test-0", slice(8, 12)),
    ):
        given.parquet_file(tmp_path / "data" / f"{part}.parquet", VALUES[rows], LABELS[rows], captions[rows])
    collection = open_collection(tmp_path)
    places = in_order(collection)
    assert collection.columns["label"] == [int(LABELS[place]) for place in places]
    assert collection.columns["text"] == [captions[place] for place in places]
    assert collection.classes == given.CLASSES
    assert [split == "test" for split in collection.splits] == [place >= 8 for place in places]
    assert collection.get(3) == collection.get(3)
    testing = open_collection(tmp_path / "data" / "test-0.parquet")
    assert len(testing) == 4
    assert testing.splits is None


def test_tfrecords_of_stylegan_and_of_encoded_pictures(tmp_path):
    small = VALUES[:, ::2, ::2]
    for level, values in ((3, small), (4, VALUES)):
        messages = [
            given.example(shape=(3, *value.shape[:2]), data=value.transpose(2, 0, 1).tobytes()) for value in values
        ]
        given.write(tmp_path / "sg" / f"faces-r{level:02d}.tfrecords", given.tfrecord(messages))
    collection = open_collection(tmp_path / "sg")
    np.testing.assert_array_equal(read(collection), VALUES)
    assert collection.notes == ("of 2 files only the one of the largest resolution is used",)
    for part, rows in (("train", slice(0, 8)), ("test", slice(8, 12))):
        messages = [given.example(image=given.png(v), label=(int(i),)) for v, i in zip(VALUES[rows], LABELS[rows])]
        given.write(tmp_path / "tf" / f"set-{part}.tfrecord-00000-of-00001", given.tfrecord(messages))
    collection = open_collection(tmp_path / "tf")
    places = in_order(collection)
    assert collection.columns["label"] == [int(LABELS[place]) for place in places]
    assert [split == "test" for split in collection.splits] == [place >= 8 for place in places]


def test_crc_against_the_known_value():
    """CRC-32C of '123456789' is e3069283 in every table of CRCs."""
    from score_sde.readers.pictures import tfrecord

    assert given.crc32c(b"123456789") == 0xE3069283
    crc = tfrecord._masked_crc(b"123456789")
    assert ((crc - 0xA282EAD8) & 0xFFFFFFFF) == ((0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF)


def test_lmdb(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "church_lmdb"), map_size=2**24) as store, store.begin(write=True) as writing:
        for i, value in enumerate(VALUES):
            writing.put(f"{i:040x}".encode(), given.png(value))
    collection = open_collection(tmp_path / "church_lmdb")
    np.testing.assert_array_equal(read(collection), VALUES)


@pytest.mark.parametrize("form", ["array_record", "parquet"])
def test_a_builder_of_tensorflow_datasets(tmp_path, form, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    from tests.given_builder import Drawn

    Drawn.values, Drawn.labels = VALUES, LABELS
    builder = Drawn(data_dir=tmp_path, file_format=form)
    builder.download_and_prepare()
    collection = open_collection(builder.data_dir)
    order = in_order(collection)
    assert collection.columns["label"] == [int(LABELS[place]) for place in order]
    assert collection.classes == given.CLASSES
    assert [split == "test" for split in collection.splits] == [place >= 8 for place in order]


def test_what_cannot_be_found_or_known(tmp_path):
    with pytest.raises(ss.InputError, match="There is nothing at"):
        open_collection(tmp_path / "nowhere")
    with pytest.raises(ss.InputError, match=r"data\.path is ''; expected the path of a folder or zip of pictures"):
        open_collection("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ss.InputError, match=r"has no pictures \(it has no files at all\)"):
        open_collection(tmp_path / "empty")
    given.write(tmp_path / "texts" / "a.txt", "words")
    with pytest.raises(ss.InputError, match=r"has no pictures \(it has 1 x \.txt\)"):
        open_collection(tmp_path / "texts")
    given.write(tmp_path / "strange.bin", b"\x01\x02\x03\x04")
    with pytest.raises(ss.InputError, match="a file of an unknown kind"):
        open_collection(tmp_path / "strange.bin")


@pytest.mark.parametrize("name", ["../out.png", "/root.png", "a/../../out.png", "..\\out.png", "C:\\out.png"])
def test_paths_that_lead_out_of_an_archive(tmp_path, name):
    given.zipped(tmp_path / "bad.zip", {name: given.png(VALUES[0])})
    given.tarred(tmp_path / "bad.tar", {name: given.png(VALUES[0])})
    for file in ("bad.zip", "bad.tar"):
        with pytest.raises(ss.InputError, match="which leads out of it"):
            open_collection(tmp_path / file)


def test_an_archive_that_unpacks_to_more_than_it_says(tmp_path):
    content = bytes(5_000_000)
    given.zipped(
        tmp_path / "bomb.zip", {"a.png": content, "b.png": given.png(VALUES[0])}, compression=zipfile.ZIP_DEFLATED
    )
    raw = bytearray((tmp_path / "bomb.zip").read_bytes())
    for place in range(len(raw) - 4):  # both directories state 100 bytes
        if raw[place : place + 4] == (5_000_000).to_bytes(4, "little"):
            raw[place : place + 4] = (100).to_bytes(4, "little")
    (tmp_path / "bomb.zip").write_bytes(raw)
    collection = open_collection(tmp_path / "bomb.zip")
    with pytest.raises(ss.InputError, match=r"a\.png"):
        collection.get(0)
    assert collection.get(1) == given.png(VALUES[0])
    import gzip

    given.write(tmp_path / "bomb.tar.gz", gzip.compress(given.idx(np.zeros((900, 300, 300), np.uint8))))
    with pytest.raises(ss.InputError, match="more than 200 times its size"):
        open_collection(tmp_path / "bomb.tar.gz")


def test_descriptions_that_do_not_fit(tmp_path):
    given.write(tmp_path / "a.png", given.png(VALUES[0]))
    for name, text, words in (
        (
            "metadata.jsonl",
            '{"file_name": "b.png", "text": "x"}',
            "line 1, describes b.png, and there is no such picture",
        ),
        ("metadata.jsonl", '{"text": "x"}', "line 1, has no file_name"),
        ("metadata.jsonl", "{", "line 1, is not JSON"),
        ("metadata.jsonl", "[" * 100_000, "line 1, is not JSON"),
        ("metadata.csv", "file_name,text\na.png,x,y\n", "line 2, has 3 columns; expected 2"),
        ("dataset.json", "[]", "is not a list of labels"),
        ("dataset.json", '{"labels": [1]}', "has the label 1; expected pairs"),
    ):
        given.write(tmp_path / name, text)
        with pytest.raises(ss.InputError, match=words):
            open_collection(tmp_path)
        (tmp_path / name).unlink()


def test_a_pickle_of_cifar_that_asks_for_more(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/executed",))

    import pickle

    files, _ = given.cifar_files(SMALL, SMALL_LABELS, binary=False)
    files["data_batch_3"] = pickle.dumps({"data": Evil()}, protocol=2)
    given.tarred(tmp_path / "c.tar", files)
    with pytest.raises(ss.InputError, match=r"data_batch_3 is not a file of CIFAR: it asks for posix\.system"):
        open_collection(tmp_path / "c.tar")
    assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return one small file of each form."""
    root = tmp_path_factory.mktemp("originals")
    values, labels = given.pictures(5, 6, 6)
    grey = values[..., :1]
    named = {f"{given.CLASSES[i % 3]}/{i}.png": given.png(value) for i, value in enumerate(values)}
    given.zipped(
        root / "a.zip", named | {"metadata.csv": given.metadata_csv([{"file_name": next(iter(named)), "text": "x"}])}
    )
    given.tarred(root / "b.tar", {f"{i}.png": given.png(v) for i, v in enumerate(values)} | {"0.cls": b"1"})
    np.save(root / "c.npy", values)
    np.savez(root / "d.npz", values, labels)
    given.write(root / "e-images-idx3-ubyte", given.idx(grey[..., 0]))
    given.parquet_file(root / "f.parquet", values, labels)
    given.write(root / "g.tfrecord", given.tfrecord([given.example(image=given.png(v), label=(1,)) for v in values]))
    files, _ = given.cifar_files(SMALL, SMALL_LABELS, binary=False)
    given.tarred(root / "h.tar.gz", files, "w:gz")
    given.tarred(root / "i.tar", given.cifar_files(SMALL, SMALL_LABELS, binary=True)[0])
    return sorted(root.iterdir())


@pytest.mark.parametrize("which", range(9))
@hypothesis.settings(
    max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@hypothesis.example(changes=[(0.125, 91)], keep=1.0)
def test_mutated_files_are_read_or_refused(originals, tmp_path, which, changes, keep):
    source = originals[which]
    mutated = bytearray(source.read_bytes())
    for place, byte in changes:
        mutated[int(place * len(mutated))] = byte
    path = tmp_path / source.name
    path.write_bytes(mutated[: int(keep * len(mutated))])
    try:
        collection = open_collection(path)
        for number in range(min(len(collection), 5)):
            collection.get(number)
    except ss.InputError as error:
        refused = str(error)
    else:
        refused = ""
    assert "\n" not in refused


def test_names_are_unique_and_the_digest_sees_a_change(tmp_path):
    given.class_folders(tmp_path, VALUES, LABELS)
    first = open_collection(tmp_path)
    assert len(set(first.names)) == 12
    assert first.digest() == open_collection(pathlib.Path(str(tmp_path))).digest()
    given.write(tmp_path / "cat" / "000.png", given.png(VALUES[1]))
    os.utime(tmp_path / "cat" / "000.png", ns=(1, 1))
    assert first.digest() != open_collection(tmp_path).digest()


def test_shards_of_equal_names_and_of_parts(tmp_path):
    for part, rows in (("train", slice(0, 8)), ("val", slice(8, 12))):
        files = {f"{i:03d}.png": given.png(value) for i, value in enumerate(VALUES[rows])}
        (tmp_path / "a" / part).mkdir(parents=True)
        given.tarred(tmp_path / "a" / part / "00.tar", files)
        (tmp_path / "b").mkdir(exist_ok=True)
        given.tarred(tmp_path / "b" / f"{part}-000.tar", files)
        messages = [given.example(image=given.png(value)) for value in VALUES[rows]]
        given.write(tmp_path / "c" / part / "a.tfrecord", given.tfrecord(messages))
    for name in "abc":
        collection = open_collection(tmp_path / name)
        places = in_order(collection)
        assert sorted(places) == list(range(12))
        assert len(set(collection.names)) == 12
        assert [split == "test" for split in collection.splits] == [place >= 8 for place in places]
        assert not collection.classes


def test_a_file_rewritten_in_a_sub_folder_is_noticed(tmp_path):
    files, _ = given.cifar_files(SMALL, SMALL_LABELS, binary=True)
    for name, content in files.items():
        given.write(tmp_path / "inner" / name, content)
    before = open_collection(tmp_path).digest()
    path = tmp_path / "inner" / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    os.utime(path, ns=(1, 1))
    assert open_collection(tmp_path).digest() != before


def test_pictures_of_no_part_are_refused_and_of_no_class_said(tmp_path):
    given.class_folders(tmp_path / "p", VALUES[:8], LABELS[:8], "train")
    given.class_folders(tmp_path / "p", VALUES[8:], LABELS[8:], "test")
    given.write(tmp_path / "p" / "preview.png", given.png(VALUES[0]))
    with pytest.raises(ss.InputError, match=r"preview\.png is in neither; expected every picture in one of them"):
        open_collection(tmp_path / "p")
    given.class_folders(tmp_path / "q", VALUES, LABELS)
    given.write(tmp_path / "q" / "stray.png", given.png(VALUES[0]))
    collection = open_collection(tmp_path / "q")
    assert "label" not in collection.columns
    assert collection.notes == ("no classes: stray.png and 0 more are in no class folder",)


def test_a_parquet_file_may_name_pictures_of_its_own_folder_and_of_no_other(tmp_path):
    """Paths are read in the file's own folder only; the library datasets writes paths for a folder of pictures."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for number, values in enumerate(VALUES[:4]):
        given.write(tmp_path / "own" / "pictures" / f"{number}.png", given.png(values))
    given.write(tmp_path / "secret.png", given.png(VALUES[5]))

    def write(*paths):
        rows = [{"bytes": None, "path": str(path)} for path in paths]
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        parquet.write_table(pyarrow.table({"image": pyarrow.array(rows, kind)}), tmp_path / "own" / "named.parquet")
        return tmp_path / "own" / "named.parquet"

    absolute, fit = tmp_path / "own" / "pictures" / "1.png", Fit(*VALUES.shape[1:3])
    collection = open_collection(write("pictures/0.png", absolute, "../secret.png", "pictures/9.png"))
    np.testing.assert_array_equal(decode(collection.get(0), fit), VALUES[0])
    np.testing.assert_array_equal(decode(collection.get(1), fit), VALUES[1])
    for number in (2, 3):
        with pytest.raises(ss.InputError, match="has no bytes of a picture"):
            collection.get(number)
    before = collection.digest()
    os.utime(absolute, ns=(5, 5))
    assert open_collection(tmp_path / "own").digest() != before
    with pytest.raises(ss.InputError, match=r"has no pictures, but paths such as .*secret.png.*embed_table_storage"):
        open_collection(write("../secret.png", tmp_path / "secret.png"))


def test_parquet_columns_that_files_do_not_share(tmp_path):
    import pyarrow
    from pyarrow import parquet

    given.parquet_file(tmp_path / "a-train.parquet", VALUES[:8], LABELS[:8])
    rows = pyarrow.array([given.png(value) for value in VALUES[8:]], pyarrow.large_binary())
    names = pyarrow.array(["one", "two", "one", "two"], pyarrow.large_string()).dictionary_encode()
    parquet.write_table(pyarrow.table({"image": rows, "caption": names}), tmp_path / "b-test.parquet")
    collection = open_collection(tmp_path)
    places = in_order(collection)
    assert collection.columns["label"] == [int(LABELS[place]) if place < 8 else None for place in places]
    assert collection.columns["text"] == [None] * 8 + ["one", "two", "one", "two"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cifar_pickled_again_by_python_3(tmp_path, protocol):
    import pickle

    def dump(value):
        keyed = {key.encode(): np.asarray(entry) if key == "labels" else entry for key, entry in value.items()}
        return pickle.dumps(keyed, protocol=protocol)

    files, _ = given.cifar_files(SMALL, SMALL_LABELS, binary=False, dump=dump)
    given.tarred(tmp_path / "c.tar", files)
    collection = open_collection(tmp_path / "c.tar")
    np.testing.assert_array_equal(collection.values, SMALL)
    assert collection.columns["label"] == SMALL_LABELS.tolist()


def test_tables_as_spreadsheets_and_pandas_write_them(tmp_path):
    for i, value in enumerate(VALUES[:3]):
        given.write(tmp_path / f"{i}.png", given.png(value))
    for text in (
        ",file_name,label,text\n0,0.png,1,2024\n1,1.png,0,1e3\n2,2.png,1,nan\n",
        "\ufefffile_name; label; text\r\n0.png; 1; 2024\r\n1.png; 0; 1e3\r\n2.png; 1; nan\r\n",
    ):
        given.write(tmp_path / "metadata.csv", text)
        collection = open_collection(tmp_path)
        assert collection.columns == {"label": [1, 0, 1], "text": ["2024", "1e3", "nan"]}
    (tmp_path / "metadata.csv").unlink()
    given.write(tmp_path / "metadata.jsonl", json.dumps({"file_name": "0.png", "text": "a\u2028b"}, ensure_ascii=False))
    assert open_collection(tmp_path).columns["text"] == ["a\u2028b", None, None]


def test_arrays_under_other_usual_names(tmp_path):
    np.savez(
        tmp_path / "med.npz",
        train_images=VALUES[:8],
        train_labels=LABELS[:8, None],
        val_images=VALUES[8:],
        val_labels=LABELS[8:, None],
    )
    collection = open_collection(tmp_path / "med.npz")
    assert collection.splits == ["train"] * 8 + ["test"] * 4
    assert collection.columns["label"] == LABELS.tolist()
    np.savez(tmp_path / "alone.npz", X_train=VALUES)
    assert open_collection(tmp_path / "alone.npz").splits is None
    values, labels = given.pictures(12, 28, 28, 1)
    given.idx_folder(tmp_path / "MNIST" / "raw", values, labels)
    assert open_collection(tmp_path / "MNIST").splits == ["train"] * 8 + ["test"] * 4
    np.save(tmp_path / "masks.npy", VALUES[..., 0] > 127)
    np.testing.assert_array_equal(
        open_collection(tmp_path / "masks.npy").values[..., 0], np.where(VALUES[..., 0] > 127, 255, 0)
    )


def test_other_paths_that_are_no_data(tmp_path):
    given.write(tmp_path / "one.png", given.png(VALUES[0]))
    with pytest.raises(ss.InputError, match="is one picture; expected the folder of many"):
        open_collection(tmp_path / "one.png")
    given.write(tmp_path / "nothing.npy", b"")
    with pytest.raises(ss.InputError, match=r"nothing\.npy is empty"):
        open_collection(tmp_path / "nothing.npy")
    given.tarred(tmp_path / "a.tar.xz", {"a.png": given.png(VALUES[0])}, "w:xz")
    with pytest.raises(ss.InputError, match="unpack it, and give the folder"):
        open_collection(tmp_path / "a.tar.xz")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ss.InputError, match="neither a file nor a folder"):
        open_collection(tmp_path / "pipe")
    with pytest.raises(ss.InputError, match=r"data\.path is '~nobody_of_this_name/x'"):
        open_collection("~nobody_of_this_name/x")
    given.zipped(tmp_path / "lzma.zip", {"a.png": bytes(100_000)}, compression=zipfile.ZIP_LZMA)
    raw = bytearray((tmp_path / "lzma.zip").read_bytes())
    raw[60:70] = b"0123456789"
    (tmp_path / "lzma.zip").write_bytes(raw)
    with pytest.raises(ss.InputError, match=r"a\.png"):
        open_collection(tmp_path / "lzma.zip").get(0)


def test_a_zip_of_a_version_that_python_does_not_read_is_refused(tmp_path):
    """The version that a member needs is one byte of the directory of a zip."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"none")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 6] = 64
    path.write_bytes(bytes(data))
    with pytest.raises(
        ss.InputError, match=r"a\.zip cannot be opened as a zip \(zip file version 6\.4\): get it again"
    ):
        open_collection(path)
