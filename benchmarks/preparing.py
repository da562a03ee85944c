"""This script compares the preparation of pictures with a Pillow loop in one process, and times the input of training.

python benchmarks/preparing.py [--n=2000] [--repeats=5]

The pictures are synthetic: smooth colours with noise, as JPEG of 320 x 240 and as PNG of 64 x 64 and of 256 x 256.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

KINDS = {
    "JPEG of 320 x 240": ("jpg", 240, 320),
    "PNG of 64 x 64": ("png", 64, 64),
    "PNG of 256 x 256": ("png", 256, 256),
}
SIZE = 64


def write(folder: pathlib.Path, kind: str, n: int) -> None:
    """Write n different pictures."""
    extension, height, width = KINDS[kind]
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(n):
        smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = np.clip(np.asarray(smooth, int) + rng.integers(-6, 7, (height, width, 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{i:05d}.{extension}")


def plain(folder: pathlib.Path, part: int = 0, parts: int = 1) -> np.ndarray:
    """Decode pictures into one array without score_sde, by a loop in one process."""
    paths = sorted(folder.iterdir())[part::parts]
    values = np.empty((len(paths), SIZE, SIZE, 3), np.uint8)
    for i, path in enumerate(paths):
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            values[i] = np.asarray(ImageOps.fit(upright, (SIZE, SIZE), Image.Resampling.BICUBIC))
    return values


def halves(folder: pathlib.Path, pool: concurrent.futures.Executor) -> None:
    """Decode half of the pictures in each of two started processes, to measure the limit of two cores."""
    list(pool.map(plain, [folder] * 2, range(2), [2] * 2))


def prepared(folder: pathlib.Path, cache: pathlib.Path) -> None:
    """Run the whole preparation: recognise, check, decode, hold out and write the pictures."""
    shutil.rmtree(cache, ignore_errors=True)
    from score_sde import data

    data.Files(folder, size=SIZE, channels=3, dir=cache).prepare()


def timed(run: Callable[..., object], *arguments: object) -> float:
    """Return the seconds of a call."""
    began = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - began


def main() -> None:
    from benchmarks.common import machine
    from score_sde import data

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    spawned = concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as root, spawned as pool:
        root_folder = pathlib.Path(root)
        for number, kind in enumerate(KINDS):
            folder, cache = root_folder / str(number), root_folder / "cache"
            write(folder, kind, options.n)
            # The first call starts the processes, so the script does not time the first call.
            halves(folder, pool)
            seconds: dict[str, list[float]] = {"plain": [], "halves": [], "prepared": []}
            for _ in range(options.repeats):
                seconds["plain"].append(timed(plain, folder))
                seconds["halves"].append(timed(halves, folder, pool))
                seconds["prepared"].append(timed(prepared, folder, cache))
            loop, two_loops, ours = (options.n / float(np.median(times)) for times in seconds.values())
            print(
                f"{kind}: a loop decodes {loop:,.0f} pictures a second, two loops at once decode {two_loops:,.0f} "
                f"({two_loops / loop:.2f}), and score_sde prepares {ours:,.0f} ({ours / loop:.2f})"
            )
        source = data.Files(root_folder / "0", size=SIZE, channels=3, dir=cache).source("train")
        batches = data.training_batches(source, 64, seed=0)
        next(batches)
        began = time.perf_counter()
        for _ in range(200):
            next(batches)
        print(f"a batch of 64 x {SIZE} x {SIZE} x 3 is read in {(time.perf_counter() - began) / 200 * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
