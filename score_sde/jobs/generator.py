"""This module draws examples from a denoiser as the section `sample` of a config specifies."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from score_sde import config as config_
from score_sde import sampling
from score_sde.core import given
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import DivergenceError, InputError
from score_sde.core.keys import check_seed
from score_sde.core.precision import products
from score_sde.data import Codec
from score_sde.denoisers import Denoiser
from score_sde.experiment.guides import guided, read_guides, read_sampler
from score_sde.jobs import results
from score_sde.jobs.grids import Fitting, fitted_once, fitting_of
from score_sde.parallel import processes
from score_sde.sampling import time_grid
from score_sde.sampling.checks import read_by


@dataclasses.dataclass(frozen=True)
class Drawn:
    """`Drawn` holds the examples first .. first + n - 1 of a seed.

    Attributes:
        values: the examples on the data's own range, whole numbers if the data are whole numbers, shape (n, *shape).
        cond: the requested conditions as numpy arrays; None if no condition was requested.
        nfe: network evaluations of each example, int32 (n,).
    """

    values: np.ndarray
    cond: Cond
    nfe: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Return the conditions as columns of a file: `labels` for a class; 'NAME' or 'NAME.PART' for others."""
        found: dict[str, np.ndarray] = {}
        for name, value in (self.cond or {}).items():
            if isinstance(value, dict):
                found |= {f"{name}.{part}": array for part, array in value.items()}
            else:
                found["labels" if name == "label" else name] = value
        return found


@dataclasses.dataclass(frozen=True)
class Generator:
    """`Generator` draws examples; a condition that is not requested has its default, such as each class in turn.

    Attributes:
        sampler, grid, seed, denoise, batch_size, sharding: arguments of `sampling.sample`.
        fitting: how the grid is fitted; None for a grid that needs no fit. `grid` is a default grid until then.
        precision: precision of float32 products, as in `core.precision.products`.
        guides: specs of the guides, applied in order.
        asked: the requested conditions by name.
        codec: the map from the model's scale to the data's scale.
    """

    sampler: sampling.Sampler
    grid: np.ndarray
    fitting: Fitting | None
    seed: int
    denoise: bool
    batch_size: int
    precision: str
    sharding: jax.sharding.Sharding | None
    guides: tuple[dict[str, Any], ...]
    asked: dict[str, Any]
    codec: Codec

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the values."""
        return np.dtype(jax.eval_shape(self._values, jax.ShapeDtypeStruct((1, *self.codec.model_shape), float)).dtype)

    @classmethod
    def from_config(
        cls,
        spec: ml_collections.ConfigDict,
        denoiser: Denoiser,
        codec: Codec,
        sharding: jax.sharding.Sharding | None = None,
        asking: bool = True,
    ) -> Generator:
        """Build the generator that config.sample names for denoisers like `denoiser`, whose weights are not read.

        `asking` states whether config.sample.cond must contain every condition that drawing requires.

        Raises:
            InputError: if names or arguments do not fit.
        """
        for name in ("n", "batch_size"):
            require_whole(f"sample.{name}", spec[name], 1)
        check_seed(spec.seed, "sample.seed")
        sampler = read_sampler(spec.sampler, codec)
        fitting = fitting_of(spec.grid)
        # Until the grid is fitted, and for weights that still change, a default grid stands in for it.
        spec_of_grid = spec.grid if fitting is None else {"name": "default", "n": fitting.n}
        grid = config_.build(time_grid, spec_of_grid, denoiser.sde)
        sampler.check(denoiser.sde, grid)
        made = cls(
            sampler=sampler,
            grid=grid,
            fitting=fitting,
            seed=spec.seed,
            denoise=spec.denoise,
            batch_size=spec.batch_size,
            precision=spec.precision,
            sharding=sharding,
            guides=_guides(spec, codec),
            asked=config_.read_arguments("sample.cond", spec.cond),
            codec=codec,
        )
        reads = made.reads(made.guided(denoiser))
        asked = given.asked_for(made.asked, reads, np.arange(1), whole=asking)
        if asking:
            given.checked(asked, reads, 1)
        return made

    def with_fitted_grid(self, denoiser: Denoiser, folder: pathlib.Path, identity: results.Identity) -> Generator:
        """Return the generator with its grid fitted on this denoiser, or this generator; the grid's file is kept."""
        if self.fitting is None:
            return self
        grid = fitted_once(self, denoiser, self.fitting, folder, identity)
        return dataclasses.replace(self, grid=grid)

    def reads(self, denoiser: Denoiser) -> Conditions:
        """Return the conditions that a guided denoiser or the sampler reads."""
        return read_by(denoiser, self.sampler, self.codec.model_shape)

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """Return the denoiser with the guides applied."""
        return guided(denoiser, self.guides)

    def __call__(self, denoiser: Denoiser, n: int, first: int = 0) -> Drawn:
        """Draw the examples first .. first + n - 1; raise DivergenceError if an example is not finite."""
        denoiser = self.guided(denoiser)
        cond = given.asked_for(self.asked, self.reads(denoiser), np.arange(first, first + n))
        with products(self.precision):
            samples = sampling.sample(
                denoiser,
                self.sampler,
                self.grid,
                self.codec.model_shape,
                n=n,
                first=first,
                seed=self.seed,
                cond=cond,
                denoise=self.denoise,
                batch_size=self.batch_size,
                sharding=self.sharding,
            )
        return Drawn(np.asarray(self._values(samples.x)), cond, samples.nfe)

    def _values(self, x: Any) -> jax.Array:
        return self.codec.quantize(self.codec.decode(x))


def _guides(spec: ml_collections.ConfigDict, codec: Codec) -> tuple[dict[str, Any], ...]:
    """Return the specs of the guides that config.sample names, as `read_guides` returns them."""
    if not isinstance(spec.clip, bool):
        raise InputError(f"sample.clip is {spec.clip!r}; expected True or False.")
    return read_guides("sample.guidance", spec.guidance, spec.clip, codec)


def draw_together(generator: Generator, denoiser: Denoiser, n: int) -> np.ndarray:
    """Return the values of the examples 0 .. n - 1 in every process; every process calls this and draws a share.

    Raises:
        DivergenceError: in every process, if an example of any process is not finite.
    """
    each = -(-n // processes.count())
    failure: DivergenceError | None = None
    mine = dataclasses.replace(generator, batch_size=min(each, generator.batch_size))
    try:
        values = mine(denoiser, each, first=processes.index() * each).values
    except DivergenceError as error:
        failure, values = error, np.zeros((each, *generator.codec.data_shape), generator.dtype)
    values, failed = processes.gather((values, np.asarray([failure is not None])))
    if failed.any():
        raise failure or DivergenceError(f"images drawn by process {int(np.argmax(failed))} are not finite")
    return values[:n]
