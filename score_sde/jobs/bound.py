"""This module measures the variational bound of a split, and the noise moments from which optimal variances follow."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import mean_and_error
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.data import Examples
from score_sde.denoisers import MomentTable
from score_sde.denoisers.reverse_variance import check_kind
from score_sde.jobs.batches import OfBatch, measured
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.parts import Columns
from score_sde.likelihood import noise_moments, variational_bound
from score_sde.sampling import time_grid
from score_sde.sde import SDE

_TERM = "term."  # prefix of the names of the bound's terms in a file


@dataclasses.dataclass(frozen=True)
class VariationalBound(Evaluation):
    """`VariationalBound` measures the variational bound in bits per dimension: mean, standard error and terms.

    On a chain it is the bound of the reverse chain; on another SDE it is the bound in continuous time, or that of a
    chain of `steps` steps. It stands beside `Likelihood`, the likelihood of the probability flow, which is another
    model with the same score. The numbers of each example go to variational_bound.npz; if every level was computed,
    the means of L_t by level are in the JSON file.

    Attributes:
        variance: variance of the reverse steps, as in `variational_bound`; None for the model's own choice.
        steps: number of steps of the SDE's default grid; None for every level of a chain, or for continuous time.
        dequantise: whether quantised data get the codec's noise; None for what the model was trained on.
        draws: number of levels or times drawn for each example; None for every level, or for 64 times.
        first: number of examples to measure, from the start of the split; 0 for all.
    """

    variance: str | None = None
    steps: int | None = None
    draws: int | None = None
    dequantise: bool | None = None
    first: int = 0
    name: ClassVar[str] = "variational_bound"

    def __post_init__(self) -> None:
        if self.variance is not None:
            check_kind("VariationalBound", self.variance)
        for name in ("steps", "draws"):
            if getattr(self, name) is not None:
                require_whole(f"{name} of VariationalBound", getattr(self, name), 1)
        require_whole("first of VariationalBound", self.first, 0)
        if self.dequantise not in (None, True, False):
            raise InputError(
                f"dequantise of VariationalBound is {self.dequantise!r}; expected True, False, or None for what the "
                "model was trained on."
            )

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        n = min(self.first or len(at.source), len(at.source))
        result = measured(at, self.name, n, lambda size: _Bounds(self, at, size))
        if result is None:
            return {}, ""
        _, columns, seconds = result
        mean, stderr = mean_and_error(columns["bits_per_dim"])
        terms = {
            name.removeprefix(_TERM): mean_and_error(column)
            for name, column in columns.items()
            if name.startswith(_TERM)
        }
        found: dict[str, Any] = {
            "bits_per_dim": mean,
            "stderr": stderr,
            "n": n,
            "terms": {name: value for name, (value, _) in terms.items()},
            "terms_stderr": {name: error for name, (_, error) in terms.items()},
            "nfe": float(columns["nfe"].mean()),
            "conditional": bool(at.model.conditions),
            "seconds": round(seconds, 3),
        }
        if "levels" in columns:
            found |= {"t": columns["times"][0].tolist(), "levels": columns["levels"].mean(axis=0).tolist()}
        listed = ", ".join(f"{name} {value:.4f}" for name, (value, _) in terms.items())
        return found, f"variational bound {mean:.4f} +- {stderr:.4f} bits/dim over {n} examples ({listed})"


class _Bounds(OfBatch):
    """`_Bounds` computes the bound of a batch."""

    def __init__(self, settings: VariationalBound, at: Context, size: int) -> None:
        super().__init__(at, size)
        self._settings = settings
        sde = self.denoiser.sde
        self._dequantise = self.trained_dequantised if settings.dequantise is None else settings.dequantise
        self._grid = None if settings.steps is None else time_grid.default(sde, settings.steps)

    def columns(self, values: jax.Array, cond: Any, keys: jax.Array, numbers: np.ndarray) -> Columns:
        bound = variational_bound(
            self.denoiser,
            values,
            keys,
            codec=self.at.experiment.codec,
            grid=self._grid,
            variance=self._settings.variance,
            draws=self._settings.draws,
            dequantise=self._dequantise,
            cond=cond,
            precision=self.at.precision,
        )
        columns = {"bits_per_dim": bound.value, "nfe": bound.nfe}
        columns |= {f"{_TERM}{name}": value for name, value in bound.terms.items()}
        if bound.levels is not None and bound.times is not None:
            columns |= {"levels": bound.levels, "times": np.tile(bound.times, (len(bound.value), 1))}
        return columns


@dataclasses.dataclass(frozen=True)
class NoiseMoments(Evaluation):
    """`NoiseMoments` measures Gamma(t) = E |E[noise | x_t]|^2 / D, from which the optimal reverse variance follows.

    One pass over the training data is enough for every sub-sequence of levels (Bao et al. 2022, arXiv:2201.06503).
    Whole numbers are dequantised if the model was trained on dequantised values. The
    table goes to noise_moments.npz; the guide Analytic(table='WORKDIR/eval/noise_moments.npz') uses it, and so does the
    time grid dict(name='optimal', n=25, table=...).

    Attributes:
        n: number of training examples; 0 for all.
        levels: number of times; None for every level of a chain, or for 100 times of the default grid of another SDE.
    """

    n: int = 1000
    levels: int | None = None
    name: ClassVar[str] = "noise_moments"

    @property
    def reads_splits(self) -> tuple[str, ...]:
        return ("train",)

    def __post_init__(self) -> None:
        require_whole("n of NoiseMoments", self.n, 0)
        if self.levels is not None:
            require_whole("levels of NoiseMoments", self.levels, 2)

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        examples = at.split("train")
        n = min(self.n or len(examples), len(examples))
        result = measured(at, self.name, n, lambda size: _Moments(self, at, size, examples))
        if result is None:
            return {}, ""
        compute, columns, seconds = result
        moments = columns["moments"]
        gamma = moments.mean(axis=0)
        stderr = moments.std(axis=0, ddof=1) / math.sqrt(n) if n > 1 else np.zeros_like(gamma)
        sde = compute.denoiser.sde
        times, archive = _times(sde, self.levels), at.folder / f"{self.name}.npz"
        log_snr = np.asarray(sde.log_snr(times), np.float64)
        table = MomentTable(times, log_snr, gamma, stderr)
        table.save(archive)
        variance = np.asarray(table.x0_variance(sde, times), np.float64)
        found = {"t": times.tolist(), "log_snr": log_snr.tolist(), "gamma": gamma.tolist(), "stderr": stderr.tolist()}
        found |= {"x0_variance": variance.tolist(), "examples": n, "seconds": round(seconds, 3)}
        return found, f"noise moments at {len(times)} times over {n} training examples: {archive}"


class _Moments(OfBatch):
    """`_Moments` computes the noise moments of a batch at every time."""

    def __init__(self, settings: NoiseMoments, at: Context, size: int, examples: Examples) -> None:
        super().__init__(at, size, examples)
        self.times = _times(self.denoiser.sde, settings.levels)

    def columns(self, values: jax.Array, cond: Any, keys: jax.Array, numbers: np.ndarray) -> Columns:
        noise = keys_.fold(keys, "encode") if self.trained_dequantised else None
        x0, _ = self.at.experiment.codec.encode(values, noise)
        return {"moments": noise_moments(self.denoiser, x0, keys, self.times, cond=cond)}


def _times(sde: SDE, levels: int | None) -> np.ndarray:
    if sde.levels is None:
        return time_grid.default(sde, (levels or 100) - 1)[::-1].copy()
    if levels is None:
        return np.arange(1, sde.levels + 1) / sde.levels
    if levels > sde.levels:
        raise InputError(
            f"levels of NoiseMoments is {levels}, and {type(sde).__name__} has {sde.levels}; expected at most these."
        )
    return np.round(np.linspace(1, sde.levels, levels)) / sde.levels
