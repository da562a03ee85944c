"""This benchmark compares the feature networks with the same networks in PyTorch on a CPU.

python benchmarks/features.py [--repeats=5]

The weights are random for the Inception of 2015, and those of the extra `features` for EfficientNet-Lite0. Both read
images that have the size of the network; the interpolation is not part of the time. The features agree first.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import numpy as np
import torch

from benchmarks.common import interleaved, machine
from benchmarks.torch_features import EfficientNetTorch, InceptionTorch, converted
from score_sde import parallel
from score_sde.metrics.loading import efficientnet_file, efficientnet_params
from score_sde.metrics.weights import read_arrays
from score_sde.networks.features import efficientnet, inception


def random_params() -> dict[str, dict[str, np.ndarray]]:
    """Return random parameters of the Inception of 2015 that keep the size of the activations."""
    rng = np.random.default_rng(0)
    params = {"fc": {"kernel": np.zeros((inception.FEATURES, inception.CLASSES), np.float32)}}
    for name, unit in inception.UNITS.items():
        shape = (*unit.kernel, unit.into, unit.out)
        kernel = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:3])))
        params[name] = {"kernel": kernel, "bias": np.zeros(unit.out, np.float32)}
    return params


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    parallel.request_cpu_devices(64)
    print(machine(), f"PyTorch {torch.__version__} with {torch.get_num_threads()} threads")
    devices = parallel.strategy("jit").local
    lite = efficientnet_params(read_arrays(efficientnet_file()))
    cases = (
        ("Inception of 2015, 299 pixels", inception, random_params(), InceptionTorch, 299, 16),
        ("EfficientNet-Lite0, 112 pixels", efficientnet, lite, EfficientNetTorch, 112, 64),
        ("EfficientNet-Lite0, 224 pixels", efficientnet, lite, EfficientNetTorch, 224, 32),
    )
    for name, ours, weights, theirs, side, batch in cases:
        images = np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)
        placed, x = devices.place_state(weights), devices.place_sharded(images)
        apply = jax.jit(lambda params, x, ours=ours: ours.apply(params, x)["features"])
        module = theirs(converted(weights)).eval()
        # PyTorch is faster with channels last, as our arrays are.
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

        def in_torch(module: torch.nn.Module = module, tensor: torch.Tensor = tensor) -> np.ndarray:
            with torch.inference_mode():
                return module(tensor).numpy()

        np.testing.assert_allclose(np.asarray(apply(placed, x)), in_torch(), atol=2e-3, rtol=1e-3)
        seconds = interleaved({"ours": lambda apply=apply, p=placed, x=x: apply(p, x), "torch": in_torch}, repeats)
        rates = {which: batch / value for which, value in seconds.items()}
        print(
            f"{name}, batch {batch}: ours {rates['ours']:.1f} images/s, PyTorch {rates['torch']:.1f} images/s, "
            f"ratio {rates['ours'] / rates['torch']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
