"""This module defines `FittedGrid`, a time grid that knows what it gained, and its file."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from score_sde.core.arrays import mean_and_error
from score_sde.core.digests import digest
from score_sde.core.errors import InputError
from score_sde.core.files import write_text
from score_sde.denoisers import Denoiser
from score_sde.denoisers.inputs import as_denoiser
from score_sde.sampling.base import Sampler


class Fit(NamedTuple):
    """`Fit` says what a fitted grid gained, on starting points that it was not fitted on.

    The error of a walk is its distance from an accurate walk: for a sampler without noise the root mean square
    difference of x at the end, in the mean over the examples; for a sampler with noise the root of the energy distance
    between the sets of samples, in the mean over four blocks.

    Attributes:
        error: error on the fitted grid.
        stderr: its standard error.
        default: name of the best grid of `time_grid` with as many steps, among uniform, karras and log_snr.
        default_error: error on that grid.
        gain: default_error - error, in the mean over pairs.
        gain_stderr: standard error of the gain.
        kept: whether the fitted grid was better; otherwise the grid is the default one, with gain 0.
        evaluations: network evaluations that the fit took, of all examples together.
        examples: number of starting points of the fit, and of other ones for the error.
        seed: the seed of the starting points.
        sampler: the sampler, as text.
    """

    error: float
    stderr: float
    default: str
    default_error: float
    gain: float
    gain_stderr: float
    kept: bool
    evaluations: int
    examples: int
    seed: int
    sampler: str


class FittedGrid(np.ndarray):
    """`FittedGrid` is a time grid, an array (n + 1,), with the attribute `fit`: a `Fit`, or None in derived arrays."""

    fit: Fit | None

    def __new__(cls, times: Any, fit: Fit | None = None) -> FittedGrid:
        grid = np.asarray(times, np.float64).view(cls)
        grid.fit = fit
        return grid

    def __array_finalize__(self, source: Any) -> None:
        self.fit = None

    def save(self, path: str | os.PathLike[str], denoiser: Denoiser) -> None:
        """Write the grid as JSON, whole or not at all, with the digest of the denoiser on which it was fitted."""
        fit = None if self.fit is None else self.fit._asdict()
        content = {"times": self.tolist(), "model": _model(denoiser), "fit": fit}
        write_text(path, json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str], denoiser: Denoiser, sampler: Sampler | str) -> FittedGrid:
        """Return the grid of a file; raise InputError unless it was fitted on this denoiser and this sampler."""
        try:
            with open(path) as file:
                content = json.load(file)
            grid = cls(content["times"], Fit(**content["fit"]))
            model = str(content["model"])
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no fitted time grid ({error}); expected a file of FittedGrid.save.") from error
        assert grid.fit is not None
        if grid.fit.sampler != str(sampler):
            raise InputError(
                f"{path} was fitted for {grid.fit.sampler}, and the sampler is {sampler}; expected the same: fit again."
            )
        if model != _model(denoiser):
            raise InputError(
                f"{path} was fitted on another model, or with other guides: the digest of its numbers is {model}, not "
                f"{_model(denoiser)}; expected the same: fit again."
            )
        return grid


def better_of(
    default: str, grids: tuple[np.ndarray, np.ndarray], errors: tuple[np.ndarray, np.ndarray], *about: Any
) -> FittedGrid:
    """Return the better of two grids with what was gained.

    Args:
        default: name of the default grid.
        grids: the default grid and the grid that was found.
        errors: the errors of both on the same starting points that the search has not seen, (n,) each.
        *about: evaluations, examples, seed and sampler of `Fit`.
    """
    before, after = errors
    kept = bool(after.mean() < before.mean())
    grid, after = (grids[1], after) if kept else (grids[0], before)
    gain = mean_and_error(before - after)
    return FittedGrid(grid, Fit(*mean_and_error(after), default, float(before.mean()), *gain, kept, *about))


def _model(denoiser: Denoiser) -> str:
    """Return the class of a denoiser, and the digest of its arrays and numbers."""
    inner = as_denoiser(denoiser)
    numbers = jax.tree.map(lambda leaf: None if callable(leaf) else leaf, inner)
    return f"{type(inner).__name__} {digest(numbers)}"
