"""The counts of --mode=describe agree with closed forms and with XLA's own analysis."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import cifar10, digits, toy
from score_sde.core import keys as keys_
from score_sde.experiment import Experiment
from score_sde.jobs import describe


def test_a_network_of_matrices_by_hand():
    """The toys' network has two products in the embedding, one at the input, two per block and one at the output."""
    config = toy.get_config("mixture")
    net = config.network
    width, features = net.width, 2 * (1 + 2 * net.octaves)
    quarter = width // 4
    products = quarter * width + width * width + features * width + net.blocks * 2 * width * width + width * 2
    biases = width * (2 + 1 + 2 * net.blocks) + 2
    description = describe(config)
    assert description.flops == 2 * products
    assert description.parameters == products + biases
    # The state is parameters, average, gradient, Adam's two moments; Adam and the schedule count steps in 4 bytes each.
    assert description.state_bytes == 5 * 4 * description.parameters + 8


@pytest.mark.parametrize("words", ["vp,ddpm", "ve,ncsnpp"])
def test_operations_against_xla(words):
    """XLA leaves out operations on padding, 7 % of these networks, and adds sums and nonlinearities, 1 %."""
    config = cifar10.get_config(words)
    network = Experiment.from_config(config).network
    params = jax.eval_shape(network.init, keys_.stream(0, "init"))
    lowered = jax.jit(network.apply).lower(params, jnp.ones((1, 32, 32, 3)), jnp.ones(1))
    assert 0.9 < lowered.cost_analysis()["flops"] / describe(config).flops < 1


@pytest.mark.slow
def test_what_the_gradient_keeps():
    config = digits.get_config()
    config.data.batch_size = 8
    once = describe(config)
    config.data.batch_size = 16
    twice = describe(config)
    assert twice.state_bytes == once.state_bytes
    assert twice.kept_bytes == pytest.approx(2 * once.kept_bytes, rel=0.1)
    config.train.microbatches = 2
    assert describe(config).kept_bytes == once.kept_bytes
    config.network.remat = "full"
    assert describe(config).kept_bytes < 0.6 * once.kept_bytes


@pytest.mark.slow
def test_the_table_is_whole():
    description = describe(cifar10.get_config("ve,ncsnpp,deep"))
    assert description.parameters == 107_587_075 == sum(layer.parameters for layer in description.layers)
    assert description.flops == sum(layer.flops for layer in description.layers)
    by_name = {layer.name: layer for layer in description.layers}
    assert by_name["down1_block0"].output == (16, 16, 256)
    # The block has 3 x 3 kernels 128 -> 256 and 256 -> 256, the shortcut, the embedding, their biases, and two norms.
    block = 9 * 128 * 256 + 9 * 256 * 256 + 128 * 256 + 512 * 256 + 4 * 256 + 2 * 128 + 2 * 256
    assert by_name["down1_block0"].parameters == block
    at_each_pixel = 9 * 128 * 256 + 9 * 256 * 256 + 128 * 256
    assert by_name["down1_block0"].flops == 2 * (16 * 16 * at_each_pixel + 512 * 256)
    # Attention has queries, keys, values and output at each pixel, and two products over all pairs of pixels.
    assert by_name["down1_attention0"].flops == 2 * (256 * 4 * 256 * 256 + 2 * 256 * 256 * 256)


def test_describing_needs_neither_data_nor_a_workdir(tmp_path):
    command = [sys.executable, "main.py", "--config=configs/celebahq.py:ve_256_ncsnpp_continuous", "--mode=describe"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "parameters: 65,574,549" in lines
    assert any(line.startswith("FLOPs of one evaluation per image: ") for line in lines)
    assert any(line.startswith("memory of a training step: ") and "at batch 64" in line for line in lines)
    assert sum(line.startswith("  down") for line in lines) == 7 * 2 + 2 + 6 * 3  # blocks, attention, size changes
