"""This module connects the processes of one run, synchronises them and exchanges arrays between them."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import os
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

from score_sde.core.errors import InputError
from score_sde.core.signals import StopRequest, catch_sigterm
from score_sde.parallel import native_output

T = TypeVar("T")

HEARTBEAT_S = 40  # after this time without a heartbeat a process counts as lost, and the others end
_rounds = itertools.count(1)
# This pattern matches the errors of a collective operation whose peer has ended.
_LOST = re.compile(
    r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED): |[A-Z_]+: .*Gloo .*failed|.*NCCL.*(remote process|connection)",
    re.IGNORECASE | re.DOTALL,
)


def connect(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Connect to the other processes of the run; call this once, before any other use of JAX.

    Without arguments JAX reads the settings from Slurm, Open MPI, Kubernetes or the TPU pod.

    Args:
        coordinator: HOST:PORT of process 0; all processes can reach this address, and the port is free.
        count: the number of processes.
        index: the index of this process, 0 .. count - 1.

    Raises:
        InputError: if the arguments do not fit together, or if the other processes did not connect.
    """
    _check(coordinator, count, index)
    native_output.redirect()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            # Otherwise JAX would ask Slurm for the devices of this process, even with all arguments.
            cluster_detection_method=None if coordinator is None else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        where = f"at {coordinator}" if coordinator else "through the settings of the cluster"
        raise InputError(
            f"The processes of this run did not find one another {where} ({' '.join(str(error).split())[:160]}): start "
            "all of them, each with its own --process, or give --coordinator, --processes and --process."
        ) from error


def _check(coordinator: str | None, count: int | None, index: int | None) -> None:
    if (coordinator, count, index) == (None, None, None):
        return
    if coordinator is None or count is None or index is None:
        raise InputError(
            f"--coordinator={coordinator}, --processes={count}, --process={index}: expected all three, as in "
            "--coordinator=10.0.0.1:8476 --processes=2 --process=0, or only --distributed on a cluster that JAX knows."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator is {coordinator!r}; expected HOST:PORT, as in 10.0.0.1:8476.")
    if count < 1 or not 0 <= index < count:
        raise InputError(f"--process is {index} of --processes={count}; expected 0 .. {count - 1}.")


def disconnect() -> None:
    """Disconnect from the other processes when all processes have finished."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def leave(message: str) -> NoReturn:
    """End this process with a message and status 1, without waiting; the other processes detect its end."""
    if not is_connected():
        sys.exit(message)
    native_output.say_last(message)
    os._exit(1)


def leave_after(error: BaseException) -> NoReturn:
    """End this process after an unexpected error: with one line if a peer has ended, otherwise with the traceback."""
    if not is_connected():
        raise error
    if _LOST.match(str(error)):
        native_output.say_last(native_output.LOST)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


def is_connected() -> bool:
    """Return whether this process has connected to a distributed run, which may have one process only."""
    return jax.distributed.is_initialized()


def count() -> int:
    """Return the number of processes of the run."""
    return jax.process_count()


def index() -> int:
    """Return the index of this process."""
    return jax.process_index()


def is_first() -> bool:
    """Return whether this is process 0, which writes logs, pictures and checkpoints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has called `barrier` with this name."""
    if count() > 1:
        _together().sync_global_devices(name)


@functools.cache
def _together() -> Any:
    """Return JAX's `multihost_utils`, which assume that all processes have the same number of devices."""
    from jax.experimental import multihost_utils

    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"process {i}: {devices[i]}" for i in sorted(devices))
        raise InputError(
            f"The processes have different numbers of devices ({listed}); expected equal numbers: set "
            "JAX_NUM_CPU_DEVICES or CUDA_VISIBLE_DEVICES for each process."
        )
    return multihost_utils


def first_alone(make: Callable[[], T]) -> T:
    """Return make(); the first process calls `make` before the others, which can then use what it prepared."""
    made = make() if is_first() else None
    barrier("first_alone")
    return made if made is not None else make()


def from_first(array: np.ndarray) -> np.ndarray:
    """Return the array of the first process in every process; all processes pass the same shape and dtype."""
    if count() == 1:
        return array
    return np.asarray(_together().broadcast_one_to_all(array))


def gather(tree: Any) -> Any:
    """Return, in every process, the arrays (n, ...) of all processes concatenated to (processes n, ...)."""
    if count() == 1:
        return jax.tree.map(np.asarray, tree)
    return _together().process_allgather(tree, tiled=True)


def check_agreed(what: str, seen: str) -> None:
    """Raise InputError unless all processes pass the same `seen`, such as a list of the files of a workdir.

    Args:
        what: the name of the compared thing, such as 'the checkpoints of runs/a'.
        seen: the value that this process finds.
    """
    said = gather(np.asarray([zlib.crc32(seen.encode())], np.uint32))
    different = np.flatnonzero(said != said[0])
    if different.size:
        raise InputError(
            f"Process {different[0]} does not see {what} as process 0 does (here: {seen[:160]}): expected one file "
            "system that all processes share, and the same command for each."
        )


class Stop:
    """A `Stop` reports whether the run must stop; every process calls `after_this_round` once per round of work.

    With several processes the runtime passes a SIGTERM of one process to all processes. All processes stop after the
    same round.
    """

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    @property
    def asked(self) -> bool:
        """Return whether SIGTERM arrived; always False in a distributed run, where the runtime handles SIGTERM."""
        return self._request.asked

    def after_this_round(self) -> bool:
        """Return whether this round is the last round."""
        if not is_connected():
            return self._request.asked
        return _together().reached_preemption_sync_point(next(_rounds))


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Yield a `Stop`; inside the context SIGTERM requests a stop of the run instead of ending the process."""
    if is_connected():  # the runtime has its own handler of SIGTERM
        yield Stop(StopRequest())
        return
    with catch_sigterm() as request:
        yield Stop(request)
