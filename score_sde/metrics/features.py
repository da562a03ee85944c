"""This module defines feature networks: maps from images to the features in which metrics compare them."""

from __future__ import annotations

import abc
import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array
from score_sde.core.checks import check_types, require_whole
from score_sde.core.errors import InputError
from score_sde.metrics.loading import (
    KNOWN,
    ClassifierFile,
    efficientnet_file,
    efficientnet_params,
    inception_params,
    parameters_digest,
    read_classifier,
)
from score_sde.metrics.resize import RESIZES
from score_sde.metrics.weights import FID_FILE, WeightsFile, read_arrays
from score_sde.networks.features import classifier, efficientnet, inception

Outputs = dict[str, Array]


class FeatureNetwork(abc.ABC):
    """A feature network returns features, and perhaps logits, of examples in one pass.

    To add a network, subclass `FeatureNetwork` and define `outputs` and `protocol`. Declare settings as fields of a
    frozen dataclass. A config names the class by its dotted path.

    Attributes:
        params: the weights, a pytree of arrays; () for no weights.
        of_images: whether the examples are images of values 0..255 with three channels; otherwise `outputs` gets the
            values of the data, divided by the maximum of quantised data.
    """

    of_images: ClassVar[bool] = True

    @property
    def params(self) -> Any:
        return ()

    @functools.cached_property
    def parameters(self) -> str:
        """Return a digest of the weights."""
        return parameters_digest(self.params)

    @abc.abstractmethod
    def outputs(self, params: Any, x: Array) -> Outputs:
        """Return 'features' (n, d), and perhaps 'logits' (n, classes) and others, of examples (n, ...)."""

    @abc.abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Return everything on which the features depend, as JSON can hold it."""


def _checked_resize(name: str, size: int) -> None:
    if name not in RESIZES:
        raise InputError(f"resize is {name!r}; expected one of {', '.join(RESIZES)}.")
    require_whole("size", size, 32)


@dataclasses.dataclass(frozen=True)
class Inception(FeatureNetwork):
    """`Inception` is the network of 2015 that defines the FID, with weights from the user's own file.

    `outputs` returns features (n, 2048), logits (n, 1008) without bias, and spatial features (n, 2023). Images are
    resized to 299 x 299 pixels and become (v - 128) / 128.

    Attributes:
        weights: the path of pt_inception-2015-12-05-6726825d.pth, or of classify_image_graph_def.pb.
        resize: 'tensorflow' as TTUR, guided-diffusion, torch-fidelity and EDM; 'clean' as clean-fid; 'half_pixel' as
            pytorch-fid, which also scales to (2 v / 255 - 1).
    """

    weights: str = ""
    resize: str = "tensorflow"

    def __post_init__(self) -> None:
        check_types(self)
        _checked_resize(self.resize, inception.SIDE)
        if not self.weights:
            raise InputError(f"Inception has no weights; expected the path of {FID_FILE}: weights='PATH'.")

    @functools.cached_property
    def _file(self) -> WeightsFile:
        file = read_arrays(self.weights)
        if file.sha256 not in KNOWN:
            warnings.warn(
                f"{self.weights} has the SHA-256 {file.sha256}, which is not that of {FID_FILE}: distances are FIDs "
                "only if its numbers are the same.",
                stacklevel=2,
            )
        return file

    @functools.cached_property
    def params(self) -> Any:
        return inception_params(self._file)

    def outputs(self, params: Any, x: Array) -> Outputs:
        x = RESIZES[self.resize](x, inception.SIDE)
        x = x / 127.5 - 1 if self.resize == "half_pixel" else (x - 128) / 128
        return inception.apply(params, x)

    def protocol(self) -> dict[str, Any]:
        scale = "v / 127.5 - 1" if self.resize == "half_pixel" else "(v - 128) / 128"
        return {
            "network": "Inception of 2015-12-05",
            "sha256": self._file.sha256,
            "parameters": self.parameters,
            "known_as": KNOWN.get(self._file.sha256),
            "resize": self.resize,
            "size": inception.SIDE,
            "scale": scale,
        }


@dataclasses.dataclass(frozen=True)
class EfficientNetLite0(FeatureNetwork):
    """`EfficientNetLite0` is a small network of ImageNet's classes, whose weights the extra `features` installs.

    `outputs` returns features (n, 1280) and logits (n, 1000). Distances of these features are not comparable with the
    FID.

    Attributes:
        weights: the path of a .pth file; '' for the file of the installed package.
        size: the side to which images are resized, in pixels. Training used 224; 112 needs a quarter of the time.
        resize: the interpolation: 'clean', 'tensorflow' or 'half_pixel'.
    """

    weights: str = ""
    size: int = 112
    resize: str = "clean"

    def __post_init__(self) -> None:
        check_types(self)
        _checked_resize(self.resize, self.size)

    @functools.cached_property
    def _file(self) -> WeightsFile:
        return read_arrays(self.weights or efficientnet_file())

    @functools.cached_property
    def params(self) -> Any:
        return efficientnet_params(self._file)

    def outputs(self, params: Any, x: Array) -> Outputs:
        return efficientnet.apply(params, (RESIZES[self.resize](x, self.size) - 127) / 128)

    def protocol(self) -> dict[str, Any]:
        return {
            "network": "EfficientNet-Lite0",
            "sha256": self._file.sha256,
            "parameters": self.parameters,
            "resize": self.resize,
            "size": self.size,
            "scale": "(v - 127) / 128",
        }


@dataclasses.dataclass(frozen=True)
class Classifier(FeatureNetwork):
    """`Classifier` is a small network that `--mode=classifier` trained on the labels of a data set.

    `outputs` returns features (n, 128) and logits (n, classes).

    Attributes:
        weights: the path of the file classifier.npz.
    """

    weights: str = ""
    of_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_types(self)
        if not self.weights:
            raise InputError("Classifier has no weights; expected the path of a classifier.npz of --mode=classifier.")

    @functools.cached_property
    def _file(self) -> ClassifierFile:
        return read_classifier(self.weights)

    @property
    def params(self) -> Any:
        return self._file.params

    def outputs(self, params: Any, x: Array) -> Outputs:
        shape = tuple(self._file.about["shape"])
        if x.shape[1:] != shape:
            raise InputError(f"The data have the shape {tuple(x.shape[1:])}; the classifier reads images of {shape}.")
        return classifier.apply(params, x)

    def protocol(self) -> dict[str, Any]:
        about = self._file.about
        ours = {"network": "a classifier of the data", "sha256": self._file.sha256}
        return {**about, **ours, "parameters": self.parameters}


@dataclasses.dataclass(frozen=True)
class Values(FeatureNetwork):
    """`Values` takes the values of the data themselves, flattened, as features: for points and for small images.

    Values of quantised data are divided by their maximum.
    """

    of_images: ClassVar[bool] = False

    def outputs(self, params: Any, x: Array) -> Outputs:
        return {"features": x.reshape(len(x), -1).astype(jnp.float32)}

    def protocol(self) -> dict[str, Any]:
        return {"network": "the values themselves", "scale": "v / maximum"}


@dataclasses.dataclass(frozen=True)
class OfFunction(FeatureNetwork):
    """`OfFunction` makes a feature network of a function of images (n, height, width, 3) of values 0..255.

    Attributes:
        function: the function, which JAX can trace; it returns features (n, d), or a dictionary with 'features'.
        name: the name of the function in results; two functions of one name count as the same.
    """

    function: Callable[[Array], Array | Mapping[str, Array]]
    name: str

    def outputs(self, params: Any, x: Array) -> Outputs:
        out = self.function(x)
        return dict(out) if isinstance(out, Mapping) else {"features": out}

    def protocol(self) -> dict[str, Any]:
        return {"network": self.name}


def as_images(values: Array, maximum: float | None) -> Array:
    """Return images (n, height, width, 3) of values 0..255 in float32 from the values of data.

    Args:
        values: images (n, height, width, 1 or 3); one channel is repeated.
        maximum: the largest value of quantised data; None for real values, which are not images of bytes.

    Raises:
        InputError: if the values are not images with one or three channels, or if the data are not quantised.
    """
    if values.ndim != 4 or values.shape[-1] not in (1, 3) or maximum is None:
        raise InputError(
            f"The data have the shape {tuple(values.shape[1:])}, and {'real' if maximum is None else 'whole'} values; "
            "expected quantised images with 1 or 3 channels for a network of images: use features='Values'."
        )
    images = values.astype(jnp.float32) * jnp.float32(255 / maximum)
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def extract(
    network: FeatureNetwork, values: Any, *, maximum: float | None = 255, batch_size: int = 64
) -> dict[str, np.ndarray]:
    """Return the outputs of a feature network for values on the data's own scale, computed in batches.

    Float32 products have full precision on every platform, so that features do not depend on the machine beyond
    rounding.

    Args:
        network: the feature network.
        values: the examples, (n, *shape); images of bytes have maximum 255.
        maximum: the largest value of quantised data; None for real values.
        batch_size: examples in a batch; the last batch is padded.
    """
    require_whole("batch_size", batch_size, 1)
    values = np.asarray(values)
    if not len(values):
        raise InputError("There are no examples; expected at least one.")
    parts = []
    with jax.default_matmul_precision("highest"):
        for low in range(0, len(values), batch_size):
            part = values[low : low + batch_size]
            place = np.minimum(np.arange(min(batch_size, len(values))), len(part) - 1)
            outputs = outputs_of(network, maximum)(network.params, part[place])
            parts.append({name: np.asarray(array)[: len(part)] for name, array in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@functools.lru_cache(maxsize=16)
def outputs_of(network: FeatureNetwork, maximum: float | None) -> Callable[[Any, Any], Outputs]:
    """Return the compiled function from (params, values) to the outputs of a network."""

    @jax.jit
    def run(params: Any, values: Array) -> Outputs:
        if network.of_images:
            x = as_images(values, maximum)
        else:
            x = values if maximum is None else values / jnp.float32(maximum)
        return network.outputs(params, x)

    return run
