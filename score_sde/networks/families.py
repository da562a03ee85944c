"""This module defines DDPM, DDPM++ and NCSN++, the U-Nets of Song et al. 2021 (arXiv:2011.13456, App. H)."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

from flax import nnx

from score_sde.core.checks import as_shape
from score_sde.core.conditions import Conditions
from score_sde.core.errors import InputError
from score_sde.networks import embeddings
from score_sde.networks.base import ModuleNetwork, check_outputs
from score_sde.networks.fold import Folded, folded_shape
from score_sde.networks.plan import CHOICES, UNetSpec
from score_sde.networks.resample import check_kernel
from score_sde.networks.unet import UNet


@dataclasses.dataclass(frozen=True)
class UNetNetwork(ModuleNetwork):
    """`UNetNetwork` holds the settings that all U-Nets have in common.

    Attributes:
        shape: (height, width, channels) of an image, with height and width divisible by fold * 2^(levels - 1).
        conditions: dict(label=Label(classes)), and vectors of numbers, each optional.
        channels: channels of the first level.
        multipliers: channels of each level, as multiples of `channels`; each level halves height and width.
        blocks: residual blocks per level.
        attention: heights of the feature maps with self-attention, each the height of a level; None selects 16 if a
            level has this height. The middle of the network always has self-attention.
        dropout: dropout rate in the residual blocks.
        fold: side of the squares of pixels that become channels before the first layer, and pixels again after the last
            layer. The network computes on height / fold and width / fold. 1 for no fold.
        stem: channels at the full resolution: a 3 x 3 convolution makes them before the fold, and another reads them
            after the unfold. Without a stem no layer sees across the border of two squares at the full resolution. 0
            for no stem.
        outputs: 2 for a second output in the shape of the image, the variance, in the last channels; otherwise 1.
        coordinates: whether a learned embedding of the coordinates of a pixel is added before every 3 x 3 convolution
            that does not resample, so that the network knows where a pixel is (Bloem, Deep Learning, VU, lecture 11).
        dtype, remat: as in ModuleNetwork.
    """

    shape: tuple[int, int, int]
    conditions: Conditions = Conditions()  # noqa: RUF009 (Conditions is immutable)
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] | None = None
    dropout: float = 0.1
    fold: int = dataclasses.field(default=1, kw_only=True)
    stem: int = dataclasses.field(default=0, kw_only=True)
    outputs: int = dataclasses.field(default=1, kw_only=True)
    coordinates: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shape", "multipliers", "attention"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_shape(f"{name} of {type(self).__name__}", getattr(self, name)))
        object.__setattr__(self, "conditions", Conditions(self.conditions))
        embeddings.reads_of(type(self).__name__, self.conditions)
        _check_sizes(self)
        if self.attention is None:
            object.__setattr__(self, "attention", (16,) if 16 in _heights(self) else ())
        for name, known in CHOICES.items():
            value = getattr(self, name, known[0])
            if value not in known:
                raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; expected a rate in [0, 1).")
        check_outputs(self.outputs)

    @abc.abstractmethod
    def spec(self) -> UNetSpec:
        """Return all settings of the U-Net."""

    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        inner = UNet(self.spec(), rngs)
        return inner if self.fold == 1 else Folded(inner, self.fold, self.shape[2], self.stem, rngs, self.outputs)

    def remarks(self) -> tuple[str, ...]:
        heights = _heights(self)
        return tuple(
            f"network.attention has {height}, and no level has that height (the levels have "
            f"{', '.join(map(str, heights))}): {height} has no effect"
            for height in self.attention or ()
            if height not in heights
        )

    def _common(self) -> dict[str, Any]:
        """Return the settings that have the same name in this class and in `UNetSpec`."""
        names = {field.name for field in dataclasses.fields(UNetSpec)}
        same = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name in names}
        reads = embeddings.reads_of(type(self).__name__, self.conditions)
        height, width, channels = self.shape
        inner = {"outputs": 1} if self.stem else {}  # with a stem, the variance reads the stem's last channels
        shape = folded_shape((height, width, self.stem or channels), self.fold)
        return same | {"shape": shape, "reads": reads} | inner


def _check_sizes(net: UNetNetwork) -> None:
    if net.fold < 1:
        raise InputError(f"fold of {type(net).__name__} is {net.fold}; expected a whole number, at least 1.")
    if net.stem < 0 or (net.stem and net.fold == 1):
        raise InputError(
            f"stem of {type(net).__name__} is {net.stem} with fold={net.fold}; expected 0, or a number of channels and "
            "a fold of 2 or more."
        )
    name, step = type(net).__name__, net.fold * 2 ** (len(net.multipliers) - 1)
    if net.channels < 1 or net.blocks < 1 or not net.multipliers or min(net.multipliers) < 1:
        raise InputError(
            f"{name} got channels={net.channels}, blocks={net.blocks}, multipliers={net.multipliers}; expected numbers "
            "of at least 1."
        )
    if len(net.shape) != 3 or any(side % step for side in net.shape[:2]):
        raise InputError(
            f"{name} got images of shape {net.shape}; expected (height, width, channels) with sides divisible by "
            f"{step} for {len(net.multipliers)} levels and fold={net.fold}: use fewer multipliers, or pad the images."
        )


def _heights(net: UNetNetwork) -> list[int]:
    """Return the height of the feature maps at each level."""
    return [net.shape[0] // net.fold >> level for level in range(len(net.multipliers))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM(UNetNetwork):
    """`DDPM` is the U-Net of Ho et al. 2020 (arXiv:2006.11239), as Song et al. 2021 trained it.

    The time label is a time or an index. GroupNorm has 32 groups.

    Attributes:
        noise_conditional: whether the network receives the noise level.
        resample_with_conv: whether a convolution accompanies each change of size.
        nonlinearity: 'swish', 'elu', 'relu' or 'lrelu'.
    """

    blocks: int = 2
    noise_conditional: bool = True
    resample_with_conv: bool = True
    nonlinearity: str = "swish"

    def spec(self) -> UNetSpec:
        return UNetSpec(**self._common(), resblock="ddpm", skip_rescale=False, groups=32)


@dataclasses.dataclass(frozen=True)
class DDPMpp(UNetNetwork):
    """`DDPMpp` is DDPM++, a U-Net of BigGAN residual blocks with attention, for VP and sub-VP SDEs.

    The largest network of the paper is channels=128, multipliers=(1, 2, 2, 2), blocks=8,
    attention=(16,), dropout=0.1 on 32 x 32 images. `NCSNpp` has every option of the paper; `DDPMpp` is the short form
    of one set of options, except that 'fourier' embeds any time label unchanged.

    Attributes:
        embedding: 'positional' or 'fourier' embedding of the time label; a config without this entry selects 'fourier'
            if the labels lie within 20 units, such as logarithms of sigma.
        fourier_scale: standard deviation of the Fourier frequencies.
    """

    embedding: str = "positional"
    fourier_scale: float = 16.0

    def spec(self) -> UNetSpec:
        return UNetSpec(**self._common())


@dataclasses.dataclass(frozen=True, kw_only=True)
class NCSNpp(UNetNetwork):
    """`NCSNpp` is NCSN++ with every option of the published code; the defaults are for the VE SDE on CIFAR-10.

    The published VE models divide the output by sigma and read centred images:
    `Score(scale_by_sigma=True, data_range=(0, 1))`.

    Attributes:
        noise_conditional: whether the network receives the noise level.
        embedding: 'fourier' embeds the logarithm of the time label, which is then sigma; 'positional' embeds a time
            or an index.
        fourier_scale: standard deviation of the Fourier frequencies.
        resblock: 'biggan' (Brock et al. 2019), whose blocks resample, or 'ddpm' (Ho et al. 2020).
        fir: whether images are resampled through a FIR filter (Karras et al. 2020, arXiv:1912.04958).
        fir_kernel: taps of the FIR filter.
        resample_with_conv: whether a convolution accompanies each change of size, with 'ddpm' blocks.
        skip_rescale: whether the sum of two branches is divided by sqrt 2.
        init_scale: scale of the initial weights of the last layer of each block; 0 means 1e-10.
        progressive: how the output grows: 'none', 'output_skip' (a sum of images), 'residual' (a sum of feature maps).
        progressive_input: how the image enters at each level: 'none', 'input_skip' or 'residual'.
        combine: how 'input_skip' joins the image and the feature map: 'sum' or 'cat'.
        nonlinearity: 'swish', 'elu', 'relu' or 'lrelu'.
    """

    noise_conditional: bool = True
    embedding: str = "fourier"
    fourier_scale: float = 16.0
    resblock: str = "biggan"
    fir: bool = True
    fir_kernel: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    resample_with_conv: bool = True
    skip_rescale: bool = True
    init_scale: float = 0.0
    progressive: str = "none"
    progressive_input: str = "residual"
    combine: str = "sum"
    nonlinearity: str = "swish"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fir_kernel", check_kernel(self.fir_kernel))
        if not self.init_scale >= 0:
            raise InputError(f"init_scale is {self.init_scale}; expected a number of at least 0.")
        if self.conditions and not self.noise_conditional:
            raise InputError("noise_conditional is False with conditions; expected True: use noise_conditional=True.")

    def spec(self) -> UNetSpec:
        return UNetSpec(**self._common(), label="sigma" if self.embedding == "fourier" else "time")
