"""Each tensor of a file to its parameter, none left over on either side."""

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
    """One tensor: its name in the file, the parameter that it is, its shape there and its count of numbers."""

    name: str
    parameter: str
    shape: tuple[int, ...]
    count: int


@dataclasses.dataclass(frozen=True)
class Matched:
    """Trees of float32 arrays in the network's structure, and what they were made of.

    Attributes:
        params, ema, moments: as in `Weights`; None where the file has none.
        counts: {'params': tensors of the file, ...}; of the port's average and optimizer those that are trained.
        rows: of the parameters, in the network's order.
        ignored: tensors that the file has and its own network never uses.
    """

    params: Any
    ema: Any
    moments: tuple[Any, Any] | None
    counts: dict[str, int]
    rows: tuple[Row, ...]
    ignored: tuple[str, ...]


def does_not_fit(network: Network, weights: Weights) -> str:
    """Why the file's tensors are not those of the network, and what to do; '' where they are."""
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
    """The file's tensors as the network's parameters.

    Raises:
        InputError: where they do not fit, naming the setting that differs if it can be told; or not finite.
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
    """A shape, of vectors without the axes that flax gave them in 2021: (1, 1, 1, channels) of a normalisation."""
    vector = re.search(r"/(scale|bias|alpha|gamma|beta)$", name) and array.shape[:-1] == (1, 1, 1)
    return array.shape[-1:] if vector else array.shape


def _tree(
    wanted: tuple[Tensor, ...], weights: Weights, found: Arrays, ignored: frozenset[str], what: str, fixed: Any = None
) -> Any:
    """The arrays in our structure; what is not trained comes from `fixed` where the file leaves it out."""
    left = found.keys() - {each.in_file(weights.format)[0] for each in wanted} - ignored
    if left:
        raise InputError(f"{weights.path}: {what} have {shown(sorted(left)[0])}, which the parameters have not.")
    tree: dict[str, Any] = {}
    for tensor in wanted:
        name, shape = tensor.in_file(weights.format)
        array = found.get(name)
        if array is None and fixed is not None and not tensor.trained:
            _put(tree, tensor.path, _at(fixed, tensor.path))
            continue
        if array is None or plain_shape(name, array) != shape:
            has = "lacks it" if array is None else f"has it in shape {array.shape}"
            raise InputError(f"{weights.path}: of {shown(name)}, {what} {has}; expected {shape}.")
        if weights.format == "torch":
            array = tensor.from_torch(array)
        ours = np.array(array, np.float32).reshape(tensor.shape)
        if not np.isfinite(ours).all():
            raise InputError(f"{weights.path}: {what} of {shown(name)} are not finite; nothing was written.")
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
