"""This module tests the precision that a platform sets, that a config states, and that a result records."""

import json

import jax
import numpy as np
import pytest

import score_sde as ss
from configs import cifar10
from score_sde.core import precision
from score_sde.experiment import Experiment, experiment
from score_sde.jobs import evaluate, train
from tests import small_job
from tests.closed_forms import mixture


class Device:
    """`Device` has the attributes of a JAX device that the library reads."""

    def __init__(self, platform, capability=None):
        self.platform = platform
        if capability is not None:
            self.compute_capability = capability


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        (Device("cpu"), "float32"),
        (Device("tpu"), "bfloat16"),
        (Device("gpu", "9.0"), "bfloat16"),
        (Device("cuda", "8.6"), "bfloat16"),
        (Device("gpu", "7.5"), "float32"),
        (Device("gpu", "gfx90a"), "float32"),
        (Device("gpu"), "float32"),
    ],
)
def test_what_fits_a_platform(monkeypatch, device, dtype):
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert precision.fitting_dtype() == dtype


def test_a_network_computes_in_what_fits_and_a_fitted_model_in_float32(monkeypatch):
    assert Experiment.from_config(cifar10.get_config("ve,ncsnpp")).network.dtype == "float32"
    monkeypatch.setattr(experiment, "fitting_dtype", lambda: "bfloat16")
    config = cifar10.get_config("ve,ncsnpp")
    assert config.network.dtype == "auto"
    assert Experiment.from_config(config).network.dtype == "bfloat16"
    assert Experiment.from_config(config, dtype="float32").network.dtype == "float32"
    config.network.dtype = "float32"
    assert Experiment.from_config(config).network.dtype == "float32"


@pytest.mark.parametrize("section", ["train", "sample", "eval"])
def test_an_unknown_precision(section):
    config = small_job.get_config()
    config[section].precision = "tf32"
    with pytest.raises(ss.InputError, match=f"{section}.precision is 'tf32'; expected one of default, high, highest"):
        Experiment.from_config(config)


def test_an_unknown_precision_of_a_density():
    model, x = mixture(ss.VP()), np.zeros((2, 2), np.float32)
    for call in (ss.log_prob, ss.encode, ss.decode):
        keys = (jax.random.split(jax.random.key(0), 2),) if call is ss.log_prob else ()
        with pytest.raises(ss.InputError, match="precision is 'full'; expected one of"):
            call(model, x, *keys, precision="full")


def test_a_result_of_another_precision_is_another_result(tmp_path):
    config = small_job.get_config()
    config.data.dir = str(tmp_path / "data")
    config.train.update(steps=4, log_every=4, eval_every=0, sample_every=0, checkpoint_every=4)
    config.eval.what = "HeldOutLoss"
    train(config, tmp_path / "run")
    evaluate(config, tmp_path / "run")
    config.eval.precision = "default"
    evaluate(config, tmp_path / "run")
    recorded = {json.loads(path.read_text())["precision"] for path in (tmp_path / "run" / "eval").rglob("loss.json")}
    assert recorded == {"highest", "default"}
