"""One machine: its processor cores, and where its compiled programs are kept."""

from __future__ import annotations

import os
import pathlib

import jax

from score_sde.core.machine import usable_cores

_TASKS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


def request_cpu_devices(batch_size: int, processes: int | None = None) -> None:
    """Make every usable core a device, as far as the batch divides; before JAX starts, and CPU only.

    XLA:CPU runs a convolution on one core, so with one device the other cores sleep. A number that
    the user chose, in XLA_FLAGS or JAX_NUM_CPU_DEVICES, is left alone.

    Args:
        batch_size: of training (of a micro-batch), over all processes.
        processes: how many share it, each on cores of its own; None for as many as Slurm or Open MPI says.
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
    """Have a GPU compute the same numbers at each run; before JAX starts. CPUs and TPUs do so anyway.

    XLA then takes no kernels that add in any order, and does not choose among kernels by their time. A value that the
    user gave to this flag in XLA_FLAGS is left alone.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_DETERMINISTIC}=true".strip()


def host_device() -> jax.Device:
    """Where a state is made before it is placed: in the host's memory, so that no one device must hold all of it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to use one platform only
        return jax.local_devices()[0]


def use_compile_cache(folder: pathlib.Path) -> None:
    """Keep compiled programs on disk, so that the next start need not compile; the user's own setting wins."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
