"""This module lists the names of the tensors of NCSN and NCSNv2."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from score_sde.networks import RefineNetwork
from score_sde.pretrained.tensor import Tensor, conv

# The port's names of the sections and of the blocks on the way up, by depth. The original numbers them.
_SECTIONS = {64: "1 2 3 4", 128: "1 2 3 4 5", 256: "1 2 3 31 4 5"}
_REFINED = {64: "1 2 3 4", 128: "1 2 3 4 5", 256: "1 2 31 3 4 5"}


class _Within:
    """`_Within` makes the names inside one module; the original numbers the parts of a module by class."""

    def __init__(self, net: RefineNetwork, path: tuple[str, ...], torch: str, flax: str) -> None:
        self.net, self.path, self.torch, self.flax = net, path, torch, flax
        self.counts = collections.Counter[str]()

    def part(self, kind: str) -> str:
        name = f"{kind}_{self.counts[kind]}"
        self.counts[kind] += 1
        return f"{self.flax}/{name}" if self.flax else name

    def inner(self, ours: str, torch: str, kind: str) -> _Within:
        return _Within(self.net, (*self.path, ours), f"{self.torch}{torch}.", self.part(kind))

    def conv(self, ours: str, torch: str, size: int, inputs: int, outputs: int, bias: bool = True) -> Iterator[Tensor]:
        found = conv((*self.path, ours), self.torch + torch, self.part("Conv"), size, inputs, outputs)
        return (each for each in found if bias or each.path[-1] == "kernel")

    def pooled(self, ours: str, torch: str, size: int, inputs: int, outputs: int) -> Iterator[Tensor]:
        """Yield the tensors of a convolution inside a module that takes means of its output."""
        flax = self.part("ConvMeanPool") + "/Conv_0"
        return conv((*self.path, ours), f"{self.torch}{torch}.conv", flax, size, inputs, outputs)

    def norm(self, ours: str, torch: str, channels: int) -> Iterator[Tensor]:
        if self.net.conditional:
            flax = self.part("ConditionalInstanceNorm2dPlus")
            path, rows = (*self.path, ours, "rows", "embedding"), (self.net.levels, 3 * channels)
            yield Tensor(path, rows, f"{self.torch}{torch}.embed.weight", f"{flax}/Embed_0/embedding")
            return
        flax = self.part("InstanceNorm2dPlus")
        for name in ("alpha", "gamma", "beta"):
            names = f"{self.torch}{torch}.{name}", f"{flax}/{name}"
            yield Tensor((*self.path, ours, name), (channels,), *names)


def refine_tensors(net: RefineNetwork) -> Iterator[Tensor]:
    """Yield every parameter of a RefineNet."""
    depth, cond = net.depth or 64, "Conditional" if net.conditional else ""
    top = _Within(net, (), "", "")
    yield from top.conv("conv_in", "begin_conv", 3, net.shape[2], net.channels)
    now = net.channels
    for i, ((width, halves, dilation), torch) in enumerate(zip(net.sections, _SECTIONS[depth].split(), strict=True)):
        for j, inputs in enumerate((now, width)):
            within = top.inner(f"section{i}_block{j}", f"res{torch}.{j}", f"{cond}ResidualBlock")
            yield from _block(within, inputs, width, halves and j == 0, dilation)
        now = width
    widths = [width for width, _, _ in net.sections][::-1]
    prefix = "Cond" if net.conditional else ""
    for i, (outputs, torch) in enumerate(zip(net.refined, _REFINED[depth].split(), strict=True)):
        inputs_of = (widths[i],) if i == 0 else (widths[i], net.refined[i - 1])
        within = top.inner(f"refine{i}", f"refine{torch}", f"{prefix}RefineBlock")
        yield from _refine(within, inputs_of, outputs, i == len(widths) - 1, prefix)
    yield from top.norm("norm_out", "normalizer", net.refined[-1])
    yield from top.conv("conv_out", "end_conv", 3, net.refined[-1], net.shape[2])


def _block(at: _Within, inputs: int, outputs: int, halves: bool, dilation: int) -> Iterator[Tensor]:
    width, pools = inputs if halves else outputs, halves and dilation == 1
    yield from at.norm("norm1", "normalize1", inputs)
    yield from at.conv("conv1", "conv1", 3, inputs, width)
    yield from at.norm("norm2", "normalize2", width)
    if pools:
        yield from at.pooled("conv2", "conv2", 3, width, outputs)
        yield from at.pooled("shortcut", "shortcut", 1, inputs, outputs)
        return
    yield from at.conv("conv2", "conv2", 3, width, outputs)
    if halves or inputs != outputs:
        yield from at.conv("shortcut", "shortcut", 3 if dilation > 1 else 1, inputs, outputs)


def _refine(at: _Within, inputs: tuple[int, ...], outputs: int, last: bool, prefix: str) -> Iterator[Tensor]:
    for i, width in enumerate(inputs):
        yield from _units(at.inner(f"adapt{i}", f"adapt_convs.{i}", f"{prefix}RCUBlock"), width, 2)
    if len(inputs) > 1:
        merge = at.inner("", "msf", f"{prefix}MSFBlock")
        merge.path = at.path
        for i, width in enumerate(inputs):
            if at.net.conditional:
                yield from merge.norm(f"merge_norm{i}", f"norms.{i}", width)
            yield from merge.conv(f"merge{i}", f"convs.{i}", 3, width, outputs)
    pool = at.inner("", "crp", f"{prefix}CRPBlock")
    pool.path = at.path
    for i in range(2):
        if at.net.conditional:
            yield from pool.norm(f"pool_norm{i}", f"norms.{i}", outputs)
        yield from pool.conv(f"pool{i}", f"convs.{i}", 3, outputs, outputs, bias=False)
    yield from _units(at.inner("out", "output_convs", f"{prefix}RCUBlock"), outputs, 3 if last else 1)


def _units(at: _Within, channels: int, blocks: int) -> Iterator[Tensor]:
    for i in range(2 * blocks):
        place = f"{i // 2 + 1}_{i % 2 + 1}"
        if at.net.conditional:
            yield from at.norm(f"norm{i}", f"{place}_norm", channels)
        yield from at.conv(f"conv{i}", f"{place}_conv", 3, channels, channels, bias=False)
