"""This module describes a parameter by its names here and in published files, and the parameters of a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

# For each axis of our tensor, the axis in the PyTorch port.
_CONV, _LINEAR = (2, 3, 1, 0), (1, 0)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A `Tensor` describes one parameter and its names in published files.

    Attributes:
        path: path in our parameters.
        shape: shape of our parameter.
        torch: name in the PyTorch port's state dict, without 'module.'.
        flax: name in the original's parameters, with slashes.
        axes: for each axis of our parameter, the axis in the port; None for equal order.
        trained: False if no gradient reaches the parameter; the port's averages and optimizer omit this parameter.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    torch: str
    flax: str
    axes: tuple[int, ...] | None = None
    trained: bool = True

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Return the shape in the port's file."""
        if self.axes is None:
            return self.shape
        return tuple(self.shape[self.axes.index(i)] for i in range(len(self.shape)))

    def in_file(self, form: str) -> tuple[str, tuple[int, ...]]:
        """Return the name and the shape in a file of the form 'torch' or 'flax'."""
        return (self.torch, self.torch_shape) if form == "torch" else (self.flax, self.shape)

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        """Return the port's array with the axes in our order."""
        return array if self.axes is None else array.transpose(self.axes)


def conv(
    path: tuple[str, ...], torch: str, flax: str, size: int, inputs: int, outputs: int, kernel: str = "kernel"
) -> Iterator[Tensor]:
    yield Tensor((*path, "kernel"), (size, size, inputs, outputs), f"{torch}.weight", f"{flax}/{kernel}", _CONV)
    yield Tensor((*path, "bias"), (outputs,), f"{torch}.bias", f"{flax}/bias")


def linear(path: tuple[str, ...], torch: str, flax: str, inputs: int, outputs: int) -> Iterator[Tensor]:
    yield Tensor((*path, "kernel"), (inputs, outputs), f"{torch}.weight", f"{flax}/kernel", _LINEAR)
    yield Tensor((*path, "bias"), (outputs,), f"{torch}.bias", f"{flax}/bias")


def projection(path: tuple[str, ...], torch: str, flax: str, inputs: int, outputs: int) -> Iterator[Tensor]:
    """Yield the tensors of a 1 x 1 convolution stored as a matrix, which the published code calls NIN."""
    yield Tensor((*path, "kernel"), (inputs, outputs), f"{torch}.W", f"{flax}/W")
    yield Tensor((*path, "bias"), (outputs,), f"{torch}.b", f"{flax}/b")


def norm(path: tuple[str, ...], torch: str, flax: str, channels: int) -> Iterator[Tensor]:
    yield Tensor((*path, "scale"), (channels,), f"{torch}.weight", f"{flax}/scale")
    yield Tensor((*path, "bias"), (channels,), f"{torch}.bias", f"{flax}/bias")
