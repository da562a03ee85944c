"""This module tests training: the devices and a stop do not change a run, and bad configs are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import score_sde as ss
from configs import digits
from score_sde import parallel
from score_sde.core import keys as keys_
from score_sde.experiment import Checkpoints, Experiment, make_step, write_config
from score_sde.experiment.averages import WarmedUp
from score_sde.jobs import train
from score_sde.jobs.log import Log, read_records
from score_sde.losses import HeldOut, WholeBatch


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def unet(data_dir):
    """Return a config that trains a very small U-Net on the digits for a few steps."""
    config = digits.get_config("vp,conditional")
    config.network.update(channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.1)
    config.data.update(dir=data_dir, batch_size=16)
    config.train.update(steps=6, log_every=2, eval_every=0, sample_every=0, checkpoint_every=3)
    config.optimizer.schedule.update(warmup_steps=2)
    config.sample.update(n=4, batch_size=4, grid=dict(name="default", n=3))
    return config


@pytest.fixture
def config(unet):
    """Return the config `unet` with a network that compiles fast."""
    unet.network = dict(name="tests.few_digits.Affine")
    return unet


KEY = jax.random.key(1)


def batch_of(values, label):
    """Return a batch in the form that a training step receives."""
    index = np.arange(len(label), dtype=np.uint32)
    return {"values": values, "cond": {"label": np.asarray(label, np.int32)}, "index": index}


def losses_of(experiment, params, batch, key, train=True, step=0):
    """Return the losses of a batch, with the conditions processed as in training."""
    keys = keys_.examples(key, batch["index"])
    _, cond = experiment.conditioning(batch["values"], batch["cond"], keys, train=train)
    losses, _, _ = experiment.objective(
        {"network": params},
        (),
        batch | {"cond": cond},
        key,
        step=step,
        averages={},
        frozen=experiment.frozen(),
        across=WholeBatch(),
        train=train,
    )
    return losses["network"]


def lively(network, seed=0):
    """Return parameters that give an output far from zero, so that every wrong key changes the loss."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape).astype("f"), network.init(jax.random.key(0)))


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.slow
def test_one_device_two_devices_and_pmap_are_one_run(unet):
    unet.averages.ema.decay = 0.9
    experiment = Experiment.from_config(unet)
    rng = np.random.default_rng(0)
    batches = [batch_of(rng.integers(0, 17, (16, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, 16)) for _ in range(8)]
    states, losses = {}, {}
    strategies = {"one": parallel.Jit(jax.devices()[:1]), "two": parallel.Jit(), "pmap": parallel.Pmap()}
    for name, devices in strategies.items():
        state = devices.place_state(experiment.init_state())
        function, frozen = make_step(experiment, devices=devices)
        step = devices.compile(function, state)
        losses[name] = []
        for batch in batches:
            state, metrics = step(state, devices.place_batch(batch), frozen)
            losses[name].append(float(metrics["loss"]))
        states[name] = leaves((state.params, state.averages))
    start = leaves(experiment.init_state().params)
    moved = max(np.abs(a - b).max() for a, b in zip(start, states["one"]))
    for name in ("two", "pmap"):
        np.testing.assert_allclose(losses[name], losses["one"], rtol=1e-4)
        distance = max(np.abs(a - b).max() for a, b in zip(states[name], states["one"]))
        # Adam divides by the root of the squared gradient, so rounding errors grow where gradients vanish.
        assert distance < 0.02 * moved, name


def test_a_step_is_adam_on_the_mean_loss_and_a_moving_average(config):
    """A step equals the update that optax and jax.grad compute."""
    config.seed, config.averages.ema.decay = 3, 0.9
    experiment = Experiment.from_config(config)
    state = experiment.init_state()
    batch = batch_of(np.full((4, 8, 8, 1), 5, np.uint8), np.arange(4))
    state = state._replace(step=jnp.asarray(5, jnp.int32), averages=jax.tree.map(jnp.zeros_like, state.averages))
    devices = parallel.Jit()
    function, frozen = make_step(experiment, devices=devices)
    step = devices.compile(function, state)
    new, metrics = step(jax.tree.map(jnp.copy, state), devices.place_batch(batch), frozen)

    key = jax.random.fold_in(keys_.stream(3, "train"), 5)

    def loss(params):
        return losses_of(experiment, params["network"], batch, key).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in leaves(gradient)))
    np.testing.assert_allclose(float(metrics["loss"]), value, rtol=1e-5)
    np.testing.assert_allclose(float(metrics["gradient_norm"]), norm, rtol=1e-4)
    clipped = jax.tree.map(lambda g: g * min(1.0, 1.0 / norm), gradient)
    adam = optax.adam(lambda count: config.optimizer.schedule.peak_value * jnp.minimum(count / 2, 1))
    updates, _ = adam.update(clipped, adam.init(state.params))
    decay = min(0.9, 6 / 15)
    for updated, average, p, u in zip(leaves(new.params), leaves(new.averages), leaves(state.params), leaves(updates)):
        np.testing.assert_allclose(updated, p + u, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(average, (1 - decay) * updated, rtol=1e-5, atol=1e-8)


def test_the_average_warms_up():
    average = WarmedUp(0.999)
    assert float(average.decay_at(0)) == pytest.approx(0.1)
    assert float(average.decay_at(90)) == pytest.approx(0.91)
    assert float(average.decay_at(10**6)) == pytest.approx(0.999)


def test_an_example_is_keyed_by_its_place_in_the_whole_batch(unet):
    experiment = Experiment.from_config(unet)
    params = lively(experiment.network)
    batch = batch_of(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6))
    losses = jax.jit(lambda params, batch: losses_of(experiment, params, batch, KEY))
    whole = losses(params, batch)
    shifted = losses(params, jax.tree.map(lambda value: np.roll(value, 2, axis=0), batch))
    np.testing.assert_allclose(shifted, np.roll(whole, 2), rtol=1e-4)
    part = losses(params, jax.tree.map(lambda value: value[2:3], batch))
    np.testing.assert_allclose(part, whole[2:3], rtol=1e-4)
    assert len(np.unique(np.asarray(whole).round(5))) == 6


def test_the_held_out_loss_counts_every_example_once(config, monkeypatch):
    """The mean does not depend on the batch size, since padding has no weight; products have the highest precision."""
    experiment = Experiment.from_config(config)

    class Source:
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return {"values": np.full((8, 8, 1), 3 * i, np.uint8), "label": np.int64(i)}

    params = {"network": lively(experiment.network)}
    examples = experiment.examples("test", Source())
    common = experiment.objective, experiment.conditioning, examples, experiment.frozen(), parallel.Jit()
    precisions, kind = set(), type(experiment.network)
    apply = kind.apply

    def apply_and_record(*args, **kwargs):
        precisions.add(jax.config.jax_default_matmul_precision)
        return apply(*args, **kwargs)

    monkeypatch.setattr(kind, "apply", apply_and_record)
    values = [HeldOut(*common, size, seed=0)(params) for size in (2, 6, 16)]
    np.testing.assert_allclose(values, values[0], rtol=1e-5)
    assert precisions == {"highest"}


@pytest.mark.slow
def test_training_learns(unet, tmp_path, capsys):
    """The loss starts near 1, the variance of the noise, and falls far below 1."""
    unet.train.update(steps=120, log_every=20, eval_every=120, sample_every=120, checkpoint_every=120)
    unet.network.update(channels=16, dropout=0.0)
    unet.optimizer.schedule.update(peak_value=3e-3, warmup_steps=10)
    train(unet, tmp_path)
    records = read_records(tmp_path / "train.jsonl")
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[0] > 0.4
    assert losses[-1] < 0.3
    assert any(record.get("heldout_loss", 1.0) < 0.35 for record in records)
    for name in ("loss.png", "samples/step_0000120.png", "config.json", "tensorboard"):
        assert (tmp_path / name).exists(), name
    assert "trained to step 120 on 2 cpu device(s)" in capsys.readouterr().out

    train(unet, tmp_path)
    assert "nothing left to train" in capsys.readouterr().out


@pytest.mark.parametrize("devices", ["jit", "pmap"])
def test_a_resumed_run_is_the_uninterrupted_one(config, tmp_path, devices):
    """A resumed run has the same parameters, average and logged losses as the uninterrupted run, bit for bit."""
    config.parallel = devices
    train(config, tmp_path / "whole")
    short = config.copy_and_resolve_references()
    short.train.steps = 3
    train(short, tmp_path / "parts")
    train(config, tmp_path / "parts")
    for average in ("ema", None):
        whole, resumed = (ss.load(tmp_path / name, average=average) for name in ("whole", "parts"))
        assert whole.step == resumed.step == 6
        for a, b in zip(leaves(whole.denoiser.params), leaves(resumed.denoiser.params)):
            np.testing.assert_array_equal(a, b)
    whole, resumed = (
        {record["step"]: record["loss"] for record in read_records(tmp_path / name / "train.jsonl")}
        for name in ("whole", "parts")
    )
    assert whole[6] == resumed[6]


def test_checkpoints_roll_and_some_stay(config, tmp_path):
    config.train.update(steps=6, checkpoint_every=1, keep=dict(last=2, every=2))
    train(config, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 4, 5, 6]
    assert ss.load(tmp_path, step=4).step == 4
    with pytest.raises(ss.InputError, match="no checkpoint of step 3; it has 2, 4, 5, 6"):
        ss.load(tmp_path, step=3)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(config, tmp_path):
    train(config, tmp_path)
    config.train.steps = 20

    # The images of the second run are NaN.
    class Poisoned(ss.QuantizedCodec):
        def encode(self, values, keys):
            x, terms = super().encode(values, keys)
            return jnp.where(jnp.sum(x) > -1e9, jnp.nan, x), terms

    import unittest.mock

    with (
        unittest.mock.patch("score_sde.data.Digits.codec", Poisoned((8, 8, 1), 16)),
        pytest.raises(ss.DivergenceError, match="step 7 is not finite"),
    ):
        train(config, tmp_path)
    model = ss.load(tmp_path)
    assert model.step == 6
    assert all(np.isfinite(leaf).all() for leaf in leaves(model.denoiser.params))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network.channels": 16}, "network.channels = 8, and the config says 16"),
        ({"sde.beta_max": 10.0}, "sde.beta_max = 20.0, and the config says 10.0"),
        ({"seed": 7}, "seed = 0, and the config says 7"),
    ],
)
def test_another_config_in_the_same_workdir_is_refused(unet, tmp_path, change, words):
    write_config(tmp_path, unet)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    before = (tmp_path / "config.json").read_text()
    unet.update_from_flattened_dict(change)
    with pytest.raises(ss.InputError, match=words):
        train(unet, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "config.json"]
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"data.batch_size": 15},
            "data.batch_size is 15, which 2 devices do not divide; the nearest that works: 14 or 16",
        ),
        ({"sample.batch_size": 0}, "sample.batch_size is 0"),
        ({"network.name": "UNet"}, "networks has no 'UNet'; expected one of DDPM, "),
        (
            {"sampler": None, "sample.sampler.name": "Oiler"},
            "sampling has no 'Oiler'; expected one of AdaptiveReverseSDE, Ancestral",
        ),
        ({"objective.weight": "heavy"}, "losses.weighting has no 'heavy'"),
        ({"objective.weight": "on"}, "losses.weighting has no 'on'; expected one of .* unit"),
        ({"objective.target": "nose"}, "'nose'; expected one of noise, x0, velocity"),
        ({"objective.name": "Denoise"}, "losses has no 'Denoise'; expected one of Classification, Denoising"),
        ({"optimizer.clip": -1.0}, "clip is -1.0"),
        ({"seed": 2**40}, "seed is 1099511627776"),
        ({"sample.seed": -1}, "sample.seed is -1"),
        ({"network.attention": ("a",)}, "attention=\\('a',\\)"),
        ({"data.drop.label": 2.0}, "data.drop.label is 2.0"),
        ({"data.given": ("text",)}, "data.given names 'text', but Digits has label"),
        ({"sample.guidance": "ClassifierFree(weight=2, drop=['text'])"}, "drop="),
        ({"sample.guidance": "Classifier(weight=2)"}, "guidance has no 'Classifier'; expected one of Analytic"),
        ({"sample.cond": "label=10"}, "a label is 10; expected a whole number from 0 to 9"),
        ({"sample.cond": "text='a'"}, "sample.cond names 'text', which the model does not read; it reads label"),
        ({"optimizer.name": "adamm"}, "optax has no 'adamm'.*adam"),
        ({"parallel": "both"}, "'both'; expected one of jit, fsdp, pmap"),
        ({"train.steps": 0}, "train.steps is 0"),
        ({"averages.ema.decay": 1.0}, "decay=1.0"),
        ({"data.name": "Letters"}, "data has no 'Letters'; expected one of CIFAR10, Checkerboard, Digits"),
    ],
)
def test_bad_configs_are_refused_and_nothing_is_written(unet, tmp_path, change, words):
    change.pop("sampler", None)
    unet.update_from_flattened_dict(change)
    with pytest.raises(ss.InputError, match=words):
        train(unet, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_written_on_another_platform_loads(config, tmp_path):
    """A checkpoint loads on a machine that lacks the device that orbax recorded."""
    write_config(tmp_path, config)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Experiment.from_config(config).init_state()._replace(step=jnp.asarray(1)))
    records = list((tmp_path / "checkpoints" / "1").rglob("_sharding"))
    assert records
    for record in records:
        # The file maps the base64 of a parameter's name to a description of the sharding.
        text = json.loads(record.read_text())
        record.write_text(json.dumps({name: value.replace("cpu:0", "cuda:0") for name, value in text.items()}))
    assert "cuda:0" in records[0].read_text()
    (tmp_path / "checkpoints" / "1" / "about" / "files.json").unlink()  # The list of files would reveal the change.
    assert ss.load(tmp_path).step == 1


def test_load_says_what_is_missing(config, tmp_path):
    with pytest.raises(ss.InputError, match="no workdir of a trained model"):
        ss.load(tmp_path / "nowhere")
    write_config(tmp_path, config)
    with pytest.raises(ss.InputError, match="has no average 'slow'; expected one of ema, or None"):
        ss.load(tmp_path, average="slow")
    with pytest.raises(ss.InputError, match="has no checkpoint: train there first"):
        ss.load(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_the_log_drops_lost_work_and_torn_lines(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [json.dumps({"step": k, "loss": 1.0 / k}) for k in (1, 2, 3)]
    path.write_text("\n".join([*lines[:2], "[]", lines[2], '{"step": 4, "lo']))
    with Log(tmp_path, step=2) as log:
        log.write(3, loss=0.25, rate=1e-3)
        assert log.last("loss") == 0.25
        assert log.last("nothing") is None
    assert read_records(path) == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25, "rate": 0.001},
    ]
    assert read_records(tmp_path / "none.jsonl") == []
