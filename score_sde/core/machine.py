"""This module finds the cores that a process may use, and describes the machine in words."""

from __future__ import annotations

import os
import pathlib
import platform

import jax


def usable_cores() -> int:
    """Return the number of cores that this process may use: the smaller of its CPU affinity and control group quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_cgroup_quota() + 1e-9)))


def _cgroup_quota() -> float:
    """Return the number of cores that the control group grants (version 2, then 1); 1e9 if there is no limit."""
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


def machine() -> str:
    """Return the processor, the cores, Python, JAX and the devices in one line."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    devices = jax.devices()
    return (
        f"{model}, {usable_cores()} cores; Python {platform.python_version()}, JAX {jax.__version__}, "
        f"{len(devices)} x {devices[0].device_kind}"
    )
