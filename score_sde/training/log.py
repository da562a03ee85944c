"""The record of a run: train.jsonl, TensorBoard, and the loss curve."""

from __future__ import annotations

import json
import os
import pathlib
from types import TracebackType
from typing import Any

from score_sde import images
from score_sde.core import files


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a JSON-lines log; a line torn by a crash is left out, no file is no records."""
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


class Log:
    """Appends records to train.jsonl and to TensorBoard; a context manager.

    Args:
        workdir: the workdir.
        step: training goes on from here: records of later steps, from work that was lost, are dropped.
    """

    def __init__(self, workdir: str | os.PathLike[str], step: int) -> None:
        from tensorboardX import SummaryWriter

        self.workdir = pathlib.Path(workdir)
        self.path = self.workdir / "train.jsonl"
        self.records = [record for record in read_records(self.path) if record["step"] <= step]
        files.write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.records))
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(self.workdir / "tensorboard"), purge_step=step + 1, flush_secs=10)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, **values: float) -> None:
        """One record: the step and named numbers."""
        record = {"step": step, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        self.records.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def settle(self) -> None:
        """Return once every record is on the disk, so that no checkpoint is ahead of its log."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def write_picture(self, step: int, name: str, picture: Any) -> None:
        """A picture, uint8 (height, width, 3), to TensorBoard."""
        self._board.add_image(name, picture, step, dataformats="HWC")

    def save_curve(self) -> pathlib.Path:
        """Plot the training and held-out losses against the step; returns the PNG's path."""
        path = self.workdir / "loss.png"
        curves = {name: self._curve(name) for name in ("loss", "heldout_loss")}
        images.save_curves(path, {name: curve for name, curve in curves.items() if curve[0]}, "step", "loss")
        return path

    def last(self, name: str) -> float | None:
        """The last value recorded under a name."""
        values = self._curve(name)[1]
        return values[-1] if values else None

    def _curve(self, name: str) -> tuple[list[int], list[float]]:
        points = [(record["step"], record[name]) for record in self.records if name in record]
        return [step for step, _ in points], [value for _, value in points]
