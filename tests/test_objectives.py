"""This module tests a user's objectives: parameter groups, a state, frozen parts, and losses of the whole batch."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import score_sde as ss
from score_sde import parallel
from score_sde.experiment import Experiment, load_trained, make_step
from score_sde.jobs import Action, draw_samples, evaluate, train
from score_sde.jobs.log import read_records
from score_sde.losses import Objective, Trained


class Pair(Objective):
    """`Pair` has two coupled groups of parameters, a state that counts examples, and a frozen number."""

    def __init__(self, parts, pull=2.0):
        super().__init__(parts)
        self.pull = pull

    def init(self, key):
        size = int(np.prod(self.parts.codec.model_shape))
        return {"first": {"a": jnp.ones(size)}, "second": {"b": jnp.full(size, 3.0)}}, {"seen": jnp.zeros(())}

    def frozen(self, load):
        return {"pull": jnp.asarray(self.pull)}

    def __call__(self, params, state, batch, key, *, step, averages, frozen, across, train):
        x, _ = frozen["codec"].encode(batch["values"], None)
        x, a, b = x.reshape(len(x), -1), params["first"]["a"], params["second"]["b"]
        losses = {"first": jnp.mean((x + a - b) ** 2, axis=1), "second": frozen["pull"] * jnp.mean((x - b * a) ** 2, 1)}
        seen = state["seen"] + across.sum(jnp.asarray(len(x), float))
        return losses, {"seen": seen}, {"size": jnp.abs(a).mean()}

    def after_update(self, params):
        return params | {"second": {"b": jnp.clip(params["second"]["b"], -2.9, 2.9)}}

    def model(self, trained):
        return trained.params["second"]["b"]


class Contrast(Objective):
    """`Contrast` compares each example with the mean of the whole batch, and gathers the row numbers of the batch."""

    whole_batch = True

    def init(self, key):
        return {"shift": {"a": jnp.zeros(64)}}, {"rows": jnp.zeros(16, jnp.int32)}

    def __call__(self, params, state, batch, key, *, step, averages, frozen, across, train):
        x = batch["values"].reshape(len(batch["index"]), -1) / 16.0
        mean = across.mean(x.mean(axis=0))
        rows = across.gather(batch["index"])
        return (
            {"shift": jnp.mean((x - mean - params["shift"]["a"]) ** 2, axis=1)},
            {"rows": rows.astype(jnp.int32)},
            {},
        )


def config(name, **more):
    return (
        dict(
            data=dict(name="tests.few_digits.FewDigits", batch_size=16, dir=""),
            network=dict(name="tests.few_digits.Affine"),
            objective=dict(name=f"{__name__}.{name}"),
            optimizer=dict(name="sgd", schedule=dict(name="constant_schedule", value=0.1), clip=None),
            averages=dict(first=dict(name="Constant", decay=0.5), now=dict(name="Constant", decay=0.0)),
            train=dict(steps=4, log_every=2, eval_every=4, sample_every=0, checkpoint_every=2),
        )
        | more
    )


def batch_of(n=16):
    values = np.random.default_rng(0).integers(0, 17, (n, 8, 8, 1), np.uint8)
    return {"values": values, "cond": None, "index": np.arange(n, dtype=np.uint32)}


@pytest.mark.parametrize("strategy", ["jit", "fsdp", "pmap"])
def test_the_loss_of_a_group_moves_that_group_only(strategy):
    """A step of gradient descent moves each group by the gradient of the group's loss, with the group's rate."""
    groups = dict(second=dict(schedule=dict(name="constant_schedule", value=0.01)))
    spec = config("Pair")["optimizer"] | dict(groups=groups)
    experiment = Experiment.from_config(config("Pair", optimizer=spec))
    devices = parallel.strategy(strategy)
    state = devices.place_state(experiment.init_state())
    a, b = (np.asarray(leaf, np.float64) for leaf in (state.params["first"]["a"], state.params["second"]["b"]))
    function, frozen = make_step(experiment, devices=devices)
    new, metrics = devices.compile(function, state)(state, devices.place_batch(batch_of()), frozen)
    x = batch_of()["values"].reshape(16, -1) / 8.0 - 1
    by_first = 2 * (x + a - b).mean(axis=0) / 64
    by_second = 2.0 * 2 * (-(x - b * a) * a).mean(axis=0) / 64
    np.testing.assert_allclose(new.params["first"]["a"], a - 0.1 * by_first, rtol=1e-5)
    np.testing.assert_allclose(new.params["second"]["b"], np.clip(b - 0.01 * by_second, -2.9, 2.9), rtol=1e-5)
    assert float(new.objective["seen"]) == 16
    first = ((x + a - b) ** 2).mean()
    second = 2.0 * ((x - b * a) ** 2).mean()
    np.testing.assert_allclose(
        [metrics["loss_first"], metrics["loss_second"], metrics["loss"]], [first, second, first + second], rtol=1e-5
    )
    np.testing.assert_allclose(metrics["gradient_norm_first"], np.linalg.norm(by_first), rtol=1e-4)
    np.testing.assert_allclose(metrics["size"], 1.0)
    np.testing.assert_allclose(new.averages["now"]["first"]["a"], new.params["first"]["a"])
    np.testing.assert_allclose(
        new.averages["first"]["first"]["a"], (a + np.asarray(new.params["first"]["a"])) / 2, rtol=1e-6
    )


def test_what_load_returns_follows_from_the_objective(tmp_path):
    """`load` returns the array of `Pair.model`, and a stopped run ends with the parameters of a whole run."""
    train(config("Pair"), tmp_path / "whole")
    short = config("Pair")
    short["train"] = short["train"] | dict(steps=2)
    train(short, tmp_path / "parts")
    train(config("Pair"), tmp_path / "parts")
    whole, parts = (
        {k: load_trained(tmp_path / n, average=k) for k in ("first", "now", None)} for n in ("whole", "parts")
    )
    for name in whole:
        assert isinstance(whole[name], Trained) and float(whole[name].state["seen"]) == 64
        for a, b in zip(jax.tree.leaves(whole[name].params), jax.tree.leaves(parts[name].params), strict=True):
            np.testing.assert_array_equal(a, b)
    assert whole["first"].digest != whole["now"].digest
    np.testing.assert_array_equal(ss.load(tmp_path / "whole"), whole["first"].params["second"]["b"])
    np.testing.assert_array_equal(whole["now"].params["first"]["a"], whole[None].params["first"]["a"])
    records = read_records(tmp_path / "whole" / "train.jsonl")
    assert {"loss", "loss_first", "loss_second", "learning_rate_first", "size"} <= records[0].keys()
    held = [record["heldout_loss"] for record in records if "heldout_loss" in record]
    assert len(held) == 1 and np.isfinite(held[0])
    job = config("Pair") | dict(eval=dict(what="HeldOutLoss"))
    evaluate(job, tmp_path / "whole")
    for call, words in (
        (lambda: draw_samples(job, tmp_path / "whole"), "Pair trains no denoiser, so there is nothing to sample from"),
        (lambda: evaluate(job | dict(eval=dict(what="Likelihood")), tmp_path / "whole"), "Pair trains no denoiser"),
        (lambda: evaluate(job | dict(eval=dict(what="LossPerLevel")), tmp_path / "whole"), "no loss at a given time"),
        (lambda: train(job | dict(train=dict(steps=9)), tmp_path / "other"), "use train.sample_every=0"),
    ):
        with pytest.raises(ss.InputError, match=words):
            call()
    assert not (tmp_path / "other").exists()


def test_frozen_parts_are_arguments_of_the_program(compiles):
    """Another frozen number changes the step and compiles nothing."""
    experiment, devices = Experiment.from_config(config("Pair")), parallel.Jit()
    state = experiment.init_state()
    function, frozen = make_step(
        experiment, devices=devices, frozen={"codec": experiment.codec, "pull": jnp.asarray(2.0)}
    )
    assert len(frozen) == 1  # The list contains arrays only.
    advance = devices.compile(function, state)
    batch = devices.place_batch(batch_of())

    def step(pull):
        placed = devices.place_state(jax.tree.map(jnp.copy, state))
        return advance(placed, batch, devices.place_state([jnp.asarray(pull)]))

    two, loss = step(2.0)
    before = len(compiles)
    four, twice = step(4.0)
    assert len(compiles) == before
    np.testing.assert_allclose(twice["loss_second"], 2 * loss["loss_second"], rtol=1e-6)
    np.testing.assert_array_equal(two.params["first"]["a"], four.params["first"]["a"])


@pytest.mark.parametrize("strategy", ["jit", "fsdp", "pmap"])
def test_a_loss_of_the_whole_batch(strategy):
    """`across` gives the mean over all devices, and the rows of all devices in the order of the batch."""
    experiment, devices = Experiment.from_config(config("Contrast")), parallel.strategy(strategy)
    state = devices.place_state(experiment.init_state())
    function, frozen = make_step(experiment, devices=devices)
    new, metrics = devices.compile(function, state)(state, devices.place_batch(batch_of()), frozen)
    x = batch_of()["values"].reshape(16, -1) / 16.0
    np.testing.assert_allclose(metrics["loss"], ((x - x.mean(axis=0)) ** 2).mean(), rtol=1e-5)
    assert np.asarray(new.objective["rows"]).tolist() == list(range(16))
    with pytest.raises(ss.InputError, match=r"train.microbatches is 2, but Contrast needs the whole batch: use 1"):
        make_step(experiment, devices=devices, microbatches=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            dict(optimizer=dict(groups=dict(third=dict(name="adam")))),
            "optimizer.groups has 'third'; expected groups of",
        ),
        (dict(objective=dict(name=f"{__name__}.Pair", push=1)), "Pair: no argument push"),
        (dict(objective=dict(name=f"{__name__}.batch_of")), "is not a subclass of Objective"),
        (dict(averages=dict(slow=dict(name="Faster"))), "averages has no 'Faster'; expected one of Constant, WarmedUp"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, words):
    with pytest.raises(ss.InputError, match=words):
        train(config("Pair", **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_actions_are_due_when_they_say():
    class Every(Action):
        def run(self, at):
            pass

    action = Every()
    assert not any(action.is_due(step, 10) for step in range(11))
    action.every = 4
    assert [step for step in range(1, 11) if action.is_due(step, 10)] == [4, 8, 10]


def test_optimizers_are_those_of_optax():
    experiment = Experiment.from_config(config("Pair", optimizer=dict(name="sgd", momentum=0.9, clip=1.0)))
    params = experiment.init_state().params["first"]
    gradient = jax.tree.map(lambda leaf: 10 * jnp.ones_like(leaf), params)
    mine = experiment.optimizers["first"]
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-3, momentum=0.9))
    ours, other = (optimizer.update(gradient, optimizer.init(params), params)[0] for optimizer in (mine, theirs))
    np.testing.assert_allclose(ours["a"], other["a"])


class Weighed(ss.losses.Denoising):
    """`Weighed` is the denoising loss times the mean of a state, plus the step; teacher and average have factor 0."""

    def __init__(self, parts, teacher=""):
        super().__init__(parts)
        self.teacher = teacher

    def init(self, key):
        return super().init(key)[0], jnp.full(3, 2.0)

    def frozen(self, load):
        return {"teacher": load(self.teacher)} if self.teacher else {}

    def __call__(self, params, state, batch, key, *, step, averages, frozen, **others):
        common = dict(step=step, averages=averages, frozen=frozen, **others)
        (name, losses), *_ = super().__call__(params, (), batch, key, **common)[0].items()
        averaged = super().__call__(averages["ema"], (), batch, key, **common)[0][name]
        taught = 0.0
        if self.teacher:
            x, _ = frozen["codec"].encode(batch["values"], None)
            taught = frozen["teacher"].denoiser.noise(x, 0.5).mean()
        return {name: losses * state.mean() + 0 * averaged + 0 * taught + step}, state, {}


def points(**objective):
    return dict(
        data=dict(name="TwoMoons", batch_size=16),
        network=dict(name="MLP", width=8),
        objective=objective,
        train=dict(steps=2, log_every=1, eval_every=2, sample_every=0, checkpoint_every=2),
        eval=dict(what="HeldOutLoss", batch_size=500),
    )


@pytest.mark.slow
def test_a_state_averages_and_a_teacher_are_there_when_it_is_evaluated(tmp_path):
    """The evaluation repeats the held-out loss of training; the weights of the teacher are arguments of the step."""
    train(points(name="Denoising"), tmp_path / "teacher")
    evaluate(points(name="Denoising"), tmp_path / "teacher")
    config = points(name=f"{__name__}.Weighed", teacher=str(tmp_path / "teacher"))
    experiment = Experiment.from_config(config)
    _, arrays = make_step(experiment, devices=parallel.strategy("jit"), frozen=experiment.frozen(ss.load))
    teacher = jax.tree.leaves(ss.load(tmp_path / "teacher").denoiser.params)
    assert {leaf.shape for leaf in teacher} <= {np.shape(leaf) for leaf in arrays}
    train(config, tmp_path / "weighed")
    evaluate(config, tmp_path / "weighed")
    loss, plain = (
        json.loads((tmp_path / name / "eval" / "loss.json").read_text())["loss"] for name in ("weighed", "teacher")
    )
    logged = [
        row["heldout_loss"] for row in read_records(tmp_path / "weighed" / "train.jsonl") if "heldout_loss" in row
    ]
    assert loss == pytest.approx(logged[-1], rel=1e-5)
    assert loss == pytest.approx(2 * plain + 2, rel=0.05)  # The state and the step are 2; the weights differ little.


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda losses, state: ({"other": losses}, state, {}), r"losses of \['other'\]; expected one for each group"),
        (lambda losses, state: ({"network": losses.mean()}, state, {}), r"of shape \(\); expected one number for each"),
        (lambda losses, state: ({"network": losses}, state, {"m": losses}), r"metric 'm' of shape \(\d+,\)"),
        (lambda losses, state: ({"network": losses}, jnp.zeros(5), {}), "returns a state of"),
    ],
    ids=["group", "loss", "metric", "state"],
)
def test_what_an_objective_may_not_return(monkeypatch, tmp_path, returned, words):
    def call(self, params, state, batch, key, **others):
        return returned(ss.losses.Denoising.__call__(self, params, (), batch, key, **others)[0]["network"], state)

    monkeypatch.setattr(Weighed, "__call__", call)
    with pytest.raises(ss.InputError, match=words):
        train(points(name=f"{__name__}.Weighed"), tmp_path)


@dataclasses.dataclass(frozen=True)
class Half(ss.networks.Network):
    """`Half` has one parameter in bfloat16."""

    shape: tuple[int, ...]

    def init(self, key):
        return {"w": jnp.ones((), jnp.bfloat16)}

    def apply(self, params, x, time_label, cond=None, *, keys=None):
        return x * params["w"].astype(x.dtype)


def test_parameters_in_bfloat16_have_averages_in_float32(tmp_path):
    config = points(name="Denoising") | dict(network=dict(name=f"{__name__}.Half"))
    for steps in (2, 4):
        train(config | dict(train=config["train"] | dict(steps=steps, fused=2, log_every=2)), tmp_path)
    trained = load_trained(tmp_path)
    assert trained.step == 4 and trained.params["network"]["w"].dtype == jnp.float32


def test_a_network_that_returns_another_shape():
    model = ss.NetworkDenoiser(ss.VP(), ss.Noise(), lambda params, x, *_, keys=None: x.reshape(len(x), -1), None)
    with pytest.raises(ss.InputError, match=r"returns shape \(8, 64\) for x of shape \(8, 8, 8, 1\)"):
        model.predict(jnp.zeros((8, 8, 8, 1)), 0.5)
