"""The options of a training run that may change its speed and memory, and nothing else."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import score_sde as ss
from score_sde import parallel
from score_sde.model import Blueprint
from score_sde.objective import Objective
from score_sde.training import train
from score_sde.training.log import Log, read_records
from score_sde.training.step import build_optimizer, init_state, make_step
from tests import small_job


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
    """A run with no options: its parameters, average and log, and how far the parameters moved."""
    config = small_job.get_config()
    config.data.dir = str(tmp_path_factory.mktemp("data"))
    config.train.update(steps=12, log_every=6, eval_every=12, sample_every=0, checkpoint_every=6)
    workdir = tmp_path_factory.mktemp("plain")
    train(config, workdir)
    return workdir


def check_same(workdir, other):
    for ema in (False, True):
        ours, theirs = (leaves(ss.load(w, ema=ema).denoiser.params) for w in (workdir, other))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=3e-6)
    for a, b in zip(*(read_records(w / "train.jsonl") for w in (workdir, other)), strict=True):
        assert {**a, "seconds_per_step": 0} == pytest.approx({**b, "seconds_per_step": 0}, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"train.fused": 6}, marks=pytest.mark.slow),
        {"train.fused": 3},
        {"train.microbatches": 4},
        pytest.param({"train.fused": 2, "train.microbatches": 8}, marks=pytest.mark.slow),
        {"parallel": "fsdp"},
        {"parallel": "fsdp:1"},
        pytest.param({"parallel": "fsdp", "train.fused": 3, "train.microbatches": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_fused_accumulated_and_cut_runs_are_the_plain_one(config, plain, tmp_path, change):
    config.update_from_flattened_dict(change)
    train(config, tmp_path)
    check_same(tmp_path, plain)


def test_a_run_may_go_on_with_other_options(config, plain, tmp_path):
    """From a step that is no multiple of the fused number too, and with the log of the plain run."""
    config.train.update(steps=6, microbatches=2)
    config.train.eval_every = 0
    train(config, tmp_path)
    config.parallel = "fsdp"
    config.train.update(steps=12, fused=4, log_every=0, eval_every=12, checkpoint_every=12, microbatches=1)
    train(config, tmp_path)
    for ours, theirs in zip(*(leaves(ss.load(w).denoiser.params) for w in (tmp_path, plain)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-6)


def test_under_fsdp_every_device_holds_its_part(config):
    blueprint = Blueprint.from_config(config)
    objective, optimizer = Objective.from_config(blueprint, config), build_optimizer(config.optimizer)[0]
    devices = parallel.Fsdp()
    state = devices.place_state(init_state(objective, optimizer, seed=0))
    batch = {"image": np.full((4, 8, 8, 1), 5, np.uint8), "label": np.arange(4), "index": np.arange(4)}
    step = devices.compile(make_step(objective, optimizer, seed=0, ema=0.9, devices=devices), state)
    for _ in range(2):  # after a step as before
        matrices = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (64, 64)]
        assert len(matrices) == 4  # parameters, average and the two moments of Adam
        for leaf in matrices:
            assert {shard.data.shape for shard in leaf.addressable_shards} == {(64, 32)}
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state) if leaf.size < 4096)
        before, (state, _) = state, step(state, devices.place_batch(batch))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))  # donated: its memory is used again
    whole = devices.one_copy(state)
    assert whole.params["matrix"].shape == (64, 64)
    np.testing.assert_array_equal(whole.params["matrix"], np.asarray(state.params["matrix"]))


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
        ({"train.fused": 5}, "train.fused is 5, and train.steps = 12 is no multiple of it"),
        ({"train.fused": 4}, "train.fused is 4, and train.log_every = 6 is no multiple of it"),
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
    """Resident bytes of this process."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_2000_steps_need_no_more_memory_and_compile_nothing(config, tmp_path, monkeypatch, compiles):
    """Between the first record of the log and the last."""
    config.train.update(steps=2000, log_every=200, eval_every=0, checkpoint_every=2000)
    seen = []
    write = Log.write

    def looked_at(log, step, **values):
        write(log, step, **values)
        seen.append((memory(), len(compiles)))

    monkeypatch.setattr(Log, "write", looked_at)
    train(config, tmp_path)
    assert len(seen) == 10
    assert seen[0][1] > 0 and seen[-1][1] == seen[0][1]
    # Of a leak of one batch a step (1 KB of images, 1 KB of keys) it would be 3 MB.
    assert seen[-1][0] - seen[1][0] < 2e6


@pytest.mark.slow
def test_low_precision_stays_inside_the_network(data_dir):
    """Parameters, average, moments and losses are float32; the loss is within 1 % and the way within 10 %."""
    from configs import digits

    config = digits.get_config("vp")
    config.data.update(dir=data_dir, batch_size=16)
    config.network.update(channels=8, multipliers=(1,), attention=(8,))
    config.optimizer.schedule.update(warmup_steps=2)
    runs = {}
    for dtype in ("float32", "bfloat16"):
        config.network.dtype = dtype
        blueprint = Blueprint.from_config(config)
        objective, optimizer = Objective.from_config(blueprint, config), build_optimizer(config.optimizer)[0]
        devices = parallel.Jit()
        state = devices.place_state(init_state(objective, optimizer, seed=0))
        start = leaves(state.params)
        step = devices.compile(make_step(objective, optimizer, seed=0, ema=0.9, devices=devices), state)
        rng, losses = np.random.default_rng(0), []
        for _ in range(30):
            batch = {
                "image": rng.integers(0, 17, (16, 8, 8, 1), np.uint8),
                "index": np.arange(16),
                "label": np.zeros(16),
            }
            state, metrics = step(state, devices.place_batch(batch))
            losses.append(float(metrics["loss"]))
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(state)} <= {"float32", "int32"}
        assert metrics["loss"].dtype == jnp.float32
        runs[dtype] = np.asarray(losses), [a - b for a, b in zip(leaves(state.params), start)]
    exact, low = runs["float32"], runs["bfloat16"]
    np.testing.assert_allclose(low[0], exact[0], rtol=1e-2)
    assert not np.array_equal(low[0], exact[0])
    apart = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(low[1], exact[1])))
    moved = np.sqrt(sum((b**2).sum() for b in exact[1]))
    assert apart < 0.1 * moved
