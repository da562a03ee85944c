"""This module writes the record of a run: train.jsonl, TensorBoard, and the loss curve."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from score_sde import plots
from score_sde.core import files
from score_sde.core.machine import machine

MACHINES = "machines.jsonl"


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of a JSON-lines log.

    A line that a crash cut off is skipped. A missing file has no records.
    """
    records = []
    try:
        lines = pathlib.Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


class _Board:
    """`_Board` writes a TensorBoard event file directly; on a full disk a writer thread would hide the error."""

    def __init__(self, folder: pathlib.Path, purge_step: int) -> None:
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        self.summary, self._event = summary, event_pb2.Event
        self._writer = EventsWriter(str(folder / "events"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # This event hides the later steps of an earlier session.
        self._writer.write_event(self._event(step=purge_step, wall_time=time.time(), session_log=start))

    def write(self, step: int, *summaries: Any) -> None:
        for each in summaries:
            self._writer.write_event(self._event(step=step, wall_time=time.time(), summary=each))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Log:
    """`Log` is a context manager that appends records to train.jsonl and to TensorBoard.

    Args:
        workdir: the workdir.
        step: the step from which training continues. Records of later steps come from lost work and are dropped.
            machines.jsonl records the machine that trains from this step.
    """

    def __init__(self, workdir: str | os.PathLike[str], step: int) -> None:
        self.workdir = pathlib.Path(workdir)
        self.path = self.workdir / "train.jsonl"
        self.records = [record for record in read_records(self.path) if record["step"] <= step]
        files.write_text(self.path, _lines(self.records))
        # A machine record is valid from its step to the step of the next machine record.
        machines = [record for record in read_records(self.workdir / MACHINES) if record["step"] < step]
        files.write_text(self.workdir / MACHINES, _lines([*machines, {"step": step, "machine": machine()}]))
        self._file = self.path.open("a")
        self._board = _Board(self.workdir / "tensorboard", step + 1)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.closing(self._board), contextlib.closing(self._file):
            pass

    def write(self, step: int, **values: float) -> None:
        """Write one record: the step and named numbers."""
        record = {"step": step, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        self.records.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._board.write(step, *(self._board.summary.scalar(name, value) for name, value in values.items()))

    def settle(self) -> None:
        """Write all records to the disk before returning, so that no checkpoint is ahead of the log."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def write_picture(self, step: int, name: str, picture: Any) -> None:
        """Write a picture, uint8 (height, width, 3), to TensorBoard."""
        self._board.write(step, self._board.summary.image(name, picture, dataformats="HWC"))

    def save_curve(self) -> pathlib.Path:
        """Plot the training and held-out losses against the step, and return the path of the PNG file."""
        path = self.workdir / "loss.png"
        curves = {name: self._curve(name) for name in ("loss", "heldout_loss")}
        plots.save_curves(path, {name: curve for name, curve in curves.items() if curve[0]}, "step", "loss")
        return path

    def last(self, name: str) -> float | None:
        """Return the last value recorded under a name, or None without a value."""
        values = self._curve(name)[1]
        return values[-1] if values else None

    def summary(self) -> str:
        """Return the last losses in words."""
        last = {"loss": self.last("loss"), "held-out loss": self.last("heldout_loss")}
        return ", ".join(f"{name} {value:.4f}" for name, value in last.items() if value is not None)

    def _curve(self, name: str) -> tuple[list[int], list[float]]:
        points = [(record["step"], record[name]) for record in self.records if name in record]
        return [step for step, _ in points], [value for _, value in points]


class LogOfAnother(Log):
    """`LogOfAnother` is the log of every process except the first; only the first process writes the log."""

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        self.workdir = pathlib.Path(workdir)
        self.path, self.records = self.workdir / "train.jsonl", []

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def write(self, step: int, **values: float) -> None:
        pass

    def settle(self) -> None:
        pass

    def write_picture(self, step: int, name: str, picture: Any) -> None:
        pass

    def save_curve(self) -> pathlib.Path:
        return self.workdir / "loss.png"
