"""This module tests the options that change the speed and the memory of a training run, and not the result."""

import gc
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import score_sde as ss
from score_sde import parallel
from score_sde.experiment import Experiment, make_step
from score_sde.jobs import train
from score_sde.jobs.log import Log, read_records
from tests import small_job
from tests.few_digits import Affine


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data_dir):
    config = small_job.get_config()
    config.data.dir = data_dir
    config.train.update(steps=12, log_every=6, eval_every=12, sample_every=0, checkpoint_every=6)
    return config


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return the workdir of a run with the default options."""
    config = small_job.get_config()
    config.data.dir = str(tmp_path_factory.mktemp("data"))
    config.train.update(steps=12, log_every=6, eval_every=12, sample_every=0, checkpoint_every=6)
    workdir = tmp_path_factory.mktemp("plain")
    train(config, workdir)
    return workdir


def check_same(workdir, other):
    for average in (None, "ema"):
        ours, theirs = (leaves(ss.load(w, average=average).denoiser.params) for w in (workdir, other))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=3e-6)
    for a, b in zip(*(read_records(w / "train.jsonl") for w in (workdir, other)), strict=True):
        assert {**a, "seconds_per_step": 0} == pytest.approx({**b, "seconds_per_step": 0}, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"train.fused": 6}, marks=pytest.mark.long),
        pytest.param({"train.fused": 3}, marks=pytest.mark.slow),
        {"train.microbatches": 4},
        pytest.param({"train.fused": 2, "train.microbatches": 8}, marks=pytest.mark.long),
        pytest.param({"parallel": "fsdp"}, marks=pytest.mark.long),
        {"parallel": "fsdp:1"},
        pytest.param({"parallel": "fsdp", "train.fused": 3, "train.microbatches": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_fused_accumulated_and_cut_runs_are_the_plain_one(config, plain, tmp_path, change):
    config.update_from_flattened_dict(change)
    train(config, tmp_path)
    check_same(tmp_path, plain)


@pytest.mark.slow
def test_a_run_may_go_on_with_other_options(config, plain, tmp_path):
    """A run continues with other options from a step that is no multiple of train.fused, and ends as the plain run."""
    config.train.update(steps=6, microbatches=2)
    config.train.eval_every = 0
    train(config, tmp_path)
    config.parallel = "fsdp"
    config.train.update(steps=12, fused=4, log_every=0, eval_every=12, checkpoint_every=12, microbatches=1)
    train(config, tmp_path)
    for ours, theirs in zip(*(leaves(ss.load(w).denoiser.params) for w in (tmp_path, plain)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-6)


def test_under_fsdp_every_device_holds_its_part(config):
    experiment, devices = Experiment.from_config(config), parallel.Fsdp()
    state = devices.place_state(experiment.init_state())
    cond = {"label": np.arange(4, dtype=np.int32)}
    batch = {"values": np.full((4, 8, 8, 1), 5, np.uint8), "cond": cond, "index": np.arange(4)}
    function, frozen = make_step(experiment, devices=devices)
    step = devices.compile(function, state)
    for _ in range(2):  # A step keeps the layout.
        matrices = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (64, 64)]
        assert len(matrices) == 4  # Adam has two moments besides parameters and average.
        for leaf in matrices:
            assert {shard.data.shape for shard in leaf.addressable_shards} == {(64, 32)}
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state) if leaf.size < 4096)
        before, (state, _) = state, step(state, devices.place_batch(batch), frozen)
        # The step reuses the memory of the old state.
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    whole = devices.one_copy(state)
    matrix = whole.params["network"]["matrix"]
    assert matrix.shape == (64, 64)
    np.testing.assert_array_equal(matrix, np.asarray(state.params["network"]["matrix"]))


class Cut(Affine):
    """`Cut` declares the axis along which the matrix is cut."""

    def traits(self, params):
        return super().traits(params) | {"matrix": ss.networks.Trait(cut=0, decays=False)}


def test_a_network_declares_how_it_is_cut_and_what_does_not_decay(config):
    """Parameters, averages and moments are cut along the declared axis, and weight decay skips the matrix."""
    config.network = dict(name=f"{__name__}.Cut")
    config.optimizer = dict(name="adamw", weight_decay=0.5, schedule=dict(name="constant_schedule", value=0.1))
    experiment, devices = Experiment.from_config(config), parallel.Fsdp()
    state = devices.place_state(experiment.init_state(), experiment.cuts)
    matrices = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (64, 64)]
    assert len(matrices) == 4
    for leaf in matrices:
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(32, 64)}
    params = state.params["network"]
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = experiment.optimizers["network"].update(zero, state.optimizer["network"], params)
    np.testing.assert_array_equal(updates["matrix"], 0)
    np.testing.assert_allclose(updates["classes"], -0.1 * 0.5 * params["classes"], rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ((3, 3, 32, 64), (None, None, None, "fsdp")),
        ((3, 3, 64, 32), (None, None, "fsdp")),
        ((64, 64), (None, "fsdp")),
        ((4096, 3), ("fsdp",)),
        ((4097, 3), ()),
        ((63, 65), ()),
        ((4095,), ()),
        ((), ()),
    ],
)
def test_the_rule_on_shapes(shape, cut):
    assert parallel.Fsdp()._cut(shape) == PartitionSpec(*cut)
    assert parallel.Fsdp(group=1)._cut(shape) == PartitionSpec()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train.fused": 5}, "train.fused is 5, and train.steps = 12 is not a multiple of train.fused"),
        ({"train.fused": 4}, "train.fused is 4, and train.log_every = 6 is not a multiple of train.fused"),
        ({"train.fused": 0}, "train.fused is 0"),
        ({"train.microbatches": 0}, "train.microbatches is 0"),
        (
            {"train.microbatches": 3},
            "batch_size is 16, which 2 devices times 3 micro-batches do not divide; the nearest that works: 12 or 18",
        ),
        ({"parallel": "pmap", "train.fused": 2}, "train.fused is 2 with parallel='pmap'"),
    ],
)
def test_options_that_do_not_fit_are_refused(config, tmp_path, change, words):
    config.update_from_flattened_dict(change)
    with pytest.raises(ss.InputError, match=words):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fsdp:3", "fsdp group is 3; expected a number that divides the 2 devices"),
        ("fsdp:0", "fsdp group is 0"),
        ("fsdp:all", "parallel is 'fsdp:all'; expected one of jit, fsdp, pmap, or fsdp:GROUP"),
        ("jit:2", "parallel is 'jit:2'"),
        (None, "parallel is None"),
    ],
)
def test_names_of_strategies(name, words):
    with pytest.raises(ss.InputError, match=words):
        parallel.strategy(name)
    assert [parallel.strategy(name).group for name in ("fsdp", "fsdp:1", "fsdp:2")] == [2, 1, 2]


def memory():
    """Return the bytes that JAX arrays, Python and NumPy use, without memory that an allocator keeps in reserve."""
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays()) + tracemalloc.get_traced_memory()[0]


def test_200_steps_need_no_more_memory_and_compile_nothing(config, tmp_path, monkeypatch, compiles):
    """After the first record of the log nothing is compiled, and after the second record the memory does not grow."""
    config.train.update(steps=200, log_every=20, eval_every=0, checkpoint_every=200)
    measurements = []
    write = Log.write

    def write_and_measure(log, step, **values):
        write(log, step, **values)
        measurements.append((memory(), len(compiles)))

    monkeypatch.setattr(Log, "write", write_and_measure)
    tracemalloc.start()
    try:
        train(config, tmp_path)
    finally:
        tracemalloc.stop()
    assert len(measurements) == 10
    assert measurements[0][1] > 0 and measurements[-1][1] == measurements[0][1]
    # A leak of one batch a step (1 KB of images) would add 160 KB.
    assert measurements[-1][0] - measurements[1][0] < 1e5


@pytest.mark.slow
def test_low_precision_stays_inside_the_network(data_dir):
    """The state and the loss are float32; the loss is within 1 % and the change of the parameters within 10 %."""
    from configs import digits

    config = digits.get_config("vp")
    config.data.update(dir=data_dir, batch_size=16)
    config.network.update(channels=8, multipliers=(1,), attention=(8,))
    config.optimizer.schedule.update(warmup_steps=2)
    runs = {}
    for dtype in ("float32", "bfloat16"):
        config.network.dtype = dtype
        experiment, devices = Experiment.from_config(config), parallel.Jit()
        state = devices.place_state(experiment.init_state())
        start = leaves(state.params)
        function, frozen = make_step(experiment, devices=devices)
        step = devices.compile(function, state)
        rng, losses = np.random.default_rng(0), []
        for _ in range(30):
            values = rng.integers(0, 17, (16, 8, 8, 1), np.uint8)
            batch = {"values": values, "cond": None, "index": np.arange(16)}
            state, metrics = step(state, devices.place_batch(batch), frozen)
            losses.append(float(metrics["loss"]))
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(state)} <= {"float32", "int32"}
        assert metrics["loss"].dtype == jnp.float32
        runs[dtype] = np.asarray(losses), [a - b for a, b in zip(leaves(state.params), start)]
    exact, low = runs["float32"], runs["bfloat16"]
    np.testing.assert_allclose(low[0], exact[0], rtol=1e-2)
    assert not np.array_equal(low[0], exact[0])
    distance = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(low[1], exact[1])))
    moved = np.sqrt(sum((b**2).sum() for b in exact[1]))
    assert distance < 0.1 * moved
