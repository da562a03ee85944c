"""This module makes DDPM++ and NCSN++ in PyTorch from the plan of score_sde, with the parameters of score_sde.

No extra of score_sde installs PyTorch: `pip install torch --index-url https://download.pytorch.org/whl/cpu`, or the
command of pytorch.org for a GPU. Images are (batch, channels, height, width). `channels_last` gives the images the
memory layout of XLA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from score_sde.networks.plan import Piece, UNetSpec, pieces

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "elu": F.elu,
    "relu": F.relu,
    "lrelu": lambda x: F.leaky_relu(x, 0.2),
}


def merged(x: Tensor, h: Tensor, rescale: bool) -> Tensor:
    return (x + h) * (1 / math.sqrt(2)) if rescale else x + h


def group_norm(channels: int, groups: int | None) -> nn.GroupNorm:
    wanted = max(1, min(channels // 4, 32) if groups is None else min(channels, groups))
    return nn.GroupNorm(next(g for g in range(wanted, 0, -1) if channels % g == 0), channels, eps=1e-6)


class Fir:
    """`Fir` applies the same taps along both axes, as one depthwise convolution."""

    def __init__(self, kernel: Sequence[float]) -> None:
        taps = np.asarray(kernel, np.float64) / np.sum(kernel)
        self.taps, self.weights = torch.tensor(np.outer(taps, taps)[::-1, ::-1].copy()), {}

    def __call__(self, x: Tensor, gain: float, down: int, pad: tuple[int, int]) -> Tensor:
        channels, key = x.shape[1], (x.shape[1], x.dtype, x.device, gain)
        if key not in self.weights:
            weight = (gain * self.taps).to(x.device, x.dtype)
            self.weights[key] = weight.expand(channels, 1, *weight.shape).contiguous()
        return F.conv2d(F.pad(x, (*pad, *pad)), self.weights[key], stride=down, groups=channels)

    @property
    def spare(self) -> int:
        return len(self.taps) - 2

    def downsample(self, x: Tensor) -> Tensor:
        return self(x, 1.0, 2, ((self.spare + 1) // 2, self.spare // 2))

    def upsample(self, x: Tensor) -> Tensor:
        return self(stuffed(x), 4.0, 1, ((self.spare + 1) // 2 + 1, self.spare // 2))

    def conv_downsample(self, x: Tensor, weight: Tensor) -> Tensor:
        spare = self.spare + weight.shape[-1] - 1
        return F.conv2d(self(x, 1.0, 1, ((spare + 1) // 2, spare // 2)), weight, stride=2)

    def conv_upsample(self, x: Tensor, weight: Tensor) -> Tensor:
        spare = self.spare - (weight.shape[-1] - 1)
        x = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)
        return self(x, 4.0, 1, ((spare + 1) // 2 + 1, spare // 2 + 1))


def stuffed(x: Tensor) -> Tensor:
    """Return an image of twice the height and width, with zeros after each pixel."""
    batch, channels, height, width = x.shape
    wide = torch.stack([x, torch.zeros_like(x)], dim=4).reshape(batch, channels, height, 2 * width)
    return torch.stack([wide, torch.zeros_like(wide)], dim=3).reshape(batch, channels, 2 * height, 2 * width)


def resized(x: Tensor, direction: str, fir: Fir | None) -> Tensor:
    if fir is not None:
        return fir.downsample(x) if direction == "down" else fir.upsample(x)
    return F.avg_pool2d(x, 2) if direction == "down" else F.interpolate(x, scale_factor=2.0, mode="nearest")


class Block(nn.Module):
    """`Block` is the residual block of DDPM or of BigGAN."""

    def __init__(self, piece: Piece, spec: UNetSpec, fir: Fir) -> None:
        super().__init__()
        inputs, outputs = piece.inputs, piece.outputs
        self.act, self.rate, self.rescale = ACTIVATIONS[spec.nonlinearity], spec.dropout, spec.skip_rescale
        self.direction, self.fir = piece.resample, fir if spec.fir else None
        self.norm_in, self.norm_out = group_norm(inputs, spec.groups), group_norm(outputs, spec.groups)
        self.conv_in, self.conv_out = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.embed = nn.Linear(4 * spec.channels, outputs) if spec.noise_conditional else None
        self.shortcut = None if inputs == outputs and piece.resample is None else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.act(self.norm_in(x))
        if self.direction is not None:
            h, x = (resized(image, self.direction, self.fir) for image in (h, x))
        h = self.conv_in(h)
        if self.embed is not None and embedding is not None:
            h = h + self.embed(self.act(embedding))[:, :, None, None]
        h = self.conv_out(F.dropout(self.act(self.norm_out(h)), self.rate, self.training))
        return merged(x if self.shortcut is None else self.shortcut(x), h, self.rescale)


class Attention(nn.Module):
    """`Attention` is self-attention over all pixels with one head."""

    def __init__(self, channels: int, spec: UNetSpec) -> None:
        super().__init__()
        self.norm, self.rescale = group_norm(channels, spec.groups), spec.skip_rescale
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = self.norm(x).permute(0, 2, 3, 1).reshape(batch, 1, height * width, channels)
        h = self.out(F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h)))
        return merged(x, h.reshape(batch, height, width, channels).permute(0, 3, 1, 2), self.rescale)


class Resample(nn.Module):
    """`Resample` halves or doubles an image, optionally with the filter and optionally with a convolution."""

    def __init__(self, piece: Piece, spec: UNetSpec, fir: Fir) -> None:
        super().__init__()
        self.direction, self.fir = str(piece.resample), fir if spec.fir else None
        self.conv = nn.Conv2d(piece.inputs, piece.outputs, 3) if piece.conv else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is None:
            return resized(x, self.direction, self.fir)
        if self.fir is not None:
            change = self.fir.conv_downsample if self.direction == "down" else self.fir.conv_upsample
            return change(x, self.conv.weight) + self.conv.bias[:, None, None]
        if self.direction == "down":
            # The padding SAME of XLA adds zeros only after the last row and after the last column.
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.conv.weight, self.conv.bias, stride=2)
        return F.conv2d(resized(x, "up", None), self.conv.weight, self.conv.bias, padding=1)


class Combine(nn.Module):
    """`Combine` concatenates the input pyramid and h, or adds the input pyramid to h."""

    def __init__(self, piece: Piece, spec: UNetSpec) -> None:
        super().__init__()
        self.conv, self.method = nn.Conv2d(piece.inputs, piece.outputs, 1), spec.combine

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        part = self.conv(pyramid)
        return torch.cat([part, h], dim=1) if self.method == "cat" else part + h


class Embedding(nn.Module):
    """`Embedding` maps the time label and the class to one vector."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.act, self.channels, self.fourier = (
            ACTIVATIONS[spec.nonlinearity],
            spec.channels,
            spec.embedding == "fourier",
        )
        inputs, width = spec.channels * (2 if self.fourier else 1), 4 * spec.channels
        if self.fourier:
            self.register_buffer("frequencies", torch.zeros(spec.channels))
        conditional = spec.noise_conditional
        self.hidden, self.out = (nn.Linear(size, width) if conditional else None for size in (inputs, width))
        self.classes = None if spec.reads.classes is None else nn.Embedding(spec.reads.classes + 1, width)

    def forward(self, label: Tensor, classes: Tensor | None) -> Tensor | None:
        if self.hidden is None or self.out is None:
            return None
        if self.fourier:
            angles = label[:, None] * self.frequencies * 2 * math.pi
        else:
            half = self.channels // 2
            exponents = torch.arange(half, dtype=torch.float64, device=label.device) / max(half - 1, 1)
            angles = label[:, None] * torch.exp(-math.log(10000) * exponents).to(label.dtype)
        embedded = F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, 0 if self.fourier else self.channels % 2))
        embedded = self.out(self.act(self.hidden(embedded)))
        if self.classes is None:
            return embedded
        no_class = torch.full(label.shape, self.classes.num_embeddings - 1, device=label.device)
        return embedded + self.classes(no_class if classes is None else classes)


class UNet(nn.Module):
    """`UNet` maps (x, time label, classes) to the output of the score_sde network of the same spec and parameters."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec, self.plan, fir = spec, pieces(spec), Fir(spec.fir_kernel)
        self.embedding = Embedding(spec)
        self.parts = nn.ModuleDict({piece.name: _part(piece, spec, fir) for piece in self.plan})

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        act, rescale = ACTIVATIONS[self.spec.nonlinearity], self.spec.skip_rescale
        label = label.log() if self.spec.label == "sigma" else label
        embedding = self.embedding(label, classes)
        h, normed, pyramid, skips = x, x, x, []
        for piece in self.plan:
            part = self.parts[piece.name]
            if piece.role in ("start", "through"):
                h = part(h)
            elif piece.role == "block":
                h = part(torch.cat([h, skips.pop()], dim=1) if piece.pops else h, embedding)
            elif piece.role == "pyramid":
                pyramid = part(pyramid)
            elif piece.role == "pyramid_residual":
                h = pyramid = merged(part(pyramid), h, rescale)
            elif piece.role == "combine":
                h = part(pyramid, h)
            elif piece.role == "norm":
                normed = act(part(h))
            elif piece.role == "skip":
                pyramid = part(normed) if pyramid is None else pyramid + part(normed)
            else:
                h = part(normed)
            if piece.pushes:
                skips.append(h)
            if piece.name == "middle_block1":
                pyramid = None
        return pyramid if self.spec.progressive == "output_skip" else h


def _part(piece: Piece, spec: UNetSpec, fir: Fir) -> nn.Module:
    if piece.kind == "block":
        return Block(piece, spec, fir)
    if piece.kind == "attention":
        return Attention(piece.inputs, spec)
    if piece.kind == "resample":
        return Resample(piece, spec, fir)
    if piece.kind == "combine":
        return Combine(piece, spec)
    if piece.kind == "norm":
        return group_norm(piece.inputs, spec.groups)
    return nn.Conv2d(piece.inputs, piece.outputs, 3, padding=1)


def with_parameters(unet: UNet, params: Mapping[str, Any]) -> UNet:
    """Return the network with the parameters of score_sde.

    Raises:
        ValueError: for a parameter that only one of the two networks has.
    """
    state = unet.state_dict()
    arrays = {name if name.startswith("embedding.") else f"parts.{name}": array for name, array in _flat(params)}
    if arrays.keys() != state.keys():
        raise ValueError(
            f"only one of the two networks has the parameters {sorted(arrays.keys() ^ state.keys())}; expected none."
        )
    unet.load_state_dict({name: torch.tensor(array.reshape(state[name].shape)) for name, array in arrays.items()})
    return unet


def _flat(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, np.ndarray]]:
    """Return (name, array with the output axis first) of each parameter."""
    parameters = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            parameters += _flat(value, (*path, name))
            continue
        array = np.asarray(value)
        if name == "kernel":
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        last_name = "weight" if name in ("kernel", "scale", "embedding") else name
        parameters.append((".".join((*(part for part in path if part != "fourier"), last_name)), np.array(array)))
    return parameters
