"""This module measures the likelihood of a split in bits per dimension, using every example exactly once."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, ClassVar

import jax
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.checks import require_whole
from score_sde.core.errors import DivergenceError
from score_sde.denoisers import Denoiser
from score_sde.jobs import results
from score_sde.jobs.batches import OfBatch, measured
from score_sde.jobs.checkpoints import identity_of
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.grids import kept_grid
from score_sde.jobs.parts import Columns
from score_sde.likelihood import BitsPerDim, bits_per_dim, likelihood_grid
from score_sde.ode import check_tolerances
from score_sde.sampling.time_grid import Fit, FittedGrid

_FITTED_ON = 64  # training examples, half of them to measure the gain of the grid
_TERM = "term."  # prefix of the names of the codec's terms in a file


@dataclasses.dataclass(frozen=True)
class Likelihood(Evaluation):
    """`Likelihood` measures bits per dimension: mean, standard error and terms.

    The numbers of each example go to likelihood.npz. The random draws of example i depend on (eval.seed, i) alone, and
    not on the batch size, the devices or the processes. The value of example i depends on these only through rounding,
    which step control does not magnify (`ode.coarse`). In one of thousands of steps the error lies on the edge of a bin
    of `ode.coarse`, and the value of this example can change by up to the tolerances.

    Attributes:
        probes: the number of probes of Hutchinson's trace estimate; with two or more the error bar is split.
        rtol, atol: relative and absolute tolerance of the ODE solver.
        draws: the number of draws of the codec's noise over which the result is averaged.
        first: the number of examples to measure, from the start of the split; 0 for all.
        steps: 0 for adaptive steps; or a number of fixed steps on a grid that is fitted to the model, once, on training
            examples (`likelihood_grid`). The results then contain an estimate of the error of the solve.
    """

    probes: int = 2
    rtol: float = 1e-5
    atol: float = 1e-5
    draws: int = 1
    first: int = 0
    steps: int = 0
    name: ClassVar[str] = "likelihood"

    def __post_init__(self) -> None:
        require_whole("probes of Likelihood", self.probes, 1)
        require_whole("draws of Likelihood", self.draws, 1)
        require_whole("first of Likelihood", self.first, 0)
        require_whole("steps of Likelihood", self.steps, 0)
        check_tolerances(self.rtol, self.atol)

    def settings(self) -> dict[str, Any]:
        """Return the settings; `first` and `steps` are omitted if they are 0, so that results keep their identity."""
        omitted = {"first": 0, "steps": 0}
        return {name: value for name, value in super().settings().items() if omitted.get(name) != value}

    @property
    def reads_splits(self) -> tuple[str, ...]:
        return ("test", "train") if self.steps else ("test",)

    def run(self, at: Context) -> tuple[dict[str, Any], str]:
        n = min(self.first or len(at.source), len(at.source))
        result = measured(at, self.name, n, lambda size: _OfBatch(self, at, size))
        if result is None:
            return {}, ""
        _, columns, seconds = result
        bits = _of_columns(columns, at.experiment.codec.is_bound)
        summary = bits.summary()
        terms = {"prior": bits.prior, "divergence": bits.divergence} | bits.terms
        found = {
            "bits_per_dim": summary.bits_per_dim,
            "stderr": summary.stderr,
            "n": summary.n,
            "stderr_parts": {"probes": summary.probe_stderr, "data": summary.data_stderr},
            "is": "an upper bound" if bits.is_bound else "exact",
            "terms": {name: float(values.mean()) for name, values in terms.items()},
            "nfe": float(bits.nfe.mean()),
            "nfe_max": int(bits.nfe.max()),
            **({} if bits.solve_error is None else {"solve_error": float(bits.solve_error.mean())}),
            "conditional": bool(at.model.conditions),
            "seconds": round(seconds, 3),
        }
        line = f"{summary.bits_per_dim:.4f} +- {summary.stderr:.4f} bits/dim over {summary.n} examples"
        if bits.solve_error is not None:
            line += f" (solve: at most {found['solve_error']:.1g} each, estimated)"
        return found, f"{line}, {found['nfe']:.0f} evaluations each"


class _OfBatch(OfBatch):
    """`_OfBatch` computes the bits per dimension of a batch."""

    def __init__(self, settings: Likelihood, at: Context, size: int) -> None:
        super().__init__(at, size)
        self._settings = settings
        # A chain has a probability flow only on the smooth curve through its levels.
        self.denoiser = self.denoiser.smooth()
        self._grid = _grid(self.denoiser, at, settings) if settings.steps else None

    def columns(self, values: jax.Array, cond: Any, keys: jax.Array, numbers: np.ndarray) -> Columns:
        at, settings = self.at, self._settings
        codec = at.experiment.codec
        try:
            bits = bits_per_dim(
                self.denoiser,
                values,
                keys,
                codec=codec,
                draws=settings.draws if codec.is_bound else 1,
                cond=cond,
                probes=settings.probes,
                rtol=settings.rtol,
                atol=settings.atol,
                precision=at.precision,
                grid=self._grid,
            )
        except DivergenceError as error:
            bad = ", ".join(map(str, sorted({int(numbers[i]) for i in error.examples})))
            raise DivergenceError(
                f"The likelihood of the test examples {bad} could not be computed: the ODE solver failed. Use larger "
                "rtol and atol of Likelihood, or check whether the model returns values that are not finite."
            ) from error
        apart = ("value", "terms", "is_bound")
        columns = {name: value for name, value in bits._asdict().items() if name not in apart and value is not None}
        columns |= {f"{_TERM}{name}": value for name, value in bits.terms.items()}
        return {"bits_per_dim": bits.value} | columns


def _grid(denoiser: Denoiser, at: Context, settings: Likelihood) -> np.ndarray:
    """Return the fitted grid of the checkpoint, from its file, or fitted now on the first training examples."""
    model = at.model
    about = identity_of(model) | {"steps": settings.steps, "conditional": bool(model.conditions)}
    path = at.root / f"likelihood_grid-{results.digest(about)}.json"

    def fit() -> FittedGrid:
        examples, codec = at.split("train"), at.experiment.codec
        numbers = np.arange(min(_FITTED_ON, len(examples)))
        batch = examples.batch(numbers)
        keys = keys_.examples(keys_.stream(at.seed, "likelihood"), numbers)
        values, cond = at.experiment.conditioning(batch["values"], batch["cond"], keys, train=False)
        x, _ = codec.encode(values, keys_.fold(keys, "encode") if codec.is_bound else None)
        probes = keys_.fold(keys, "probes")
        return likelihood_grid(denoiser, x, probes, settings.steps, cond=cond, precision=at.precision)

    def told(fit: Fit, path: pathlib.Path) -> str:
        return (
            f"fitted {settings.steps} steps for the likelihood: error {fit.error:.2g} nats on other examples, "
            f"{fit.default_error:.2g} on steps even in {fit.default} ({path})"
        )

    return kept_grid(path, denoiser, "log_prob", fit, told)


def _of_columns(columns: dict[str, np.ndarray], is_bound: bool) -> BitsPerDim:
    fields: dict[str, Any] = {name: columns[name] for name in BitsPerDim._fields if name in columns}
    terms = {name.removeprefix(_TERM): column for name, column in columns.items() if name.startswith(_TERM)}
    return BitsPerDim(value=columns["bits_per_dim"], terms=terms, is_bound=is_bound, **fields)
