"""This module tests that benchmarks.torch_unet computes the same network; without PyTorch the tests are skipped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde as ss
from score_sde.core import keys as keys_

torch = pytest.importorskip("torch")
twin = pytest.importorskip("benchmarks.torch_unet")

SMALL = dict(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0)
PLUS = ss.networks.NCSNpp((8, 8, 3), **SMALL, init_scale=1.0)
NETWORKS = {
    "ddpmpp": ss.networks.DDPMpp((8, 8, 3), **SMALL),
    "ddpmpp, classes": ss.networks.DDPMpp((8, 8, 1), {"label": ss.Label(3)}, **SMALL),
    "ncsnpp": PLUS,
    "ncsnpp, skips": dataclasses.replace(PLUS, progressive="output_skip", progressive_input="input_skip"),
    "ncsnpp, cat": dataclasses.replace(PLUS, progressive="residual", progressive_input="input_skip", combine="cat"),
    "ncsnpp, ddpm blocks": dataclasses.replace(PLUS, resblock="ddpm", progressive="residual", nonlinearity="elu"),
    "ncsnpp, no filter": dataclasses.replace(PLUS, resblock="ddpm", fir=False, embedding="positional"),
    "ncsnpp, five taps": dataclasses.replace(PLUS, fir_kernel=(1.0, 4.0, 6.0, 4.0, 1.0), noise_conditional=False),
    "ddpm": ss.networks.DDPM((8, 8, 3), channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0),
}


def drawn(network):
    """Return random parameters, since the initial parameters of a last layer are nearly zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, keys_.stream(0, "init"))
    return jax.tree.map(
        lambda leaf: rng.normal(
            size=leaf.shape, scale=0.3 / np.sqrt(max(leaf.size // leaf.shape[-1], 1)) ** 0.5
        ).astype("f"),
        shapes,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_agree(name):
    network = NETWORKS[name]
    params = drawn(network)
    rng = np.random.default_rng(1)
    x, label = rng.normal(size=(4, *network.shape)).astype("f"), rng.uniform(0.01, 50, 4).astype("f")
    classes = np.array([0, 2, 1, 2]) if network.conditions else None
    ours = network.apply(params, jnp.asarray(x), jnp.asarray(label), classes if classes is None else {"label": classes})
    unet = twin.with_parameters(twin.UNet(network.spec()), params).eval()
    with torch.no_grad():
        given = None if classes is None else torch.tensor(classes)
        theirs = unet(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(label), given).permute(0, 2, 3, 1).numpy()
    size = np.abs(theirs).max()
    assert 0.01 < size < 1e3
    assert np.abs(ours - theirs).max() < 1e-4 * size


def test_a_parameter_too_many_or_too_few_is_refused():
    params = drawn(NETWORKS["ddpmpp"])
    params["extra"] = {"bias": np.zeros(3)}
    with pytest.raises(ValueError, match="extra"):
        twin.with_parameters(twin.UNet(NETWORKS["ddpmpp"].spec()), params)
