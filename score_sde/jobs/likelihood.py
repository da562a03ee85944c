"""This module measures the likelihood of a split in bits per dimension, using every example exactly once."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np

from score_sde.core.checks import require_whole
from score_sde.core.errors import DivergenceError
from score_sde.jobs.batches import OfBatch, measured
from score_sde.jobs.evaluation import Context, Evaluation
from score_sde.jobs.parts import Columns
from score_sde.likelihood import BitsPerDim, bits_per_dim
from score_sde.ode import check_tolerances

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
    """

    probes: int = 2
    rtol: float = 1e-5
    atol: float = 1e-5
    draws: int = 1
    first: int = 0
    name: ClassVar[str] = "likelihood"

    def __post_init__(self) -> None:
        require_whole("probes of Likelihood", self.probes, 1)
        require_whole("draws of Likelihood", self.draws, 1)
        require_whole("first of Likelihood", self.first, 0)
        check_tolerances(self.rtol, self.atol)

    def settings(self) -> dict[str, Any]:
        """Return the settings; `first` is omitted if it is 0, so that a result of all examples keeps its identity."""
        return {name: value for name, value in super().settings().items() if (name, value) != ("first", 0)}

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
            "conditional": bool(at.model.conditions),
            "seconds": round(seconds, 3),
        }
        line = f"{summary.bits_per_dim:.4f} +- {summary.stderr:.4f} bits/dim over {summary.n} examples"
        return found, f"{line}, {found['nfe']:.0f} evaluations each"


class _OfBatch(OfBatch):
    """`_OfBatch` computes the bits per dimension of a batch."""

    def __init__(self, settings: Likelihood, at: Context, size: int) -> None:
        super().__init__(at, size)
        self._settings = settings
        # A chain has a probability flow only on the smooth curve through its levels.
        self.denoiser = self.denoiser.smooth()

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
            )
        except DivergenceError as error:
            bad = ", ".join(map(str, sorted({int(numbers[i]) for i in error.examples})))
            raise DivergenceError(
                f"The likelihood of the test examples {bad} could not be computed: the ODE solver failed. Use larger "
                "rtol and atol of Likelihood, or check whether the model returns values that are not finite."
            ) from error
        columns = {name: value for name, value in bits._asdict().items() if name not in ("value", "terms", "is_bound")}
        columns |= {f"{_TERM}{name}": value for name, value in bits.terms.items()}
        return {"bits_per_dim": bits.value} | columns


def _of_columns(columns: dict[str, np.ndarray], is_bound: bool) -> BitsPerDim:
    fields: dict[str, Any] = {name: columns[name] for name in BitsPerDim._fields if name in columns}
    terms = {name.removeprefix(_TERM): column for name, column in columns.items() if name.startswith(_TERM)}
    return BitsPerDim(value=columns["bits_per_dim"], terms=terms, is_bound=is_bound, **fields)
