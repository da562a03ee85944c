"""Pictures decoded into the cache against a plain Pillow loop in one process, and the input's share of a training step.

python benchmarks/preparing.py [--n=2000] [--repeats=5]

The pictures are made up: smooth colours with noise, as JPEG of 320 x 240 and as PNG of 64 x 64 and of 256 x 256.
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
    """n pictures, no two alike."""
    ending, height, width = KINDS[kind]
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(n):
        smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = np.clip(np.asarray(smooth, int) + rng.integers(-6, 7, (height, width, 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{i:05d}.{ending}")


def plain(folder: pathlib.Path, part: int = 0, parts: int = 1) -> np.ndarray:
    """What one would write without this library: a loop in one process into one array."""
    paths = sorted(folder.iterdir())[part::parts]
    values = np.empty((len(paths), SIZE, SIZE, 3), np.uint8)
    for i, path in enumerate(paths):
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            values[i] = np.asarray(ImageOps.fit(upright, (SIZE, SIZE), Image.Resampling.BICUBIC))
    return values


def halves(folder: pathlib.Path, pool: concurrent.futures.Executor) -> None:
    """The loop in two processes that run already, a half each: as much as two cores give."""
    list(pool.map(plain, [folder] * 2, range(2), [2] * 2))


def prepared(folder: pathlib.Path, cache: pathlib.Path) -> None:
    """All of it: recognised, looked at, decoded, held out, written."""
    shutil.rmtree(cache, ignore_errors=True)
    from score_sde import data

    data.Files(folder, size=SIZE, channels=3, dir=cache).prepare()


def timed(run: Callable[..., object], *arguments: object) -> float:
    """The seconds of a call."""
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
        place = pathlib.Path(root)
        for number, kind in enumerate(KINDS):
            folder, cache = place / str(number), place / "cache"
            write(folder, kind, options.n)
            halves(folder, pool)  # which starts the processes
            seconds: dict[str, list[float]] = {"plain": [], "halves": [], "prepared": []}
            for _ in range(options.repeats):
                seconds["plain"].append(timed(plain, folder))
                seconds["halves"].append(timed(halves, folder, pool))
                seconds["prepared"].append(timed(prepared, folder, cache))
            loop, two, ours = (options.n / float(np.median(times)) for times in seconds.values())
            print(
                f"{kind}: {loop:,.0f} pictures a second in a loop, {two:,.0f} in two loops at once ({two / loop:.2f}), "
                f"{ours:,.0f} prepared ({ours / loop:.2f})"
            )
        source = data.Files(place / "0", size=SIZE, channels=3, dir=cache).source("train")
        batches = data.training_batches(source, 64, seed=0)
        next(batches)
        began = time.perf_counter()
        for _ in range(200):
            next(batches)
        print(f"a batch of 64 x {SIZE} x {SIZE} x 3 is read in {(time.perf_counter() - began) / 200 * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
