"""This module draws points in the plane from distributions that a plot can show, to test two-dimensional models."""

from __future__ import annotations

import abc
import os

import numpy as np

from score_sde.core.conditions import Conditions, Label
from score_sde.data.base import Arrays, Dataset, Source
from score_sde.data.codec import ContinuousCodec

_SIZES = {"train": 20_000, "test": 2_000}


class Plane(Dataset):
    """A `Plane` has 20,000 points for training and 2,000 for testing, of about unit variance; nothing is stored.

    To add a distribution, define a subclass with `draw`.
    """

    codec = ContinuousCodec((2,))

    def __init__(self, dir: str | os.PathLike[str] | None = None) -> None:
        pass

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw n points, shape (n, 2), and their labels, shape (n,)."""

    def source(self, split: str) -> Source:
        points, labels = self.draw(np.random.default_rng([2021, sorted(_SIZES).index(split)]), _SIZES[split])
        return Arrays(values=points.astype(np.float32), label=labels.astype(np.int32))


class GaussianRing(Plane):
    """`GaussianRing` has eight Gaussians of standard deviation 0.1 on a circle of radius 1.4.

    The label is the number of the Gaussian.
    """

    conditions = Conditions(label=Label(8))
    radius, std = 1.4, 0.1

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(8, size=n)
        return self.means()[labels] + self.std * rng.standard_normal((n, 2)), labels

    def means(self) -> np.ndarray:
        """Return the centres, shape (8, 2)."""
        angles = 2 * np.pi * np.arange(8) / 8
        return self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


class Checkerboard(Plane):
    """`Checkerboard` is uniform on the eight dark squares of a 4 x 4 board of side 4.

    The label is the number of the square. The entropy is log 8 nats.
    """

    conditions = Conditions(label=Label(8))

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(8, size=n)
        row = labels // 2
        corner = np.stack([2 * (labels % 2) + row % 2, row], axis=1) - 2.0
        return corner + rng.random((n, 2)), labels


class SwissRoll(Plane):
    """`SwissRoll` is a spiral of one and a half turns with a little noise.

    The label is 0 in the inner half and 1 in the outer half of the turns.
    """

    conditions = Conditions(label=Label(2))

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import make_swiss_roll

        points, way = make_swiss_roll(n, noise=0.4, random_state=int(rng.integers(2**31)))
        return points[:, [0, 2]] / 7, (way > 3 * np.pi).astype(int)


class TwoMoons(Plane):
    """`TwoMoons` has two interleaving half circles with a little noise; the label is the number of the half circle."""

    conditions = Conditions(label=Label(2))

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import make_moons

        points, labels = make_moons(n, noise=0.07, random_state=int(rng.integers(2**31)))
        return (points - [0.5, 0.25]) * 1.4, labels
