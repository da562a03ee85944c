"""This module maps the names of tensors in published checkpoints to the parameters of this library."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

from score_sde.core.errors import InputError
from score_sde.networks import DDPM, Network, Piece, RefineNetwork, UNetNetwork, UNetSpec, pieces
from score_sde.pretrained.refinenet_names import refine_tensors
from score_sde.pretrained.tensor import Tensor, conv, linear, norm, projection


def tensors(network: Network) -> tuple[Tensor, ...]:
    """Return every parameter of a network, in the order of the port's parameters.

    Raises:
        InputError: if the network has no published form.
    """
    if isinstance(network, RefineNetwork):
        return tuple(refine_tensors(network))
    if not isinstance(network, UNetNetwork):
        raise InputError(
            f"network.name is {type(network).__name__}, of which no weights are published; expected DDPM, DDPMpp, "
            "NCSNpp, NCSN or NCSNv2: use a config such as configs/cifar10.py."
        )
    if network.conditions:
        raise InputError("The published networks read no conditions: use data.given=().")
    return tuple(_UNetNames(network.spec(), isinstance(network, DDPM)).walk())


def unused(network: Network) -> frozenset[str]:
    """Return the names of tensors that the port makes and never uses: the unused noise-level inputs of the blocks."""
    if not isinstance(network, UNetNetwork) or network.spec().noise_conditional:
        return frozenset()
    told = dataclasses.replace(network.spec(), noise_conditional=True)
    # Without the two layers of the embedding, every place in the list is lower by two.
    found = []
    for each in _UNetNames(told, isinstance(network, DDPM)).walk():
        prefix, place, *rest = each.torch.split(".")
        if "Dense_0" in rest:
            found.append(".".join((prefix, str(int(place) - 2), *rest)))
    return frozenset(found)


class _UNetNames:
    """`_UNetNames` numbers modules as the published code does: the port by place in a list, the original by class."""

    def __init__(self, spec: UNetSpec, plain: bool) -> None:
        self.spec = spec
        self.place, self.counts = 0, collections.Counter[str]()
        self.block = "ResnetBlockDDPM" if plain else f"ResnetBlock{'BigGAN' if spec.resblock == 'biggan' else 'DDPM'}pp"
        self.attention = "AttnBlock" if plain else "AttnBlockpp"

    def walk(self) -> Iterator[Tensor]:
        width = self.spec.channels
        embedded = width
        if self.spec.embedding == "fourier":
            torch, flax = self._next("GaussianFourierProjection")
            embedded = 2 * width
            path = ("embedding", "fourier", "frequencies")
            yield Tensor(path, (width,), f"{torch}.W", f"{flax}/W", trained=False)
        if self.spec.noise_conditional:
            for name, inputs in (("hidden", embedded), ("out", 4 * width)):
                yield from linear(("embedding", name), *self._next("Dense"), inputs, 4 * width)
        for piece in pieces(self.spec):
            yield from getattr(self, f"_{piece.kind}")(piece)

    def _next(self, kind: str, listed: bool = True) -> tuple[str, str]:
        """Return the names of the next module of a class, in the port and in the original."""
        flax = f"{kind}_{self.counts[kind]}"
        self.counts[kind] += 1
        torch = f"all_modules.{self.place}"
        self.place += listed
        return torch, flax

    def _conv(self, piece: Piece) -> Iterator[Tensor]:
        yield from conv((piece.name,), *self._next("Conv"), 3, piece.inputs, piece.outputs)

    def _norm(self, piece: Piece) -> Iterator[Tensor]:
        yield from norm((piece.name,), *self._next("GroupNorm"), piece.inputs)

    def _combine(self, piece: Piece) -> Iterator[Tensor]:
        torch, flax = self._next("Combine")
        yield from conv((piece.name, "conv"), f"{torch}.Conv_0", f"{flax}/Conv_0", 1, piece.inputs, piece.outputs)

    def _resample(self, piece: Piece) -> Iterator[Tensor]:
        # The port keeps the pyramids' resampling modules, which have no weights, outside its list.
        torch, flax = self._next("Downsample" if piece.resample == "down" else "Upsample", piece.role != "pyramid")
        if piece.conv:
            name, kernel = ("Conv2d_0", "weight") if piece.fir else ("Conv_0", "kernel")
            path, sizes = (piece.name, "conv"), (3, piece.inputs, piece.outputs)
            yield from conv(path, f"{torch}.{name}", f"{flax}/{name}", *sizes, kernel=kernel)

    def _attention(self, piece: Piece) -> Iterator[Tensor]:
        torch, flax = self._next(self.attention)
        width = piece.inputs
        yield from norm((piece.name, "norm"), f"{torch}.GroupNorm_0", f"{flax}/GroupNorm_0", width)
        for i, name in enumerate(("query", "key", "value", "out")):
            yield from projection((piece.name, name), f"{torch}.NIN_{i}", f"{flax}/NIN_{i}", width, width)

    def _block(self, piece: Piece) -> Iterator[Tensor]:
        torch, flax = self._next(self.block)
        inputs, outputs = piece.inputs, piece.outputs

        def named(ours: str, theirs: str) -> tuple[tuple[str, ...], str, str]:
            return (piece.name, ours), f"{torch}.{theirs}", f"{flax}/{theirs}"

        yield from norm(*named("norm_in", "GroupNorm_0"), inputs)
        yield from conv(*named("conv_in", "Conv_0"), 3, inputs, outputs)
        if self.spec.noise_conditional:
            yield from linear(*named("embed", "Dense_0"), 4 * self.spec.channels, outputs)
        yield from norm(*named("norm_out", "GroupNorm_1"), outputs)
        yield from conv(*named("conv_out", "Conv_1"), 3, outputs, outputs)
        if self.spec.resblock == "biggan" and (inputs != outputs or piece.resample):
            yield from conv(*named("shortcut", "Conv_2"), 1, inputs, outputs)
        elif inputs != outputs:
            yield from projection(*named("shortcut", "NIN_0"), inputs, outputs)
