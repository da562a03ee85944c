"""This module draws weights of the feature networks from a seed, with the names of their PyTorch files."""

import numpy as np

from score_sde.networks.features import efficientnet, inception, perceptual


def inception_state(seed=0):
    """Return a state dict of the Inception of 2015 with random weights, in float32."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, unit in inception.UNITS.items():
        shape = (unit.out, unit.into, *unit.kernel)
        state[f"{name}.conv.weight"] = _kernel(rng, shape)
        state |= _norm(rng, f"{name}.bn", unit.out)
    state["fc.weight"] = _kernel(rng, (inception.CLASSES, inception.FEATURES))
    state["fc.bias"] = _small(rng, inception.CLASSES)
    return state


def efficientnet_state(seed=0):
    """Return a state dict of EfficientNet-Lite0 with random weights, in float32."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, (norm, (height, width, into, out)) in efficientnet.units().items():
        state[f"{name}.weight"] = _kernel(rng, (out, into, height, width))
        state |= _norm(rng, norm, out)
    state["_fc.weight"] = _kernel(rng, (efficientnet.CLASSES, efficientnet.FEATURES))
    state["_fc.bias"] = _small(rng, efficientnet.CLASSES)
    return state


def perceptual_states(network, seed=0):
    """Return state dicts of an LPIPS network, of torchvision's backbone and of the linear weights."""
    rng = np.random.default_rng(seed)
    backbone, linear, into, widths = {}, {}, 3, []
    for index, out, side, *_ in perceptual.NETWORKS[network]:
        backbone[f"features.{index}.weight"] = _kernel(rng, (out, into, side, side))
        backbone[f"features.{index}.bias"] = _small(rng, out)
        into = out
        if index in perceptual.taps(network):
            widths.append(out)
    for i, width in enumerate(widths):
        linear[f"lin{i}.model.1.weight"] = rng.uniform(0, 1, (1, width, 1, 1)).astype(np.float32)
    return backbone, linear


def images(n=2, height=40, width=48, seed=1):
    """Return smooth random images of bytes, (n, height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (n, height // 8, width // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


def _kernel(rng, shape):
    fan_in = np.prod(shape[1:])
    return (rng.standard_normal(shape, np.float32) * np.sqrt(2 / fan_in)).astype(np.float32)


def _norm(rng, name, size):
    return {
        f"{name}.weight": rng.uniform(0.7, 1.3, size).astype(np.float32),
        f"{name}.bias": _small(rng, size),
        f"{name}.running_mean": _small(rng, size),
        f"{name}.running_var": rng.uniform(0.7, 1.3, size).astype(np.float32),
    }


def _small(rng, size):
    return (0.1 * rng.standard_normal(size)).astype(np.float32)
