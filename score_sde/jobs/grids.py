"""This module fits the time grid that config.sample.grid names 'fitted', once for a checkpoint, and keeps its file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from score_sde import config as config_
from score_sde.core import given
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.core.precision import products
from score_sde.denoisers import Denoiser
from score_sde.jobs import results
from score_sde.parallel import processes
from score_sde.sampling import Sampler, time_grid

FITTED = "fitted"


@dataclasses.dataclass(frozen=True)
class Fitting:
    """`Fitting` holds the arguments of config.sample.grid with the name 'fitted', as in `time_grid.fitted`.

    Attributes:
        n: number of steps.
        examples: number of starting points of the fit.
        seed: seed of the starting points.
        budget: network evaluations of all examples together; None for 200 walks.
    """

    n: int
    examples: int = 128
    seed: int = 0
    budget: int | None = None

    def __post_init__(self) -> None:
        for name in ("n", "examples"):
            require_whole(f"{name} of sample.grid", getattr(self, name), 1)


def fitting_of(spec: Mapping[str, Any]) -> Fitting | None:
    """Return the arguments of a grid that has to be fitted; None for any other grid."""
    arguments = dict(config_.to_dict(spec))
    if arguments.pop("name", None) != FITTED:
        return None
    try:
        return Fitting(**arguments)
    except TypeError as error:
        expected = ", ".join(field.name for field in dataclasses.fields(Fitting))
        raise InputError(f"sample.grid is {dict(spec)}; expected name='fitted' with {expected}.") from error


def fitted_once(
    generator: Any, denoiser: Denoiser, fitting: Fitting, folder: pathlib.Path, identity: results.Identity
) -> np.ndarray:
    """Return the fitted grid of a checkpoint, from its file, or fitted now and written to FOLDER/fitted-DIGEST.json.

    Args:
        generator: the `Generator`, with its sampler, guides, conditions and codec.
        denoiser: the denoiser without guides.
        fitting: the arguments of the fit.
        folder: folder of the files.
        identity: everything on which a sample depends.
    """
    guided = generator.guided(denoiser)

    def fit() -> time_grid.FittedGrid:
        with products(generator.precision):
            return time_grid.fitted(
                guided,
                generator.sampler,
                fitting.n,
                shape=generator.codec.model_shape,
                cond=given.asked_for(generator.asked, generator.reads(guided), np.arange(fitting.examples)),
                examples=fitting.examples,
                seed=fitting.seed,
                budget=fitting.budget,
                batch_size=generator.batch_size,
                sharding=generator.sharding,
            )

    def told(fit: time_grid.Fit, path: pathlib.Path) -> str:
        return (
            f"fitted a grid of {fitting.n} steps for {fit.sampler}: error {fit.error:.4g} +- {fit.stderr:.2g} on other "
            f"starting points, {fit.default_error:.4g} on the grid {fit.default!r} ({fit.evaluations:,} evaluations)\n"
            f"  grid:    {path}"
        )

    return kept_grid(folder / f"{FITTED}-{results.digest(identity)}.json", guided, generator.sampler, fit, told)


def kept_grid(
    path: pathlib.Path,
    denoiser: Denoiser,
    sampler: Sampler | str,
    fit: Callable[[], time_grid.FittedGrid],
    told: Callable[[time_grid.Fit, pathlib.Path], str],
) -> np.ndarray:
    """Return the grid of a file, or of `fit`, which is then written to the file and printed as `told` says it.

    Every process calls this function. Rounding may differ between processes; all take the grid of the first.
    """
    if path.exists():
        return time_grid.FittedGrid.read(path, denoiser, sampler)
    grid = fit()
    times: np.ndarray = processes.gather(np.asarray(grid)[None])[0]
    if processes.is_first():
        grid.save(path, denoiser)
        assert grid.fit is not None
        print(told(grid.fit, path))
    return times
