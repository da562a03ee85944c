"""This module makes pictures, grids of images and plots of curves, and writes PNG files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from score_sde.core.files import atomic_file

_GAP = 2


def image_grid(images: np.ndarray, maximum: int, columns: int | None = None, least_side: int = 48) -> np.ndarray:
    """Return images side by side, as uint8 (height, width, 3).

    Args:
        images: whole numbers 0 .. maximum, shape (n, height, width, channels) with 1 or 3 channels; with
            another number of channels, only the first channel is shown.
        maximum: the value that is shown as white.
        columns: images per row; None for a square grid.
        least_side: small images are enlarged, pixel by pixel, until their longer side has at least this many pixels.
    """
    shown = images if images.shape[-1] == 3 else np.repeat(images[..., :1], 3, axis=-1)
    shown = np.round(np.clip(shown / maximum, 0, 1) * 255).astype(np.uint8)
    zoom = max(1, math.ceil(least_side / max(shown.shape[1:3])))
    shown = shown.repeat(zoom, axis=1).repeat(zoom, axis=2)
    columns = columns or math.ceil(math.sqrt(len(shown)))
    rows, (height, width) = math.ceil(len(shown) / columns), np.add(shown.shape[1:3], _GAP)
    canvas = np.full((rows * height + _GAP, columns * width + _GAP, 3), 96, np.uint8)
    for i, image in enumerate(shown):
        top, left = _GAP + (i // columns) * height, _GAP + (i % columns) * width
        canvas[top : top + height - _GAP, left : left + width - _GAP] = image
    return canvas


def shown(shape: tuple[int, ...]) -> int:
    """Return how many examples of this shape a picture shows: 100 images, or 5,000 points."""
    return 100 if len(shape) == 3 else 5000


def picture(examples: np.ndarray, maximum: int | None) -> np.ndarray:
    """Return a picture of examples, uint8 (height, width, 3): images in rows of ten, points of the plane as dots.

    Args:
        examples: images, shape (n, height, width, channels), or vectors, shape (n, dimensions). For
            vectors, the first two coordinates are shown.
        maximum: the value that is shown as white; with None, the largest value is white and the smallest is black.
    """
    if examples.ndim != 4:
        return _dots(examples.reshape(len(examples), -1))
    if maximum is None:
        low, high = float(examples.min()), float(examples.max())
        examples, maximum = (examples - low) / ((high - low) or 1.0), 1
    return image_grid(examples, maximum, columns=10 if len(examples) >= 10 else None)


def _dots(points: np.ndarray) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    if points.shape[1] == 1:
        axes.hist(points[:, 0], bins=100)
    else:
        axes.scatter(points[:, 0], points[:, 1], s=2, linewidths=0)
        axes.set_aspect("equal", adjustable="datalim")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_png(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Write uint8 (height, width, 3) as a PNG file, completely or not at all."""
    from PIL import Image

    with atomic_file(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def save_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    xscale: str = "linear",
    yscale: str = "log",
) -> None:
    """Write a plot of named curves {name: (xs, ys)} as a PNG file."""
    from matplotlib.figure import Figure  # no pyplot: it keeps global state and needs a display

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y, xscale=xscale, yscale=yscale)
    for name, (xs, ys) in curves.items():
        axes.plot(xs, ys, label=name, marker="o" if len(xs) < 20 else None, markersize=3)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
