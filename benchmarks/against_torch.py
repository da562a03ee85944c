"""Ours beside the twin in PyTorch (benchmarks/torch_unet.py): the same networks, parameters and batches, in turn.

python benchmarks/against_torch.py [--size=8] [--size=32] [--repeats=15] [--compile]

Every core, or the GPU, for both. `--compile` adds torch.compile, which takes a compiler and minutes.
PyTorch is in no extra: pip install torch --index-url https://download.pytorch.org/whl/cpu
"""

from __future__ import annotations

import argparse
import copy
import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import score_sde as ss
from benchmarks.common import advance, interleaved, machine, report
from configs import cifar10, digits
from score_sde import parallel

try:
    import torch

    from benchmarks import torch_unet
except ImportError as error:
    sys.exit(f"error: {error}; install it: pip install torch --index-url https://download.pytorch.org/whl/cpu")

STEPS = 20  # of a sampler


def config_of(size: int) -> Any:
    """The digits at batch 128, or 2.47 M parameters on 32 x 32 images at batch 16; VP, noise prediction."""
    if size == 8:
        config = digits.get_config("vp")
        config.data.batch_size = 128
        return config
    config = cifar10.get_config("vp,ddpmpp")
    config.network.update(channels=32, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,))
    config.data.batch_size = 16
    return config


class Twin:
    """The twin's side: what a PyTorch user would write for one device."""

    def __init__(self, experiment: ss.Experiment, params: Any, values: np.ndarray) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.sde, self.codec = experiment.sde, experiment.codec
        unet = torch_unet.with_parameters(torch_unet.UNet(experiment.network.spec()), params)
        self.unet = unet.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.unet).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.unet.parameters(), lr=2e-4, fused=True)
        self.values = torch.tensor(values, device=self.device).permute(0, 3, 1, 2)
        self.network: Callable[..., Any] = self.unet

    def compiled(self) -> Twin:
        """The same through torch.compile."""
        twin = copy.copy(self)
        twin.network = torch.compile(self.unet)
        return twin

    def times(self) -> Any:
        return torch.rand(len(self.values), device=self.device) * (1 - 1e-5) + 1e-5

    def marginal(self, t: Any) -> tuple[Any, Any]:
        """(alpha, sigma) of VP, in the shape that multiplies images."""
        log_alpha = -t * self.sde.beta_min / 2 - t**2 * (self.sde.beta_max - self.sde.beta_min) / 4
        return log_alpha.exp()[:, None, None, None], (-torch.expm1(2 * log_alpha)).sqrt()[:, None, None, None]

    def step(self) -> float:
        """One training step: dequantise, perturb, predict the noise, clip, Adam, average."""
        self.unet.train()
        x0 = 2 * (self.values + torch.rand(self.values.shape, device=self.device) - 0.5) / self.codec.maximum - 1
        x0 = x0.contiguous(memory_format=torch.channels_last)
        t, noise = self.times(), torch.randn_like(x0)
        alpha, sigma = self.marginal(t)
        loss = (self.network(alpha * x0 + sigma * noise, 999 * t) - noise).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.unet.parameters()), 0.001)
        return float(loss.detach())

    def evaluate(self, x: Any) -> Any:
        self.unet.eval()
        with torch.no_grad():
            out = self.network(x, torch.full((len(x),), 500.0, device=self.device))
        return out.flatten()[0].item()

    def likelihood_field(self, x: Any) -> float:
        """Drift and divergence of the probability flow with one probe, by one vector-Jacobian product.

        Forward mode, as ours has it, is not implemented for scaled_dot_product_attention on a CPU.
        """
        self.unet.eval()
        probe, label = torch.sign(x), torch.full((len(x),), 500.0, device=self.device)
        x = x.detach().requires_grad_(True)
        out = self.network(x, label)
        (pulled,) = torch.autograd.grad(out, x, probe)
        return float((out + pulled * probe).detach().flatten()[0])

    def sample(self, x: Any) -> float:
        """Euler's method on the probability flow, as a loop in Python."""
        self.unet.eval()
        times = torch.linspace(1, 1e-3, STEPS + 1, device=self.device)
        with torch.no_grad():
            for t, s in itertools.pairwise(times):
                beta = self.sde.beta_min + t * (self.sde.beta_max - self.sde.beta_min)
                _, sigma = self.marginal(t[None])
                noise = self.network(x, (999 * t).expand(len(x)))
                x = x + (s - t) * (-beta * x / 2 + beta * noise / (2 * sigma))
        return float(x.flatten()[0])


def rows(size: int, with_compile: bool) -> dict[str, dict[str, Callable[[], Any]]]:
    """{what is measured: {who: a call of it}}."""
    config = config_of(size)
    experiment = ss.Experiment.from_config(config)
    devices, index = parallel.Jit(), np.arange(config.data.batch_size)
    shape = experiment.codec.model_shape
    values = np.random.default_rng(0).integers(0, experiment.codec.maximum + 1, (len(index), *shape)).astype(np.uint8)
    params = jax.device_get(experiment.init_state().params["network"])
    placed = devices.place_state(params)
    denoiser = experiment.denoiser(placed)
    x = devices.place_sharded(np.random.default_rng(1).standard_normal((len(index), *shape)).astype(np.float32))
    t = devices.place_sharded(np.full(len(index), 0.5, np.float32))
    step = advance(config, devices)
    batch = devices.place_batch({"values": values, "cond": None, "index": index.astype(np.uint32)})
    network, grid = experiment.network, ss.time_grid.uniform(experiment.sde, STEPS)
    evaluate = jax.jit(lambda params, x, t: network(params, x, 999 * t))

    @jax.jit
    def field(params: Any, x: jax.Array, t: jax.Array) -> Any:
        probe = jnp.sign(x)
        return jax.jvp(lambda x: network(params, x, 999 * t), (x,), (probe,))

    found = {
        "a training step": {"ours": lambda: step(batch)},
        "an evaluation": {"ours": lambda: evaluate(placed, x, t)},
        "drift and divergence": {"ours": lambda: field(placed, x, t)},
        f"{STEPS} steps of Euler": {
            "ours": lambda: (
                ss.sample(
                    denoiser, ss.Euler(), grid, shape, n=len(index), seed=0, denoise=False, sharding=devices.sharded
                ).x
            )
        },
    }
    twin = Twin(experiment, params, values)
    given = torch.tensor(np.asarray(x), device=twin.device).permute(0, 3, 1, 2)
    twins = {"PyTorch": twin} | ({"PyTorch, compiled": twin.compiled()} if with_compile else {})
    for name, one in twins.items():
        found["a training step"][name] = one.step
        found["an evaluation"][name] = lambda one=one: one.evaluate(given)
        found["drift and divergence"][name] = lambda one=one: one.likelihood_field(given)
        found[f"{STEPS} steps of Euler"][name] = lambda one=one: one.sample(given)
    _same(evaluate(placed, x, t), twin, given)
    return found


def _same(ours: jax.Array, twin: Twin, given: Any) -> None:
    """Refuse to compare what is not the same."""
    twin.unet.eval()
    with torch.no_grad():
        theirs = twin.unet(given, torch.full((len(given),), 999 * 0.5, device=twin.device))
    apart = np.abs(np.asarray(ours) - theirs.permute(0, 2, 3, 1).cpu().numpy()).max()
    if not apart < 1e-4:
        sys.exit(f"error: the outputs of both differ by {apart:g}; expected less than 1e-4.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, action="append", choices=(8, 32))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    parallel.request_cpu_devices(16)
    torch.set_num_threads(parallel.usable_cores())
    print(f"{machine()}; PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    for size in options.size or (8, 32):
        config = config_of(size)
        print(f"\n{size} x {size}, batch {config.data.batch_size}")
        for what, calls in rows(size, options.compile).items():
            print(f"{what}:")
            report(interleaved(calls, options.repeats))


if __name__ == "__main__":
    main()
