"""Devices: how many to ask for, and how a step runs on all of them."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from score_sde.core.errors import InputError

Step = Callable[..., tuple[Any, Any]]  # (state, batch, mean) -> (state, metrics)


def usable_cores() -> int:
    """Processor cores this process may use: its affinity, and its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_cgroup_quota() + 1e-9)))


def _cgroup_quota() -> float:
    """Cores granted by the control group (version 2, then 1); infinity-like where there is no limit."""
    try:
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float(quota) / float(period) if quota != "max" else 1e9
    except (OSError, ValueError):
        pass
    try:
        folder = pathlib.Path("/sys/fs/cgroup/cpu")
        quota_us = float((folder / "cpu.cfs_quota_us").read_text())
        return quota_us / float((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else 1e9
    except (OSError, ValueError):
        return 1e9


def request_cpu_devices(batch_size: int) -> None:
    """Make every usable core a device, as far as the batch divides; before JAX starts, and CPU only.

    XLA:CPU runs a convolution on one core, so with one device the other cores sleep. A number that
    the user chose, in XLA_FLAGS or JAX_NUM_CPU_DEVICES, is left alone.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or "JAX_NUM_CPU_DEVICES" in os.environ or batch_size < 1:
        return
    cores = usable_cores()
    jax.config.update("jax_num_cpu_devices", max(d for d in range(1, cores + 1) if batch_size % d == 0))


def use_compile_cache(folder: pathlib.Path) -> None:
    """Keep compiled programs on disk, so that the next start need not compile; the user's own setting wins."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def check_batch(batch_size: int, devices: int, name: str = "batch_size") -> None:
    """Raise InputError for a batch that the devices do not divide, naming the nearest that works."""
    if batch_size < 1 or batch_size % devices:
        below, above = batch_size // devices * devices, (batch_size // devices + 1) * devices
        nearest = f"{above}" if below < 1 else f"{below} or {above}"
        raise InputError(
            f"{name} is {batch_size}, which {devices} devices do not divide; the nearest that works: {nearest}."
        )


class Jit:
    """jax.jit over a mesh of all devices: the state on every device, the batch split among them.

    The compiler inserts the sums over devices; a step sees the whole batch.

    Args:
        devices: which ones; None for all.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None) -> None:
        self.devices = list(jax.devices() if devices is None else devices)
        self.mesh = jax.make_mesh((len(self.devices),), ("data",), axis_types=(AxisType.Auto,), devices=self.devices)
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.sharded = NamedSharding(self.mesh, PartitionSpec("data"))

    def place_state(self, state: Any) -> Any:
        """A copy of the state on every device."""
        return jax.device_put(state, self.replicated)

    def place_batch(self, batch: Any) -> Any:
        """The batch, its leading axis split over the devices."""
        return jax.device_put(batch, self.sharded)

    def place_sharded(self, tree: Any) -> Any:
        """Arrays with their leading axis split over the devices, for programs that jax.jit spreads by its inputs."""
        return jax.device_put(tree, self.sharded)

    def compile(self, step: Step) -> Callable[[Any, Any], tuple[Any, Any]]:
        """(state, batch) -> (state, metrics) on all devices; the old state's memory is reused."""
        whole = functools.partial(step, mean=lambda tree: tree)
        return jax.jit(whole, donate_argnums=0, out_shardings=self.replicated)


class Pmap(Jit):
    """jax.pmap: each device runs the step on its own part of the batch, and means are taken by name.

    Equal to Jit up to rounding. For those who build on pmap; it copies the state at every step.
    """

    def place_batch(self, batch: Any) -> Any:
        count = len(self.devices)
        return jax.tree.map(lambda leaf: np.reshape(leaf, (count, -1, *np.shape(leaf)[1:])), batch)

    def compile(self, step: Step) -> Callable[[Any, Any], tuple[Any, Any]]:
        local = functools.partial(step, mean=lambda tree: jax.lax.pmean(tree, "data"))
        return jax.pmap(local, axis_name="data", in_axes=(None, 0), out_axes=None, devices=self.devices)


STRATEGIES: dict[str, type[Jit]] = {"jit": Jit, "pmap": Pmap}


def strategy(name: str) -> Jit:
    """The way of using all devices that config.parallel names: 'jit' or 'pmap'."""
    if name not in STRATEGIES:
        raise InputError(f"parallel is {name!r}; expected one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]()
