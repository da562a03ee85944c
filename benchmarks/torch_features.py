"""This module computes the feature networks in PyTorch from our own tables, to compare the speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from score_sde.networks.features import efficientnet, inception

Params = dict[str, dict[str, torch.Tensor]]


def converted(params: Mapping[str, Mapping[str, Any]]) -> Params:
    """Return our parameters as tensors, with kernels (out, in, height, width)."""
    out: Params = {}
    for name, layer in params.items():
        kernel = np.asarray(layer["kernel"])
        kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
        out[name] = {"kernel": torch.from_numpy(np.ascontiguousarray(kernel))}
        if "bias" in layer:
            out[name]["bias"] = torch.from_numpy(np.array(layer["bias"]))
    return out


class InceptionTorch(torch.nn.Module):
    """`InceptionTorch` is the Inception of 2015 with batch norms in the convolutions."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.params = params

    def unit(self, name: str, x: torch.Tensor, stride: int = 1, same: bool = True) -> torch.Tensor:
        layer = self.params[name]
        padding = tuple(side // 2 for side in inception.UNITS[name].kernel) if same else 0
        return F.relu(F.conv2d(x, layer["kernel"], layer["bias"], stride, padding))

    def many(self, block: str, parts: str, x: torch.Tensor, last: tuple[int, bool] = (1, True)) -> torch.Tensor:
        names = [block + part for part in parts.split()]
        for name in names[:-1]:
            x = self.unit(name, x)
        return self.unit(names[-1], x, *last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.unit("Conv2d_1a_3x3", x, 2, False)
        x = self.unit("Conv2d_2b_3x3", self.unit("Conv2d_2a_3x3", x, 1, False))
        x = self.unit("Conv2d_3b_1x1", F.max_pool2d(x, 3, 2))
        x = F.max_pool2d(self.unit("Conv2d_4a_3x3", x, 1, False), 3, 2)
        for b in ("Mixed_5b.", "Mixed_5c.", "Mixed_5d."):
            parts = [
                self.unit(f"{b}branch1x1", x),
                self.many(f"{b}branch5x5_", "1 2", x),
                self.many(f"{b}branch3x3dbl_", "1 2 3", x),
                self.unit(f"{b}branch_pool", _mean(x)),
            ]
            x = torch.cat(parts, 1)
        halved, b = (2, False), "Mixed_6a."
        parts = [self.unit(f"{b}branch3x3", x, *halved), self.many(f"{b}branch3x3dbl_", "1 2 3", x, halved)]
        x = torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)
        for b in ("Mixed_6b.", "Mixed_6c.", "Mixed_6d.", "Mixed_6e."):
            parts = [
                self.unit(f"{b}branch1x1", x),
                self.many(f"{b}branch7x7_", "1 2 3", x),
                self.many(f"{b}branch7x7dbl_", "1 2 3 4 5", x),
                self.unit(f"{b}branch_pool", _mean(x)),
            ]
            x = torch.cat(parts, 1)
        b = "Mixed_7a."
        parts = [self.many(f"{b}branch3x3_", "1 2", x, halved), self.many(f"{b}branch7x7x3_", "1 2 3 4", x, halved)]
        x = torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)
        for b, pooled in (("Mixed_7b.", _mean), ("Mixed_7c.", lambda x: F.max_pool2d(x, 3, 1, 1))):
            middle, double = self.unit(f"{b}branch3x3_1", x), self.many(f"{b}branch3x3dbl_", "1 2", x)
            parts = [
                self.unit(f"{b}branch1x1", x),
                self.unit(f"{b}branch3x3_2a", middle),
                self.unit(f"{b}branch3x3_2b", middle),
                self.unit(f"{b}branch3x3dbl_3a", double),
                self.unit(f"{b}branch3x3dbl_3b", double),
                self.unit(f"{b}branch_pool", pooled(x)),
            ]
            x = torch.cat(parts, 1)
        return x.mean((2, 3))


def _mean(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class EfficientNetTorch(torch.nn.Module):
    """`EfficientNetTorch` is EfficientNet-Lite0 with batch norms in the convolutions."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.params = params

    def conv(self, name: str, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
        layer = self.params[name]
        side = layer["kernel"].shape[-1]
        pad = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in x.shape[2:]]
        x = F.pad(x, (pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2)) if any(pad) else x
        return F.conv2d(x, layer["kernel"], layer["bias"], stride, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.conv("_conv_stem", x, 2))
        for i, block in enumerate(efficientnet.BLOCKS):
            name, before = f"_blocks.{i}.", x
            if block.expand > 1:
                x = F.relu6(self.conv(f"{name}_expand_conv", x))
            x = F.relu6(self.conv(f"{name}_depthwise_conv", x, block.stride, x.shape[1]))
            x = self.conv(f"{name}_project_conv", x)
            if block.stride == 1 and block.into == block.out:
                x = x + before
        return F.relu6(self.conv("_conv_head", x)).mean((2, 3))
