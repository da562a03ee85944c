"""One parameter under its names here and there, and the small groups of them that make a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

# From a tensor of the PyTorch port to one of ours: axes in our order.
_CONV, _LINEAR = (2, 3, 1, 0), (1, 0)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One parameter, and its names elsewhere.

    Attributes:
        path: in our parameters.
        shape: of our parameter.
        torch: the name in the PyTorch port's state dict, without 'module.'.
        flax: the name in the original's parameters, with slashes.
        axes: the order of the port's axes in ours; None for the same.
        trained: False for what no gradient reaches, which the port's averages and optimizer leave out.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    torch: str
    flax: str
    axes: tuple[int, ...] | None = None
    trained: bool = True

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """The shape in the port's file."""
        if self.axes is None:
            return self.shape
        return tuple(self.shape[self.axes.index(i)] for i in range(len(self.shape)))

    def in_file(self, form: str) -> tuple[str, tuple[int, ...]]:
        """Name and shape in a file of the form 'torch' or 'flax'."""
        return (self.torch, self.torch_shape) if form == "torch" else (self.flax, self.shape)

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        """The port's array in our order of axes."""
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
    """Called NIN there: a 1 x 1 convolution kept as a matrix."""
    yield Tensor((*path, "kernel"), (inputs, outputs), f"{torch}.W", f"{flax}/W")
    yield Tensor((*path, "bias"), (outputs,), f"{torch}.b", f"{flax}/b")


def norm(path: tuple[str, ...], torch: str, flax: str, channels: int) -> Iterator[Tensor]:
    yield Tensor((*path, "scale"), (channels,), f"{torch}.weight", f"{flax}/scale")
    yield Tensor((*path, "bias"), (channels,), f"{torch}.bias", f"{flax}/bias")
