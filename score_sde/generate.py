"""Examples from a denoiser, as a config's `sample` entry asks for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import ml_collections
import numpy as np

from score_sde import config as config_
from score_sde import sampling, time_grid
from score_sde.core.checks import require_whole
from score_sde.core.errors import DivergenceError, InputError
from score_sde.core.keys import check_seed
from score_sde.denoiser import Denoiser
from score_sde.guidance import ClassifierFree
from score_sde.parallel import processes
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class Images:
    """Images number first .. first + n - 1 of a seed.

    Attributes:
        values: on the data's own range, whole numbers where the data are, shape (n, *shape).
        labels: the classes asked for, int32 (n,); None for an unconditional model.
        nfe: denoiser evaluations for each, int32 (n,).
    """

    values: np.ndarray
    labels: np.ndarray | None
    nfe: np.ndarray


@dataclasses.dataclass(frozen=True)
class Generator:
    """How images are drawn; image i of a conditional model has class i modulo the number of classes.

    Attributes:
        sampler, grid, seed, denoise, batch_size, sharding: as in `sample`.
        guidance: the weight of classifier-free guidance; 1 for none.
        transform: from the model's scale to the data's.
        shape: of one image.
        num_classes: the number of classes, or None.
    """

    sampler: sampling.Sampler
    grid: np.ndarray
    seed: int
    denoise: bool
    batch_size: int
    sharding: jax.sharding.Sharding | None
    guidance: float
    transform: Any
    shape: tuple[int, ...]
    num_classes: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return np.dtype(jax.eval_shape(self.transform.quantize, jax.ShapeDtypeStruct(self.shape, float)).dtype)

    @classmethod
    def from_config(
        cls,
        spec: ml_collections.ConfigDict,
        sde: SDE,
        transform: Any,
        shape: tuple[int, ...],
        num_classes: int | None,
        sharding: jax.sharding.Sharding | None = None,
    ) -> Generator:
        """Build what config.sample names; raises InputError for names or arguments that do not fit."""
        for name in ("n", "batch_size"):
            require_whole(f"sample.{name}", spec[name], 1)
        if num_classes is None and spec.guidance != 1:
            raise InputError(
                f"sample.guidance is {spec.guidance} and the model has no classes: train the variant 'conditional', "
                "or use guidance 1."
            )
        check_seed(spec.seed, "sample.seed")
        sampler = config_.build(sampling, spec.sampler, base=sampling.Sampler)
        grid = config_.build(time_grid, spec.grid, sde)
        sampler.check(sde, grid)
        return cls(
            sampler=sampler,
            grid=grid,
            seed=spec.seed,
            denoise=spec.denoise,
            batch_size=spec.batch_size,
            sharding=sharding,
            guidance=spec.guidance,
            transform=transform,
            shape=shape,
            num_classes=num_classes,
        )

    def __call__(self, denoiser: Denoiser, n: int, first: int = 0) -> Images:
        """Draw images first .. first + n - 1; raises DivergenceError where one is not finite."""
        labels = None
        if self.num_classes is not None:
            labels = np.arange(first, first + n, dtype=np.int32) % self.num_classes
            if self.guidance != 1:
                denoiser = ClassifierFree(denoiser, self.guidance)
        samples = sampling.sample(
            denoiser,
            self.sampler,
            self.grid,
            self.shape,
            n=n,
            first=first,
            seed=self.seed,
            cond=None if labels is None else {"label": labels},
            denoise=self.denoise,
            batch_size=self.batch_size,
            sharding=self.sharding,
        )
        return Images(np.asarray(self.transform.quantize(samples.x)), labels, samples.nfe)


def draw_together(generator: Generator, denoiser: Denoiser, n: int) -> np.ndarray:
    """The values of images 0 .. n - 1, each process drawing some of them; all processes call it, and all get all.

    Raises:
        DivergenceError: in every process, where an image of any of them is not finite.
    """
    each = -(-n // processes.count())
    failure: DivergenceError | None = None
    mine = dataclasses.replace(generator, batch_size=min(each, generator.batch_size))
    try:
        values = mine(denoiser, each, first=processes.index() * each).values
    except DivergenceError as error:
        failure, values = error, np.zeros((each, *generator.shape), generator.dtype)
    values, failed = processes.gather((values, np.asarray([failure is not None])))
    if failed.any():
        raise failure or DivergenceError(f"images drawn by process {int(np.argmax(failed))} are not finite")
    return values[:n]
