"""This module trains, evaluates and samples the twin network in PyTorch on one device, as a PyTorch user does.

The network is benchmarks/torch_unet.py with the parameters of score_sde. The device is the GPU if PyTorch finds a GPU,
and the CPU otherwise.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import score_sde as ss
from benchmarks import torch_unet

STEPS = 20


class Twin:
    """`Twin` is the twin of an experiment on VP that predicts noise, or on VE that predicts the score times sigma.

    Args:
        experiment: the experiment of the network.
        params: the parameters of the network.
        values: a batch of the data, (batch, height, width, channels).
        precision: 'float32', 'tf32' (the fast products of a GPU), or 'bfloat16' (autocast; parameters stay float32).
    """

    def __init__(self, experiment: ss.Experiment, params: Any, values: np.ndarray, precision: str = "float32") -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision, self.sde, self.codec = precision, experiment.sde, experiment.codec
        unet = torch_unet.with_parameters(torch_unet.UNet(experiment.network.spec()), params)
        self.unet = unet.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.unet).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.unet.parameters(), lr=2e-4, fused=True)
        self.values = torch.tensor(values, device=self.device).permute(0, 3, 1, 2)
        self.network: Callable[..., Any] = self.unet
        torch.backends.cudnn.benchmark = True

    def compiled(self, mode: str | None = None) -> Twin:
        """Return a twin whose network torch.compile compiles."""
        twin = copy.copy(self)
        twin.network = torch.compile(self.unet, mode=mode)
        return twin

    def outputs(self, x: Any, label: Any) -> Any:
        """Return the output of the network in float32, computed in the precision of the twin."""
        is_tf32 = self.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_tf32
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.network(x, label).float()

    def marginal(self, t: Any) -> tuple[Any, Any, Any]:
        """Return (alpha, sigma, time label); alpha and sigma have a shape that multiplies images."""
        if isinstance(self.sde, ss.VE):
            low, high = self.sde.sigma_min, self.sde.sigma_max
            sigma = low * (high / low) ** t
            return torch.ones_like(sigma)[:, None, None, None], sigma[:, None, None, None], sigma
        log_alpha = -t * self.sde.beta_min / 2 - t**2 * (self.sde.beta_max - self.sde.beta_min) / 4
        sigma = (-torch.expm1(2 * log_alpha)).sqrt()
        return log_alpha.exp()[:, None, None, None], sigma[:, None, None, None], 999 * t

    def step(self) -> Any:
        """Make a training step (dequantise, perturb, predict the noise, clip, Adam, average), and return the loss."""
        self.unet.train()
        x0 = 2 * (self.values + torch.rand(self.values.shape, device=self.device) - 0.5) / self.codec.maximum - 1
        x0 = x0.contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(x0)
        alpha, sigma, label = self.marginal(torch.rand(len(self.values), device=self.device) * (1 - 1e-5) + 1e-5)
        out = self.outputs(alpha * x0 + sigma * noise, label)
        loss = (out + noise if isinstance(self.sde, ss.VE) else out - noise).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.unet.parameters()), 0.001)
        return loss.detach()

    def evaluate(self, x: Any) -> Any:
        """Make one network evaluation, and return one value of the output on the device."""
        self.unet.eval()
        with torch.no_grad():
            return self.outputs(x, torch.full((len(x),), 500.0, device=self.device)).flatten()[0]

    def likelihood_field(self, x: Any) -> float:
        """Compute drift and divergence of the probability flow with one probe, by one vector-Jacobian product.

        score_sde uses forward mode. PyTorch has no forward mode for scaled_dot_product_attention on a CPU.
        """
        self.unet.eval()
        probe, label = torch.sign(x), torch.full((len(x),), 500.0, device=self.device)
        x = x.detach().requires_grad_(True)
        out = self.outputs(x, label)
        (product,) = torch.autograd.grad(out, x, probe)
        return float((out + product * probe).detach().flatten()[0])

    def sample(self, x: Any) -> float:
        """Make STEPS steps of Euler's method on the probability flow of VP, in a Python loop."""
        self.unet.eval()
        times = torch.linspace(1, 1e-3, STEPS + 1, device=self.device)
        with torch.no_grad():
            for t, s in itertools.pairwise(times):
                beta = self.sde.beta_min + t * (self.sde.beta_max - self.sde.beta_min)
                _, sigma, label = self.marginal(t[None])
                noise = self.outputs(x, label.expand(len(x)))
                x = x + (s - t) * (-beta * x / 2 + beta * noise / (2 * sigma))
        return float(x.flatten()[0])
