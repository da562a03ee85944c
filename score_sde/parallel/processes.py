"""Several processes that make one run: how they find, wait for and tell one another."""

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

HEARTBEAT_S = 40  # after so long without a sign of life a process counts as dead, and the others end
_rounds = itertools.count(1)
# What a collective says that finds its peer gone.
_LOST = re.compile(
    r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED): |[A-Z_]+: .*Gloo .*failed|.*NCCL.*(remote process|connection)",
    re.IGNORECASE | re.DOTALL,
)


def connect(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Join the run's other processes; before anything else of JAX, and once.

    Without arguments JAX finds out from Slurm, Open MPI, Kubernetes or the TPU pod that it runs on.

    Args:
        coordinator: HOST:PORT of process 0, with a free port, as all processes reach it.
        count: how many processes there are.
        index: which one this is, 0 .. count - 1.

    Raises:
        InputError: for arguments that do not fit together, or where the others did not come.
    """
    _check(coordinator, count, index)
    native_output.redirect()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            # Told all, JAX would still ask Slurm which of the host's devices are this process's.
            cluster_detection_method=None if coordinator is None else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        where = f"at {coordinator}" if coordinator else "by what the cluster says of itself"
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
            "--coordinator=10.0.0.1:8476 --processes=2 --process=0, or --distributed alone where the cluster is known."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator is {coordinator!r}; expected HOST:PORT, as in 10.0.0.1:8476.")
    if count < 1 or not 0 <= index < count:
        raise InputError(f"--process is {index} of --processes={count}; expected 0 .. {count - 1}.")


def disconnect() -> None:
    """Leave together with the others, once all have come to their end."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def leave(message: str) -> NoReturn:
    """End this process with a message and status 1, without waiting for the others, who will find out."""
    if not is_connected():
        sys.exit(message)
    native_output.say_last(message)
    os._exit(1)


def leave_after(error: BaseException) -> NoReturn:
    """End this process after an error nobody foresaw: in one line if a peer is gone, else with its traceback."""
    if not is_connected():
        raise error
    if _LOST.match(str(error)):
        native_output.say_last(native_output.LOST)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


def is_connected() -> bool:
    """Whether this process has joined a run of several (or of one that is called so)."""
    return jax.distributed.is_initialized()


def count() -> int:
    """How many processes the run has."""
    return jax.process_count()


def index() -> int:
    """Which of them this is."""
    return jax.process_index()


def is_first() -> bool:
    """Whether this is the process that writes logs, pictures and checkpoints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Return once every process has come here."""
    if count() > 1:
        _together().sync_global_devices(name)


@functools.cache
def _together() -> Any:
    """JAX's tools for several processes, which take it that all have as many devices."""
    from jax.experimental import multihost_utils

    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"process {i}: {devices[i]}" for i in sorted(devices))
        raise InputError(
            f"The processes have different numbers of devices ({listed}); expected as many in each: set "
            "JAX_NUM_CPU_DEVICES or CUDA_VISIBLE_DEVICES for each process."
        )
    return multihost_utils


def first_alone(make: Callable[[], T]) -> T:
    """What `make` returns, called by the first process before the others, so that they find what it prepares."""
    made = make() if is_first() else None
    barrier("first_alone")
    return made if made is not None else make()


def from_first(array: np.ndarray) -> np.ndarray:
    """The first process's array, in every process; all give one of the same shape and type."""
    if count() == 1:
        return array
    return np.asarray(_together().broadcast_one_to_all(array))


def gather(tree: Any) -> Any:
    """Arrays (n, ...) of every process, one after another: (processes n, ...), in every process."""
    if count() == 1:
        return jax.tree.map(np.asarray, tree)
    return _together().process_allgather(tree, tiled=True)


def check_agreed(what: str, seen: str) -> None:
    """Raise InputError unless every process has seen the same, such as the files of a workdir.

    Args:
        what: what they look at, such as 'the checkpoints of runs/a'.
        seen: what this process sees there.
    """
    said = gather(np.asarray([zlib.crc32(seen.encode())], np.uint32))
    different = np.flatnonzero(said != said[0])
    if different.size:
        raise InputError(
            f"Process {different[0]} does not see {what} as process 0 does (here: {seen[:160]}): expected one file "
            "system that all processes share, and the same command for each."
        )


class Stop:
    """Whether the run is to stop: asked once in every round of work, by every process.

    With several processes the runtime carries a SIGTERM from one to all, and they stop after the same round.
    """

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    @property
    def asked(self) -> bool:
        """Whether this process has been asked; of a run of several, False, as the runtime takes the signal."""
        return self._request.asked

    def after_this_round(self) -> bool:
        """Whether this round is the last one."""
        if not is_connected():
            return self._request.asked
        return _together().reached_preemption_sync_point(next(_rounds))


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """While inside, SIGTERM asks the run to stop instead of ending the process."""
    if is_connected():  # the runtime's own handler stays
        yield Stop(StopRequest())
        return
    with catch_sigterm() as request:
        yield Stop(request)
