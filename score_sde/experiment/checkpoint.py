"""This module writes and restores the checkpoints of a run.

The folder checkpoints/STEP/ holds the items that `items_of` returns for a state, and the item `about`. `about` holds a
digest of each item. A checkpoint is whole if its digests match its items. The digests are checked before a checkpoint
is used, because orbax restores flipped bits without an error, and accepts an empty folder as a checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from score_sde.core.digests import digest
from score_sde.core.errors import DivergenceError, InputError, StorageError
from score_sde.experiment import manifest
from score_sde.experiment.state import TrainState, items_of

_UNFINISHED = ".orbax-checkpoint-tmp"  # orbax has this in the name of an unfinished folder


class Restored(NamedTuple):
    """`Restored` holds a whole checkpoint.

    Attributes:
        step: the step of the checkpoint.
        items: the requested items, by name.
        notes: the notes that were saved with the checkpoint.
        digests: the digest of each item of the checkpoint, by name.
    """

    step: int
    items: dict[str, Any]
    notes: dict[str, Any]
    digests: dict[str, str]


class _NotWhole(Exception):
    """`_NotWhole` carries the reason why a checkpoint cannot be used."""


class Checkpoints:
    """`Checkpoints` manages the checkpoints of a workdir.

    `Checkpoints` is a context manager. At its end it waits until all checkpoints are written.

    Args:
        workdir: the workdir.
        last: the number of newest checkpoints that are kept.
        every: checkpoints whose step is divisible by `every` are kept permanently; 0 for none.
        device: the device to which arrays are restored; None for the first device of this process.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], last: int = 1, every: int = 0, device: jax.Device | None = None
    ) -> None:
        import orbax.checkpoint as ocp  # imported late: the import takes half a second

        self._ocp, self._device = ocp, device
        self.workdir = pathlib.Path(workdir).absolute()
        self.folder = self.workdir / "checkpoints"
        # Each process reads on its own and only one process writes, so orbax need not synchronise the processes.
        me = jax.process_index()
        alone = dict(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=last,
            keep_period=every or None,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(**alone if jax.process_count() > 1 else {}),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._writing: int | None = None
        self._written: int | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.wait()
        except StorageError:
            if error is None:
                raise
        finally:
            self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps of all existing checkpoints, whole or not, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, notes: dict[str, Any] | None = None) -> None:
        """Write a checkpoint in the background; the state may be donated as soon as `save` returns.

        Args:
            state: the state to save; this process holds each array completely (`Jit.one_copy`).
            notes: values that JSON can hold; they are restored with the checkpoint.

        Raises:
            StorageError: if this checkpoint, or the previous checkpoint, cannot be written.
            DivergenceError: if the state is not finite, since such a checkpoint would be useless.
        """
        self.wait()
        step = int(state.step)
        items = items_of(state)
        check_finite(state)
        about = {"digests": {name: digest(item) for name, item in items.items()}, "notes": notes or {}}
        about["digests"]["notes"] = _digest_of_json(about["notes"])
        arguments = {name: self._ocp.args.StandardSave(item) for name, item in items.items()}
        arguments["about"] = self._ocp.args.JsonSave(about)
        self._writing = step
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _check_room(self.folder, items)
            if not self._manager.save(step, args=self._ocp.args.Composite(**arguments)):
                raise OSError(f"a checkpoint of step {self._manager.latest_step()} exists already")
        except Exception as error:  # orbax passes on every exception type of its storage library
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Wait until no checkpoint is being written; raise StorageError if the last save failed."""
        if self._writing is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error
        with contextlib.suppress(OSError):  # the checkpoint is usable without this record: it has digests
            manifest.write(self.folder / str(self._writing))
        self._written, self._writing = self._writing, None

    def restore(self, step: int, templates: dict[str, Any]) -> Restored:
        """Return the checkpoint of one step, with each item in the structure and shapes of its template.

        Raises:
            InputError: if the checkpoint is not whole; the message gives the reason.
        """
        try:
            return self._restore(step, templates)
        except _NotWhole as error:
            raise InputError(f"The checkpoint of step {step} in {self.workdir} is not whole: {error}.") from error

    def newest(self, templates: dict[str, Any]) -> tuple[Restored | None, dict[int, str]]:
        """Return the newest whole checkpoint, and the reasons, by step, why newer checkpoints are not whole.

        Without any checkpoint the result is (None, {}).

        Raises:
            InputError: if checkpoints exist and none of them is whole.
        """
        broken: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                return self._restore(step, templates), broken
            except _NotWhole as error:
                broken[step] = str(error)
        if broken:
            raise InputError(
                f"{self.workdir} has no whole checkpoint ({describe(broken)}): to start over, move {self.folder} away."
            )
        return None, {}

    def put_aside(self, broken: dict[int, str]) -> None:
        """Move checkpoints that are not whole to the folder broken/, and remove unfinished checkpoints."""
        for step in broken:
            target = self.workdir / "broken" / str(step)
            while target.exists():
                target = target.with_name(target.name + "_")
            target.parent.mkdir(exist_ok=True)
            os.rename(self.folder / str(step), target)
        for folder in self.folder.glob(f"*{_UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)
        self._manager.reload()

    def _restore(self, step: int, templates: dict[str, Any]) -> Restored:
        folder = self.folder / str(step)
        try:
            if not any(folder.iterdir()):
                raise _NotWhole("its folder is empty")
            if not (folder / "about").is_dir():
                raise _NotWhole("it has no digests")
            if damage := manifest.damage(folder, templates):
                raise _NotWhole(damage)
        except OSError as error:
            raise _NotWhole(f"it cannot be read ({_short(error)})") from error
        # Without a sharding orbax looks for the device on which the checkpoint was written.
        here = jax.sharding.SingleDeviceSharding(self._device or jax.local_devices()[0])

        def placed(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)

        arguments = {
            name: self._ocp.args.StandardRestore(jax.tree.map(placed, template)) for name, template in templates.items()
        }
        arguments["about"] = self._ocp.args.JsonRestore()
        try:
            found = dict(self._manager.restore(step, args=self._ocp.args.Composite(**arguments)))
            about = found.pop("about")
            digests, notes = dict(about["digests"]), dict(about["notes"])
        except Exception as error:  # truncated or missing files make orbax raise many types
            raise _NotWhole(_short(error)) from error
        if _digest_of_json(notes) != digests.get("notes"):
            raise _NotWhole("its notes are not what was saved: the digest differs")
        for name, item in found.items():
            if digest(item) != digests.get(name):
                raise _NotWhole(f"its {name} are not what was saved: the digest differs")
        return Restored(step, found, notes, digests)

    def _unwritten(self, error: Exception) -> StorageError:
        step, self._writing = self._writing, None
        for folder in self.folder.glob(f"{step}{_UNFINISHED}*"):  # an unfinished folder may fill the disk
            shutil.rmtree(folder, ignore_errors=True)
        last = f"the checkpoint of step {self._written} is" if self._written is not None else "earlier checkpoints are"
        return StorageError(
            f"The checkpoint of step {step} could not be written to {self.folder} ({_short(error)}); {last} safe: "
            "free disk space and run the same command again."
        )


def _digest_of_json(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def describe(broken: dict[int, str]) -> str:
    """Return the steps of broken checkpoints with the reasons, on one line."""
    return "; ".join(f"step {step}: {reason}" for step, reason in broken.items())


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def check_finite(state: TrainState) -> None:
    """Raise DivergenceError if a state is not finite; the message names the step and the item."""
    for name, item in items_of(state).items():
        for leaf in jax.tree.leaves(item):
            if jax.numpy.issubdtype(leaf.dtype, np.floating) and not np.isfinite(np.asarray(leaf, np.float32)).all():
                raise DivergenceError(
                    f"After step {int(state.step)} the values of {name} are not finite, so no checkpoint is written: "
                    "the last one is safe; train in another --workdir with a smaller learning rate, or clip gradients."
                )


def _check_room(folder: pathlib.Path, items: dict[str, Any]) -> None:
    """Raise OSError if the disk has too little space; orbax would print a stack trace from each of its threads."""
    needed = int(1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(items))) + 2**17
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"No space left on device: {free:,} bytes free, about {needed:,} needed")
