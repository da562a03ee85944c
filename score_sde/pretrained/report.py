"""This module reports how exactly a file was imported, and compares outputs with expected outputs."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.errors import InputError
from score_sde.denoisers import Apply
from score_sde.pretrained.match import Row

_BATCH = 16
_SUSPICIOUS = 1e-3
# Accepted names of inputs, labels and outputs in a file of expected outputs.
_INPUTS = ("x", "inputs", "input")
_LABELS = ("label", "labels", "time_label", "time_cond", "t", "sigma", "sigmas", "timesteps")
_OUTPUTS = ("output", "outputs", "y", "expected")


@dataclasses.dataclass(frozen=True)
class Expected:
    """`Expected` holds inputs of a network, with outputs that were computed elsewhere.

    Attributes:
        x: inputs, float32 of shape (n, *shape).
        label: time labels of shape (n,).
        output: outputs of shape (n, *shape).
        output_ema: outputs with the moving average of the weights; None if the file has one set of outputs only.
        gradient, cotangent: the gradient with respect to x of the sum of output times cotangent, and the cotangent; or
            None.
    """

    x: np.ndarray
    label: np.ndarray
    output: np.ndarray
    output_ema: np.ndarray | None = None
    gradient: np.ndarray | None = None
    cotangent: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
    """`Difference` measures how far values computed here are from the expected values.

    Attributes:
        what: kind of the values, 'outputs' or 'input gradients'.
        item: weights of the network, 'params' or 'ema'.
        examples: number of compared examples.
        absolute: largest absolute difference.
        relative: largest ratio, over the examples, of an example's largest difference to its largest expected value.
    """

    what: str
    item: str
    examples: int
    absolute: float
    relative: float


@dataclasses.dataclass(frozen=True)
class Report:
    """A `Report` holds what an import matched.

    Attributes:
        file: name of the file.
        format: 'torch' or 'flax'.
        sha256: SHA-256 of the file, in hexadecimal.
        rows: one row per tensor of the parameters.
        items: {'params': number of tensors, ...} for each item that the file had.
        digests: digests of the items in the checkpoint, as the checkpoint stores them.
        step: training steps.
        notes: what was missing from the file or was omitted, in sentences.
        differences: differences from expected outputs, if given.
        suspicious: whether the differences exceed rounding.
    """

    file: str
    format: str
    sha256: str
    rows: tuple[Row, ...]
    items: dict[str, int]
    digests: dict[str, str]
    step: int
    notes: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    suspicious: bool = False

    @property
    def parameters(self) -> int:
        """Return the number of scalar parameters."""
        return sum(row.count for row in self.rows)

    def text(self) -> str:
        """Return the report as a few lines for a terminal."""
        kind = {"torch": "PyTorch", "flax": "flax"}[self.format]
        lines = [f"imported {self.file} ({kind}), step {self.step}, sha256 {self.sha256}"]
        for item, count in self.items.items():
            lines.append(
                f"  {item}: {count} of {count} tensors matched by name and shape, none left over on either side"
            )
        lines.append(f"parameters: {self.parameters:,}")
        lines += [f"  checksum of {item}: {digest}" for item, digest in self.digests.items()]
        lines += [f"  note: {note}" for note in self.notes]
        for each in self.differences:
            lines.append(
                f"  {each.what} by {each.item}: largest difference {each.absolute:.3g} absolute, {each.relative:.3g} "
                f"relative, over {each.examples} examples"
            )
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the whole report as JSON, with every tensor."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that `to_json` wrote; raise ValueError, TypeError or KeyError for other text."""
        entries = json.loads(text)
        entries["rows"] = tuple(Row(**row | {"shape": tuple(row["shape"])}) for row in entries["rows"])
        entries["differences"] = tuple(Difference(**each) for each in entries["differences"])
        return cls(**entries | {"notes": tuple(entries["notes"])})


def read_expected(path: str | os.PathLike[str], shape: tuple[int, ...]) -> Expected:
    """Read the inputs, time labels and outputs of a network that were computed elsewhere.

    Args:
        path: an .npz file with x, label and output, and optionally output_ema, gradient and cotangent. Images have
            shape (n, height, width, channels), or channels first.
        shape: shape of one image.

    Raises:
        InputError: if x, label or output is missing, or if a shape does not fit.
    """
    there = _arrays(pathlib.Path(path))

    def one(names: tuple[str, ...]) -> np.ndarray:
        for name in names:
            if name in there:
                return there[name]
        raise InputError(
            f"{path} has no {names[0]}; expected x, label and output; the file has {', '.join(there) or 'nothing'}."
        )

    images = {"x": one(_INPUTS), "output": one(_OUTPUTS)}
    images |= {name: there[name] for name in ("output_ema", "gradient", "cotangent") if name in there}
    images = {name: _channels_last(array, shape) for name, array in images.items()}
    label = one(_LABELS).reshape(-1)
    for name, array in images.items():
        if array.shape != (len(label), *shape) or not array.size or array.dtype.kind not in "fiu":
            raise InputError(
                f"{path} has {name} of shape {array.shape} and {len(label)} labels; expected {('n', *shape)} and n "
                "labels."
            )
    if ("gradient" in images) != ("cotangent" in images):
        raise InputError(f"{path} has only one of gradient and cotangent; expected both or neither.")
    if label.dtype.kind not in "fiu":
        raise InputError(f"{path} has labels of type {label.dtype}; expected numbers.")
    return Expected(label=label, **images | {"x": images["x"].astype(np.float32)})


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file can make NumPy and its zip reader raise any exception
        raise InputError(
            f"{path} cannot be read as .npz ({' '.join(str(error).split())[:120] or type(error).__name__})."
        ) from error


def _channels_last(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    first = images.ndim == 4 and images.shape[1:] != shape and images.shape[1:] == (shape[2], *shape[:2])
    return images.transpose(0, 2, 3, 1) if first else images


def differences(apply: Apply, items: dict[str, Any], expected: Expected) -> tuple[Difference, ...]:
    """Return how far outputs, and gradients with respect to x, are from expected values, for each set of weights.

    `apply` is (params, x, time_label) -> output, as the published code computes the output (`as_published`).
    """
    found = []
    for item, params in items.items():
        output = expected.output if item == "params" or expected.output_ema is None else expected.output_ema
        # One set of outputs may come from either set of weights: compare it with both.
        gradient = expected.gradient if item == "params" or expected.output_ema is None else None
        ours, slopes = _evaluated(apply, params, expected)
        found.append(_difference("outputs", item, ours, output))
        if gradient is not None and slopes is not None:
            found.append(_difference("input gradients", item, slopes, gradient))
    return tuple(found)


def are_suspicious(found: tuple[Difference, ...], expected: Expected) -> bool:
    """Return whether differences exceed rounding; with one set of outputs, only if both sets of weights do."""
    for what in {each.what for each in found}:
        beyond = [not each.relative <= _SUSPICIOUS for each in found if each.what == what]
        if all(beyond) or (expected.output_ema is not None and any(beyond)):
            return True
    return False


def _evaluated(apply: Apply, params: Any, expected: Expected) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute outputs, and gradients with respect to x if there are cotangents."""

    @jax.jit
    def run(params: Any, x: Any, label: Any, cotangent: Any) -> tuple[Any, Any]:
        output, backward = jax.vjp(lambda x: apply(params, x, label), x)
        return output, None if cotangent is None else backward(cotangent)[0]

    parts = []
    with jax.default_matmul_precision("highest"):
        for begin in range(0, len(expected.x), _BATCH):
            rows = slice(begin, begin + _BATCH)
            cotangent = None if expected.cotangent is None else jnp.asarray(expected.cotangent[rows], jnp.float32)
            parts.append(run(params, jnp.asarray(expected.x[rows]), jnp.asarray(expected.label[rows]), cotangent))
    outputs = np.concatenate([np.asarray(output) for output, _ in parts])
    slopes = None if expected.cotangent is None else np.concatenate([np.asarray(slope) for _, slope in parts])
    return outputs, slopes


def _difference(what: str, item: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    apart = np.abs(ours.astype(np.float64) - theirs).reshape(len(ours), -1).max(axis=1)
    size = np.abs(theirs.astype(np.float64)).reshape(len(ours), -1).max(axis=1)
    relative = apart / np.maximum(size, np.finfo(np.float32).tiny)
    return Difference(what, item, len(ours), float(apart.max()), float(relative.max()))
