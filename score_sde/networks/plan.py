"""This module lists the pieces of a U-Net in the order of the published code.

The list builds the module (unet.py), orders its forward pass, maps the tensors of published weights to parameters in
the importer, and is the table that a description prints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from score_sde.networks.embeddings import Reads

CHOICES = {
    "embedding": ("positional", "fourier"),
    "resblock": ("biggan", "ddpm"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "combine": ("sum", "cat"),
    "nonlinearity": ("swish", "elu", "relu", "lrelu"),
}


@dataclasses.dataclass(frozen=True)
class UNetSpec:
    """`UNetSpec` holds every setting of a U-Net of this family; `NCSNpp` explains the settings.

    Attributes:
        label: kind of the time label: 'time' embeds the label unchanged, 'sigma' embeds its logarithm.
        groups: number of groups of GroupNorm; None for min(channels // 4, 32).
        outputs: 2 for a second image, the variance, beside the first; the last normed feature map makes both.
        coordinates: whether an embedding of the pixels' coordinates is added before the 3 x 3 convolutions.
    """

    shape: tuple[int, int, int]
    reads: Reads
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    dropout: float
    embedding: str = "positional"
    fourier_scale: float = 16.0
    label: str = "time"
    noise_conditional: bool = True
    resblock: str = "biggan"
    resample_with_conv: bool = True
    fir: bool = False
    fir_kernel: tuple[float, ...] = (1, 3, 3, 1)
    skip_rescale: bool = True
    init_scale: float = 0.0
    progressive: str = "none"
    progressive_input: str = "none"
    combine: str = "sum"
    nonlinearity: str = "swish"
    groups: int | None = None
    remat: str = "none"
    outputs: int = 1
    coordinates: bool = False


@dataclasses.dataclass(frozen=True)
class Piece:
    """A `Piece` describes one module of a U-Net.

    Attributes:
        name: name of the module and of its parameters.
        kind: 'conv', 'norm', 'block', 'attention', 'resample' or 'combine'.
        role: use of the piece in the forward pass; see `UNet`.
        inputs, outputs: channels of the input and of the output.
        resample: 'down' or 'up' if the size changes, otherwise None.
        fir: whether a resampling piece applies the FIR filter.
        conv: whether a resampling piece has a convolution.
        scale: scale of the initial weights of a convolution.
        pops, pushes: whether the piece takes a skip connection from the stack, and adds one to the stack.
    """

    name: str
    kind: str
    role: str
    inputs: int
    outputs: int
    resample: str | None = None
    fir: bool = False
    conv: bool = False
    scale: float = 1.0
    pops: bool = False
    pushes: bool = False


def pieces(spec: UNetSpec) -> tuple[Piece, ...]:
    """Return the pieces of a U-Net after the time embedding, in order."""
    return tuple(_Planner(spec).plan())


def encoder_pieces(spec: UNetSpec) -> tuple[Piece, ...]:
    """Return the pieces of the first half of a U-Net, down to the middle, in order."""
    return tuple(_Planner(spec).encoder())


class _Planner:
    """A `_Planner` yields the pieces of a U-Net and counts the channels on the way down and up."""

    def __init__(self, spec: UNetSpec) -> None:
        self.spec = spec
        self.image = spec.shape[2]
        self.last = len(spec.multipliers) - 1
        self.now = spec.channels  # channels of h
        self.skips = [spec.channels]
        self.pyramid = self.image

    def encoder(self) -> Iterator[Piece]:
        yield Piece("conv_in", "conv", "start", self.image, self.spec.channels, pushes=True)
        for level in range(self.last + 1):
            yield from self._down(level)
        yield from self._middle()

    def plan(self) -> Iterator[Piece]:
        yield from self.encoder()
        for level in range(self.last, -1, -1):
            yield from self._up(level)
        if self.spec.progressive != "output_skip":
            yield Piece("norm_out", "norm", "norm", self.now, self.now)
            yield Piece("conv_out", "conv", "end", self.now, self.image, scale=self.spec.init_scale)
        if self.spec.outputs == 2:
            yield Piece("conv_variance", "conv", "variance", self.now, self.image, scale=self.spec.init_scale)

    def _attends(self, level: int) -> bool:
        return self.spec.shape[0] >> level in self.spec.attention

    def _down(self, level: int) -> Iterator[Piece]:
        width, attends = self.spec.channels * self.spec.multipliers[level], self._attends(level)
        for i in range(self.spec.blocks):
            yield Piece(f"down{level}_block{i}", "block", "block", self.now, width, pushes=not attends)
            self.now = width
            if attends:
                yield Piece(f"down{level}_attention{i}", "attention", "through", width, width, pushes=True)
            self.skips.append(width)
        if level == self.last:
            return
        merges = self.spec.progressive_input != "none"
        yield self._resampled(f"down{level}_half", "down", pushes=not merges)
        name = f"down{level}_pyramid"
        if self.spec.progressive_input == "input_skip":
            yield Piece(name, "resample", "pyramid", self.image, self.image, "down", fir=self.spec.fir)
            yield Piece(f"down{level}_combine", "combine", "combine", self.image, self.now, pushes=True)
            self.now *= 2 if self.spec.combine == "cat" else 1
        elif self.spec.progressive_input == "residual":
            settings = dict(fir=self.spec.fir, conv=True, pushes=True)
            yield Piece(name, "resample", "pyramid_residual", self.pyramid, self.now, "down", **settings)
            self.pyramid = self.now
        self.skips.append(self.now)

    def _middle(self) -> Iterator[Piece]:
        for name, kind, role in (("block0", "block", "block"), ("attention", "attention", "through")):
            yield Piece(f"middle_{name}", kind, role, self.now, self.now)
        yield Piece("middle_block1", "block", "block", self.now, self.now)

    def _up(self, level: int) -> Iterator[Piece]:
        width = self.spec.channels * self.spec.multipliers[level]
        for i in range(self.spec.blocks + 1):
            yield Piece(f"up{level}_block{i}", "block", "block", self.now + self.skips.pop(), width, pops=True)
            self.now = width
        if self._attends(level):
            yield Piece(f"up{level}_attention", "attention", "through", width, width)
        yield from self._up_pyramid(level)
        if level > 0:
            yield self._resampled(f"up{level}_double", "up")

    def _up_pyramid(self, level: int) -> Iterator[Piece]:
        name, fir, deepest = f"up{level}_pyramid", self.spec.fir, level == self.last
        norm = Piece(f"up{level}_norm", "norm", "norm", self.now, self.now)
        if self.spec.progressive == "output_skip":
            if not deepest:
                yield Piece(name, "resample", "pyramid", self.image, self.image, "up", fir=fir)
            yield norm
            yield Piece(f"up{level}_conv", "conv", "skip", self.now, self.image, scale=self.spec.init_scale)
        elif self.spec.progressive == "residual" and deepest:
            yield norm
            yield Piece(f"up{level}_conv", "conv", "skip", self.now, self.now)
            self.pyramid = self.now
        elif self.spec.progressive == "residual":
            yield Piece(name, "resample", "pyramid_residual", self.pyramid, self.now, "up", fir=fir, conv=True)
            self.pyramid = self.now

    def _resampled(self, name: str, direction: str, pushes: bool = False) -> Piece:
        if self.spec.resblock == "biggan":
            return Piece(name, "block", "block", self.now, self.now, direction, fir=self.spec.fir, pushes=pushes)
        conv = self.spec.resample_with_conv
        return Piece(
            name, "resample", "through", self.now, self.now, direction, fir=self.spec.fir, conv=conv, pushes=pushes
        )
