"""Every job lowers to a program for an absent accelerator; likelihoods ask for full float32 products there."""

import functools
import re

import jax
import numpy as np
import pytest

import score_sde as ss
from configs import digits
from score_sde import parallel
from score_sde.experiment import Experiment, make_step
from score_sde.likelihood import density, latents
from score_sde.sampling import base as sampling

PLATFORMS = ("tpu", pytest.param("cuda", marks=pytest.mark.slow))
PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution)[^\n]*")


@functools.cache
def experiment(dtype, precision="default"):
    config = digits.get_config()
    config.train.precision = precision
    config.network.update(channels=8, multipliers=(1,), blocks=1, attention=(8,), dropout=0.1, dtype=dtype)
    config.data.batch_size = 4
    return Experiment.from_config(config)


def products(function, platform, *arguments):
    """Return the lines of the program's convolutions and matrix products, of which there is at least one."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    lines = PRODUCT.findall(text)
    assert lines
    return lines


def denoiser():
    built = experiment("float32")
    return built.denoiser(built.init_state().params["network"])


def step_products(made, platform):
    step, frozen = make_step(made, devices=parallel.Jit(jax.devices()[:1]))
    state = made.init_state()
    index = np.arange(4, dtype=np.uint32)
    batch = {"values": np.zeros((4, 8, 8, 1), np.uint8), "cond": None, "index": index}
    return products(step, platform, state, batch, frozen)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_training_step_in_bfloat16(platform):
    lines = step_products(experiment("bfloat16"), platform)
    convolutions = [line for line in lines if "convolution" in line]
    assert convolutions and all("bf16" in line for line in convolutions)


@pytest.mark.parametrize(("precision", "asked"), [("highest", "HIGHEST"), ("high", "HIGH")])
def test_a_training_step_multiplies_as_the_config_says(precision, asked):
    lines = step_products(experiment("float32", precision), "tpu")
    assert [line for line in lines if re.findall(r"HIGH\w*", line) != [asked] * 2] == []


class Lowered(Exception):
    """`Lowered` reports that the program has been made; the program does not run."""


@pytest.fixture
def lowering(monkeypatch):
    """Return a function that makes a module lower a compiled function for a platform and not run the function."""

    def replace(module, compiled, batch, platform):
        def lower(first, *arguments, **static):
            lines = products(functools.partial(batch, first, **static), platform, *arguments)
            raise Lowered(lines)

        monkeypatch.setattr(module, compiled, lower)

    return replace


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("sampler", [ss.Ancestral(), ss.Heun()], ids=str)
def test_samples(lowering, platform, sampler):
    lowering(sampling, "_walk", sampling._walk_batch, platform)
    model = denoiser()
    with pytest.raises(Lowered):
        ss.sample(model, sampler, ss.time_grid.default(model.sde, 3), (8, 8, 1), n=2, seed=0)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_likelihoods_and_latents_in_full_float32(lowering, platform):
    """Each product asks for the highest precision; by default a GPU uses TF32, and a TPU bfloat16."""
    model, keys = denoiser(), jax.random.split(jax.random.key(0), 2)
    x = np.zeros((2, 8, 8, 1), np.float32)
    lowering(density, "_solve", density._solve_batch, platform)
    lowering(latents, "_flow", latents._flow_batch, platform)
    for call in (lambda: ss.log_prob(model, x, keys), lambda: ss.encode(model, x), lambda: ss.decode(model, x)):
        with pytest.raises(Lowered) as made:
            call()
        (lines,) = made.value.args
        assert [line for line in lines if line.count("HIGHEST") != 2] == []


def test_a_likelihood_is_less_exact_only_where_one_asks(lowering):
    model, keys = denoiser(), jax.random.split(jax.random.key(0), 2)
    lowering(density, "_solve", density._solve_batch, "tpu")
    with pytest.raises(Lowered) as made:
        ss.log_prob(model, np.zeros((2, 8, 8, 1), np.float32), keys, precision="default")
    convolutions = [line for line in made.value.args[0] if "convolution" in line]  # diffrax sets its own products
    assert convolutions and not any("HIGH" in line for line in convolutions)
