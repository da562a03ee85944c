"""This module tests the readers of published weights against other readers, and on hostile and damaged files."""

import io
import os
import pathlib
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_sde.core.errors import InputError
from score_sde.networks import NCSNpp
from score_sde.pretrained import read_weights
from score_sde.pretrained.match import match

FILES = pathlib.Path(__file__).parent / "fixtures" / "published"
TORCH = ["tiny.pth", "tiny_legacy.pth", "ncsnpp_residual.pth", "ncsnpp_ddpm_blocks.pth", "ddpm.pth"]
NETWORK = NCSNpp((8, 8, 3), channels=4, multipliers=(1,), blocks=1, attention=())
TINY = ["tiny.pth", "tiny_legacy.pth", "tiny.msgpack"]


class WithPickle(pickle.Unpickler):
    """`WithPickle` is Python's unpickler with a meaning for PyTorch's names, for files that are known to be good."""

    def __init__(self, file, raw):
        super().__init__(file, encoding="latin1")
        self.raw = raw

    def find_class(self, module, name):
        types = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
        if name in types:
            return np.dtype(types[name])
        if name == "_rebuild_tensor_v2":
            return self.tensor
        assert module.split(".")[0] in ("collections", "numpy", "_codecs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    def tensor(self, storage, offset, shape, strides, *rest):
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, [s * storage.itemsize for s in strides])

    def persistent_load(self, key):
        return np.frombuffer(self.raw(key[2], key[4] * key[1].itemsize), key[1])


def with_pickle(path):
    if zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        (main,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        folder = main.removesuffix("data.pkl") + "data/"
        return WithPickle(io.BytesIO(archive.read(main)), lambda key, size: archive.read(folder + key)).load()
    file = io.BytesIO(path.read_bytes())
    for _ in range(3):
        pickle.load(file)
    place, sizes = file.tell(), {}
    WithPickle(file, lambda key, size: bytes(sizes.setdefault(key, size))).load()
    keys, raw = pickle.load(file), {}
    for key in keys:
        file.read(8)
        raw[key] = file.read(sizes[key])
    file.seek(place)
    return WithPickle(file, lambda key, size: raw[key]).load()


@pytest.mark.parametrize("name", TORCH)
def test_torch_files_against_python_s_own_pickle(name):
    known, weights = with_pickle(FILES / name), read_weights(FILES / name)
    model = {k.removeprefix("module."): v for k, v in known.get("model", known).items()}
    np.testing.assert_array_equal(weights.sigmas, model.pop("sigmas"))
    assert list(weights.params) == list(model)
    for key, value in model.items():
        np.testing.assert_array_equal(weights.params[key], value)
    if "ema" not in known:
        assert weights.ema is None and weights.moments is None and weights.step is None
        return
    trained = [key for key, value in model.items() if not key.endswith(".W") or value.ndim > 1]
    for key, value in zip(trained, known["ema"]["shadow_params"], strict=True):
        np.testing.assert_array_equal(weights.ema[key], value)
    order = list(model)
    for i, state in known["optimizer"]["state"].items():
        np.testing.assert_array_equal(weights.moments[0][order[i]], state["exp_avg"])
        np.testing.assert_array_equal(weights.moments[1][order[i]], state["exp_avg_sq"])
        assert weights.adam_step == int(state["step"])
    assert weights.step == known["step"]


@pytest.mark.parametrize(
    "name", ["tiny.msgpack", "ncsnpp_residual.msgpack", "ncsnpp_ddpm_blocks.msgpack", "ncsn.msgpack"]
)
def test_flax_files_against_flax(name):
    from flax import serialization, traverse_util

    known, weights = serialization.msgpack_restore((FILES / name).read_bytes()), read_weights(FILES / name)
    optimizer = known.get("optimizer", {})
    target = traverse_util.flatten_dict(optimizer.get("target", known), sep="/")
    assert weights.params.keys() == target.keys()
    for key, value in target.items():
        np.testing.assert_array_equal(weights.params[key], value)
    if "params_ema" in known:
        for key, value in traverse_util.flatten_dict(known["params_ema"], sep="/").items():
            np.testing.assert_array_equal(weights.ema[key], value)
        assert weights.step == int(known["step"])
    if "state" in optimizer:
        for key, value in traverse_util.flatten_dict(optimizer["state"]["param_states"], sep="/").items():
            name, _, kind = key.rpartition("/")
            np.testing.assert_array_equal(weights.moments[["grad_ema", "grad_sq_ema"].index(kind)][name], value)


def test_arrays_in_pieces_and_in_bfloat16(tmp_path):
    """An array in pieces, as flax writes arrays over a gigabyte, and an array in bfloat16 are read."""
    from flax import serialization

    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    pieces = {"__msgpack_chunked_array__": True, "shape": {"0": 3, "1": 4}}
    pieces["chunks"] = {"0": whole.ravel()[:5], "1": whole.ravel()[5:]}
    low = whole.astype(ml_dtypes.bfloat16)
    (tmp_path / "x").write_bytes(serialization.msgpack_serialize({"params": {"a": {"b": pieces}, "c": {"d": low}}}))
    params = read_weights(tmp_path / "x").params
    np.testing.assert_array_equal(params["a/b"], whole)
    np.testing.assert_array_equal(params["c/d"].astype("f"), whole)


class Calls:
    """`Calls` is an object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.pair = function, arguments

    def __reduce__(self):
        return self.pair


def zipped(path, value, protocol=2):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(value, protocol))
    return path


HOSTILE = {
    "posix.system": lambda path: Calls(os.system, f"touch {path}"),
    "builtins.eval": lambda path: Calls(eval, f"open({str(path)!r}, 'w')"),
    "io.open": lambda path: {"model": {"a": Calls(open, str(path), "w")}},
    "pathlib.PosixPath": lambda path: {"step": path},
    "builtins.getattr": lambda path: [Calls(getattr, "a", "upper")],
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_pickle_asks_for_is_refused_by_name(tmp_path, name, protocol):
    sentinel = tmp_path / "executed"
    value = HOSTILE[name](sentinel)
    path = zipped(tmp_path / "w.pth", value, protocol)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    text = str(caught.value).replace("__builtin__", "builtins").replace("pathlib._local", "pathlib")
    assert f"asks for {name}" in text and "nothing of it was executed" in text
    # PyTorch before 1.6 wrote five pickles one after another.
    old = tmp_path / "old.pth"
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    old.write_bytes(magic + pickle.dumps(value, protocol) + pickle.dumps([], 2))
    with pytest.raises(InputError, match="asks for"):
        read_weights(old)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04" + bytes(40), "cut off, or damaged"),
        (b"\x80\x02K\x01.", "neither a file of PyTorch nor one of flax"),
        (b"hello world, this is no file of weights", "cut off, or damaged|after its end|neither"),
        (b"\xdf\xff\xff\xff\xff", "cut off"),
        (b"\x91" * 50, "nested more than 32 deep"),
        (b"\x81\xa1a\xc7\x02\x05ab", "an extension of type 5"),
        (b"\x81\xa1a\x01", "it has no weights"),
        (np.random.default_rng(0).bytes(5000), "cut off|neither|after its end|does not define"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_zips_that_are_no_weights(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(InputError, match="it has 0 parts named data"):
        read_weights(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**6))
    with pytest.raises(InputError, match="compressed, which PyTorch's files are not"):
        read_weights(path)
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="cannot be read"):
            read_weights(place)


def test_tensors_larger_than_their_numbers(tmp_path):
    """A tensor with more entries than its storage is refused; with stride 0 four bytes would make a terabyte."""
    good = (FILES / "tiny_legacy.pth").read_bytes()
    shape = b"K\x03K\x08\x86"  # The linear layer has shape (3, 8).
    assert good.count(shape) >= 1
    for other in (b"K\xffK\x08\x86", b"K\x03K\xff\x86", b"K\x03K\x00\x86"):
        path = tmp_path / "w.pth"
        path.write_bytes(good.replace(shape, other))
        with pytest.raises(InputError, match="larger than the numbers"):
            read_weights(path)


def repeated(value, call, times=2000):
    """Return a pickle that stores a value and a function, and calls the function on the value many times."""
    head = b"\x80\x02" + pickle.dumps(value, 2)[2:-1] + b"\x85q\xf0" + call + b"q\xf1]"
    return head + b"h\xf1h\xf0Ra" * times + b"."


@pytest.mark.parametrize(
    ("value", "call", "words"),
    [
        ("a" * 50_000, b"c_codecs\nencode\n", "holds no dictionary"),
        (list(range(20_000)), b"ctorch\nSize\n", "not in PyTorch's pickle format"),
    ],
)
def test_a_file_cannot_make_more_than_it_is(tmp_path, value, call, words):
    """Reading keeps no copies of a value that a pickle repeats; the copies would take 100 times the file's size."""
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", repeated(value, call))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words):
            read_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * path.stat().st_size


def test_long_arguments_are_refused(tmp_path):
    many = b"\x80\x02(" + b"K\x01" * 1000 + b"tq\xf0ctorch._utils\n_rebuild_parameter\nh\xf0R."
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("x/data.pkl", many)
    with pytest.raises(InputError, match="more arguments than weights need"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.slow
def test_deep_nesting_ends_in_one_line(tmp_path):
    """A million nested tuples are refused; hashing or comparing the tuples would end the process."""
    deep = b"\x80\x02)" + b"\x85" * 10**6
    for content in (deep + b".", deep + b"q\x00}h\x00K\x01s."):
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
            archive.writestr("x/data.pkl", content)
        with pytest.raises(InputError):
            read_weights(tmp_path / "w.pth")


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content with changed bytes, or with a part cut out, doubled or filled, as damage and attacks do."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        kind, at = rng.integers(7), int(rng.integers(max(1, len(data))))
        size = int(rng.integers(1, 65))
        if kind == 0:
            data[at : at + 1] = rng.bytes(1)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[at : at + size]
        elif kind == 4:
            data[at : at + 4] = struct.pack("<I", int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1])))
        elif kind == 5:
            data[at : at + 8] = struct.pack(">Q", int(rng.choice([0, 2**32, 2**63 - 1])))
        else:
            data[at : at + size] = rng.bytes(size)
    return bytes(data)


def check_mutation(name, seed, folder):
    """Check that a mutated file is read, or refused in one line."""
    content, rng, path = (FILES / name).read_bytes(), np.random.default_rng(seed), folder / "w.pth"
    if content[:2] == b"PK" and rng.random() < 0.7:
        # The checksums of the zip would reveal every later change.
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w") as new:
            for part in old.namelist():
                inner = old.read(part)
                new.writestr(part, mutated(inner, rng) if part.endswith(".pkl") or rng.random() < 0.02 else inner)
    else:
        path.write_bytes(mutated(content, rng))
    message = ""
    try:
        match(NETWORK, read_weights(path))
    except InputError as error:
        message = str(error)
    assert "\n" not in message and len(message) < 500


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TINY), st.integers(0, 2**32 - 1))
def test_mutated_files(tmp_path_factory, name, seed):
    check_mutation(name, seed, tmp_path_factory.getbasetemp())


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path):
    for seed in range(10_000):
        check_mutation(TINY[seed % 3], seed, tmp_path)


@pytest.mark.parametrize("name", TINY)
def test_memory_stays_near_the_file_s_size(tmp_path, name):
    """The peak of memory over 200 mutated files stays near the size of the file."""
    folder, content = tmp_path, (FILES / name).read_bytes()
    read_weights(FILES / name)
    tracemalloc.start()
    try:
        for seed in range(200):
            check_mutation(name, seed, folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(content) + 500_000


def saved(path, value):
    """Write nested dictionaries of arrays in the format of torch.save, and return the path."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kinds = {"float32": "FloatStorage", "bfloat16": "BFloat16Storage"}
    for name in kinds.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    contents = []

    class Stored:
        def __init__(self, array):
            self.array = array

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if not isinstance(thing, Stored):
                return None
            contents.append(thing.array.tobytes())
            kind = getattr(torch, kinds[str(thing.array.dtype)])
            return ("storage", kind, str(len(contents) - 1), "cpu", thing.array.size)

        def reducer_override(self, thing):
            if not isinstance(thing, np.ndarray):
                return NotImplemented
            strides = tuple(step // thing.itemsize for step in thing.strides)
            return _rebuild_tensor_v2, (Stored(thing), 0, thing.shape, strides, False, {})

    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(buffer, 2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", buffer.getvalue())
        for number, content in enumerate(contents):
            archive.writestr(f"x/data/{number}", content)
    return path


STATE = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.ones(2, np.float32)}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module.model.", "score_model.module."])
def test_prefixes_of_what_wraps_a_network(tmp_path, prefix):
    wrapped = {prefix + name: array for name, array in STATE.items()}
    read = read_weights(saved(tmp_path / "w.pth", {"model": wrapped}))
    assert list(read.params) == list(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(read.params[name], array)


@pytest.mark.parametrize(
    "place", [("ema",), ("ema", "shadow"), ("model_ema",), ("ema_state_dict",), ("ema", "state_dict")], ids="-".join
)
def test_an_average_that_is_kept_by_name(tmp_path, place):
    average = {f"module.{name}": 2 * array for name, array in STATE.items()}
    for name in reversed(place):
        average = {name: average}
    read = read_weights(saved(tmp_path / "w.pth", {"model": STATE, "step": 7, **average}))
    assert read.step == 7
    for name, array in STATE.items():
        np.testing.assert_array_equal(read.ema[name], 2 * array)
    lacking = {"model": STATE, "ema": {"a.weight": STATE["a.weight"]}}
    with pytest.raises(InputError, match=r"average by name has no b\.bias"):
        read_weights(saved(tmp_path / "w.pth", lacking))


def test_a_state_dict_in_bfloat16_with_its_table(tmp_path):
    low = {name: array.astype(ml_dtypes.bfloat16) for name, array in STATE.items()}
    read = read_weights(saved(tmp_path / "w.pth", low | {"sigmas": np.array([50, 1], ml_dtypes.bfloat16)}))
    np.testing.assert_array_equal(read.sigmas, [50, 1])
    np.testing.assert_array_equal(read.params["a.weight"], STATE["a.weight"])


def test_weights_are_printed_as_a_table(tmp_path):
    text = repr(read_weights(saved(tmp_path / "w.pth", {"model": STATE, "step": 1234})))
    lines = text.splitlines()
    assert lines[0] == "w.pth: torch, step 1,234, 2 tensors of 8 numbers"
    assert lines[1].split() == ["a.weight", "(2,", "3)", "float32"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n<html lang='en'>", "web page"),
        ((40).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1]}}', "safetensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    ],
)
def test_files_that_are_taken_for_weights_are_called_what_they_are(tmp_path, content, words):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_weights(tmp_path / "w.pth")
