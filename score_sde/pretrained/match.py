"""This module matches each tensor of a file to one parameter, with none left over on either side."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import numpy as np

from score_sde.core.errors import InputError
from score_sde.networks import Network, RefineNetwork
from score_sde.pretrained.names import Tensor, tensors, unused
from score_sde.pretrained.recognise import is_refine, misfit
from score_sde.pretrained.weights import Arrays, Weights
from score_sde.readers.refusal import shown


@dataclasses.dataclass(frozen=True)
class Row:
    """A `Row` holds the name of a tensor in the file, its parameter, its shape in the file and its count of numbers."""

    name: str
    parameter: str
    shape: tuple[int, ...]
    count: int


@dataclasses.dataclass(frozen=True)
class Matched:
    """`Matched` holds trees of float32 arrays in the structure of the network, and their origin in the file.

    Attributes:
        params, ema, moments: as in `Weights`; None if the file has none.
        counts: {'params': number of tensors in the file, ...}; for the port's average and optimizer, trained tensors
            only.
        rows: one row per parameter, in the order of the network.
        ignored: names of tensors in the file that the published network never uses.
    """

    params: Any
    ema: Any
    moments: tuple[Any, Any] | None
    counts: dict[str, int]
    rows: tuple[Row, ...]
    ignored: tuple[str, ...]


def does_not_fit(network: Network, weights: Weights) -> str:
    """Return why the tensors of the file do not fit the network, with a remedy; '' if they fit."""
    every = _shapes(weights)
    if isinstance(network, RefineNetwork) and is_refine(every) and network.port != (weights.format == "torch"):
        whose = "the PyTorch port" if weights.format == "torch" else "the original"
        return (
            f"it is a file of {whose}, which computes {type(network).__name__} in its own way: use "
            f"--config.network.port={not network.port}"
        )
    ignored = _ignored(network, weights)
    shapes = {name: shape for name, shape in every.items() if name not in ignored}
    expected = dict(each.in_file(weights.format) for each in tensors(network))
    return "" if shapes == expected else misfit(network, weights.format, every, expected)


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: plain_shape(name, array) for name, array in weights.params.items()}


def _ignored(network: Network, weights: Weights) -> frozenset[str]:
    return unused(network) if weights.format == "torch" else frozenset()


def match(network: Network, weights: Weights) -> Matched:
    """Return the tensors of the file as parameters of the network.

    Raises:
        InputError: if a tensor is not finite, or if the tensors do not fit; the message names the setting, if known.
    """
    why = does_not_fit(network, weights)
    if why:
        raise InputError(f"{weights.path} does not fit the config: {why}.")
    wanted, ignored = tensors(network), _ignored(network, weights)
    expected = dict(each.in_file(weights.format) for each in wanted)
    counts = {"params": len(wanted)}
    params = _tree(wanted, weights, weights.params, ignored, "the parameters")
    ema = moments = None
    if weights.ema is not None:
        ema = _tree(wanted, weights, weights.ema, ignored, "the moving average", params)
        counts["ema"] = len(weights.ema.keys() - ignored)
    if weights.moments is not None:
        zero = jax.tree.map(np.zeros_like, params)
        first, second = (_tree(wanted, weights, each, ignored, "the optimizer", zero) for each in weights.moments)
        moments = first, second
        counts["optimizer"] = len(weights.moments[0].keys() - ignored)
    rows = tuple(
        Row(name, "/".join(each.path), shape, int(np.prod(each.shape)))
        for each, (name, shape) in zip(wanted, expected.items(), strict=True)
    )
    return Matched(params, ema, moments, counts, rows, tuple(sorted(ignored & weights.params.keys())))


def plain_shape(name: str, array: np.ndarray) -> tuple[int, ...]:
    """Return the shape of an array; a (1, 1, 1, channels) vector, as in flax of 2021, gives (channels,)."""
    vector = re.search(r"/(scale|bias|alpha|gamma|beta)$", name) and array.shape[:-1] == (1, 1, 1)
    return array.shape[-1:] if vector else array.shape


def _tree(
    wanted: tuple[Tensor, ...], weights: Weights, found: Arrays, ignored: frozenset[str], what: str, fixed: Any = None
) -> Any:
    """Return the arrays in our structure; `fixed` supplies untrained arrays that the file omits."""
    left = found.keys() - {each.in_file(weights.format)[0] for each in wanted} - ignored
    if left:
        raise InputError(f"{weights.path}: {shown(sorted(left)[0])} is in {what} and not in the parameters.")
    tree: dict[str, Any] = {}
    for tensor in wanted:
        name, shape = tensor.in_file(weights.format)
        array = found.get(name)
        if array is None and fixed is not None and not tensor.trained:
            _put(tree, tensor.path, _at(fixed, tensor.path))
            continue
        if array is None or plain_shape(name, array) != shape:
            has = "is missing" if array is None else f"has shape {array.shape}"
            raise InputError(f"{weights.path}: {shown(name)} of {what} {has}; expected shape {shape}.")
        if weights.format == "torch":
            array = tensor.from_torch(array)
        ours = np.array(array, np.float32).reshape(tensor.shape)
        if not np.isfinite(ours).all():
            raise InputError(f"{weights.path}: {shown(name)} of {what} is not finite; nothing was written.")
        _put(tree, tensor.path, ours)
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], array: np.ndarray) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = array


def _at(tree: Any, path: tuple[str, ...]) -> np.ndarray:
    for name in path:
        tree = tree[name]
    return np.asarray(tree)
