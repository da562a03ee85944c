"""This module keeps the results and the time limit of benchmarks/accelerator.py, and makes configs and batches."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.common import PRECISIONS
from configs import cifar10

# The data sheets state these dense peaks in TFLOP/s, in the order bfloat16, TF32, float32.
PEAKS = {
    "H100": (989, 495, 67), "H200": (989, 495, 67), "A100": (312, 156, 19.5), "v4": (275,) * 3, "v5e": (197,) * 3,
    "v5 lite": (197,) * 3, "v5p": (459,) * 3, "v6e": (918,) * 3,
}  # fmt: skip
NETWORKS = {"NCSN++": "ve,ncsnpp", "DDPM++": "vp,ddpmpp"}
TINY = dict(channels=8, multipliers=(1, 2), blocks=1, attention=(16,))


class Run:
    """`Run` keeps the printed lines and the end of the time limit."""

    def __init__(self, minutes: float, out: pathlib.Path | None) -> None:
        self.end, self.out, self.wrong = time.perf_counter() + 60 * minutes, out, 0
        self.lines: list[dict[str, Any]] = []

    def tell(self, **entries: Any) -> None:
        self.lines.append(entries)
        line = json.dumps(entries)
        print(line, flush=True)
        if self.out is not None:
            with self.out.open("a") as file:
                file.write(line + "\n")

    def table(self) -> str:
        """Return the checks and the measurements as a Markdown table."""
        rows = ["| what | result |", "| --- | --- |"]
        for line in self.lines:
            if "check" in line:
                verdict = "right" if line["right"] else "WRONG"
                rows.append(f"| {line['check']} | {verdict}: {line['figure']:.2g}, at most {line['bound']:g} |")
            elif "why" not in line and "device" not in line and "wrong" not in line:
                (kind, what), *figures = line.items()
                rows.append(f"| {kind}: {what} | {', '.join(f'{name} {value}' for name, value in figures)} |")
        return "\n".join(rows)

    def check(self, what: str, figure: float, bound: float) -> None:
        """Print whether a figure is at most the bound."""
        right = bool(figure <= bound)
        self.wrong += not right
        self.tell(check=what, figure=float(figure), bound=bound, right=right)

    @contextlib.contextmanager
    def item(self, what: str, seconds: float) -> Iterator[bool]:
        """Yield whether enough time is left for an item, and print the error of an item that fails."""
        seconds_left = self.end - time.perf_counter()
        if seconds_left < seconds:
            self.tell(left_out=what, why=f"{seconds_left:.0f} s are left; the item may take {seconds:.0f} s")
            yield False
            return
        try:
            yield True
        except Exception as error:
            # The device may lack memory or a kernel for one item, and can run the other items.
            self.wrong += 1
            self.tell(failed=what, why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def config_of(words: str, tiny: bool, precision: str, batch: int, **network: Any) -> Any:
    """Return the CIFAR-10 config of a network in a precision of PRECISIONS."""
    config = cifar10.get_config(words)
    dtype, config.train.precision = PRECISIONS[precision]
    config.network.update(dtype=dtype, **(TINY if tiny else {}), **network)
    config.data.batch_size = batch
    return config


def batch_of(size: int) -> dict[str, np.ndarray]:
    """Return a batch of images of random pixels."""
    values = np.random.default_rng(0).integers(0, 256, (size, 32, 32, 3), np.uint8)
    return {"values": values, "cond": None, "index": np.arange(size, dtype=np.uint32)}


def peak_of(device: jax.Device, precision: str) -> float | None:
    """Return the peak of a device in TFLOP/s, or None if PEAKS does not list the device."""
    peaks_of_kind = [peaks for kind, peaks in PEAKS.items() if kind in device.device_kind]
    return peaks_of_kind[0][list(PRECISIONS).index(precision)] if peaks_of_kind else None
