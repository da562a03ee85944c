"""This module configures JAX on one host: CPU devices, deterministic GPU results, and the compilation cache."""

from __future__ import annotations

import os
import pathlib

import jax

from score_sde.core.machine import usable_cores

_TASKS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


def request_cpu_devices(batch_size: int, processes: int | None = None) -> None:
    """Request as many CPU devices as usable cores, or fewer so that their number divides the batch.

    Call this function before JAX starts. It affects CPUs only. XLA:CPU runs a convolution on one core, so with one
    device the other cores are idle. A number that the user sets in XLA_FLAGS or JAX_NUM_CPU_DEVICES is not changed.

    Args:
        batch_size: the size of a training batch (of a micro-batch), over all processes.
        processes: the number of processes that share a batch, each with its own cores; None for the number that Slurm
            or Open MPI gives.
    """
    if processes is None:
        processes = next((int(os.environ[name]) for name in _TASKS if os.environ.get(name, "").isdecimal()), 1)
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or "JAX_NUM_CPU_DEVICES" in os.environ or batch_size < processes:
        return
    cores = usable_cores()
    fits = [d for d in range(1, cores + 1) if batch_size % (d * processes) == 0]
    jax.config.update("jax_num_cpu_devices", max(fits, default=1))


_DETERMINISTIC = "--xla_gpu_deterministic_ops"


def ask_determinism() -> None:
    """Request that a GPU computes the same numbers in each run; CPUs and TPUs always do so.

    Call this function before JAX starts. XLA then uses no kernels that add in arbitrary order, and does not choose
    among kernels by their run time. A value of this flag that the user sets in XLA_FLAGS is not changed.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_DETERMINISTIC}=true".strip()


def host_device() -> jax.Device:
    """Return the host's CPU device, on which a state is made so that no accelerator must hold the whole state."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX is configured to use one platform only
        return jax.local_devices()[0]


def use_compile_cache(folder: pathlib.Path) -> None:
    """Store compiled programs in a folder, so that later starts do not compile; a setting of the user has priority."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
