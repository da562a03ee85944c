"""This module tests the number of requested devices, and the batch sizes that the devices divide."""

import os
import pathlib
import subprocess
import sys

import pytest

import score_sde as ss
from score_sde import parallel
from score_sde.core import machine
from score_sde.parallel import host


@pytest.mark.parametrize(
    ("batch", "devices", "words"), [(100, 8, "96 or 104"), (3, 8, ": 8"), (0, 2, ": 2"), (7, 2, "6 or 8")]
)
def test_a_batch_that_does_not_divide(batch, devices, words):
    with pytest.raises(ss.InputError, match=words):
        parallel.check_batch(batch, devices)
    parallel.check_batch(devices * 3, devices)


@pytest.mark.parametrize("mine", [[(4, 8)], [(6, 8), (0, 2)], [(0, 2), (0, 2)]])
def test_a_process_reads_the_rows_of_its_devices(mine):
    """The rows are sorted and unique, for every order of the devices and for devices that hold the same rows."""
    devices = parallel.Jit()

    class Elsewhere:
        """`Elsewhere` is a sharding with some of its devices in this process."""

        def addressable_devices_indices_map(self, shape):
            return {i: (slice(low, high),) for i, (low, high) in enumerate(mine)}

    devices.sharded = Elsewhere()
    assert devices.rows(8).tolist() == sorted({row for low, high in mine for row in range(low, high)})
    assert parallel.Jit().rows(8).tolist() == list(range(8))


def test_devices_asked_for_leave_room_for_other_processes(monkeypatch):
    settings = {}
    monkeypatch.setattr(host, "usable_cores", lambda: 6)
    monkeypatch.setattr("jax.config.update", settings.__setitem__)
    for name in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    counts = []
    for processes in (1, 2, 4, 5, 100):
        settings.clear()
        parallel.request_cpu_devices(24, processes)
        counts.append(settings.get("jax_num_cpu_devices"))
    assert counts == [6, 6, 6, 1, None]
    monkeypatch.setenv("SLURM_NTASKS", "8")
    parallel.request_cpu_devices(24)
    assert settings["jax_num_cpu_devices"] == 3


def test_an_unknown_strategy():
    with pytest.raises(ss.InputError, match="'pmapp'; expected one of jit, fsdp, pmap"):
        parallel.strategy("pmapp")


@pytest.mark.parametrize(("text", "cores"), [("max 100000", 1e9), ("150000 100000", 1.5), ("rubbish", 1e9), ("", 1e9)])
def test_the_quota_of_the_control_group(monkeypatch, text, cores):
    def read(self):
        if self.name == "cpu.max":
            return text
        raise FileNotFoundError(self)

    monkeypatch.setattr(pathlib.Path, "read_text", read)
    assert machine._cgroup_quota() == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert parallel.usable_cores() == min(6, max(1, int(cores)))


def devices_of(batch, cores, **environment):
    """Return the number of devices in a new process, which requests devices for the batch."""
    code = (
        "import os; os.sched_getaffinity = lambda _: set(range(CORES))\n"
        "from score_sde import parallel; from score_sde.core import machine; machine._cgroup_quota = lambda: 1e9\n"
        "parallel.request_cpu_devices(BATCH); import jax; print(jax.device_count())"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    code = code.replace("CORES", str(cores)).replace("BATCH", str(batch))
    run = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.slow
def test_every_core_is_a_device_as_far_as_the_batch_divides():
    assert devices_of(128, 3) == 2
    assert devices_of(9, 4) == 3
    assert devices_of(128, 4, XLA_FLAGS="--xla_force_host_platform_device_count=1") == 1
    assert devices_of(128, 4, JAX_NUM_CPU_DEVICES="3") == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "--xla_gpu_deterministic_ops=true"),
        ("--xla_a=1", "--xla_a=1 --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
    ],
)
def test_determinism_is_asked_of_xla_unless_the_user_has(monkeypatch, before, after):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    parallel.ask_determinism()
    assert os.environ["XLA_FLAGS"] == after


def test_xla_knows_the_flag_for_determinism():
    """XLA accepts the flag; an unknown flag would end the process."""
    program = (
        "from score_sde import parallel; parallel.ask_determinism(); import jax; print(jax.numpy.ones(2).sum(), "
        "jax.devices()[0].platform)"
    )
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert out.stdout.startswith("2.0")
