"""The likelihood of a split, in bits per dimension, every example exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np

from score_sde import data
from score_sde.core import keys as keys_
from score_sde.core.errors import DivergenceError
from score_sde.evaluation import job as room
from score_sde.evaluation.parts import Columns
from score_sde.likelihood import BitsPerDim, bits_per_dim
from score_sde.parallel import processes

if TYPE_CHECKING:
    from score_sde.evaluation.evaluate import Job

_TERMS = ("prior", "divergence", "log_det", "dequantization")


def over_split(job: Job) -> tuple[dict[str, Any], str]:
    """Mean, standard error and terms; each example's own numbers go to likelihood.npz.

    Example i is a function of (eval.seed, i): not of the batch size, the devices or the processes.
    """
    n, parts, archive = len(job.source), job.parts("likelihood"), job.folder / "likelihood.npz"
    size = room.equal_batches(n, job.settings.batch_size)
    room.run(parts, n, size, _Likelihood(job, size), "examples")
    if not processes.is_first():
        return {}, ""
    seconds = parts.merge(archive, n)
    with np.load(archive) as arrays:
        bits = BitsPerDim(arrays["bits_per_dim"], *(arrays[name] for name in BitsPerDim._fields[1:]))
    summary = bits.summary()
    found = {
        "bits_per_dim": summary.bits_per_dim,
        "stderr": summary.stderr,
        "stderr_parts": {"probes": summary.probe_stderr, "data": summary.data_stderr},
        "n": summary.n,
        "terms": {name: float(getattr(bits, name).mean()) for name in _TERMS},
        "nfe": float(bits.nfe.mean()),
        "nfe_max": int(bits.nfe.max()),
        "conditional": job.model.num_classes is not None,
        "seconds": round(seconds, 3),
    }
    line = f"{summary.bits_per_dim:.4f} +- {summary.stderr:.4f} bits/dim over {summary.n} examples"
    return found, f"{line}, {found['nfe']:.0f} evaluations each"


class _Likelihood:
    """From the numbers of at most `size` examples to their bits per dimension, on the devices of this process."""

    def __init__(self, job: Job, size: int) -> None:
        self._job, self._devices = job, job.devices.local
        denoiser = job.denoiser(self._devices)
        # A chain has a flow on the curve through its levels only.
        self._denoiser = eqx.tree_at(lambda d: d.sde, denoiser, denoiser.sde.smooth())
        self._size = self._devices.padded(size)

    def __call__(self, numbers: np.ndarray) -> Columns:
        job, settings, model = self._job, self._job.settings, self._job.model
        examples = data.read(job.source, numbers)
        # Filled up with its last example, and what comes of that is cut off.
        place = np.minimum(np.arange(self._size), len(numbers) - 1)
        values, labels = self._devices.place_sharded(
            (examples["image"][place], examples["label"][place].astype(np.int32))
        )
        keys = self._devices.place_sharded(keys_.examples(keys_.root(settings.seed), numbers[place]))
        dequantization = model.transform.dequantization
        try:
            bits = bits_per_dim(
                self._denoiser,
                values,
                keys,
                transform=model.transform,
                dequantization=dequantization,
                draws=1 if dequantization is None else settings.dequantisations,
                cond=None if model.num_classes is None else {"label": labels},
                probes=settings.probes,
                rtol=settings.rtol,
                atol=settings.atol,
            )
        except DivergenceError as error:
            bad = ", ".join(map(str, sorted({int(numbers[place[i]]) for i in error.examples})))
            raise DivergenceError(
                f"The likelihood of the test examples {bad} could not be computed: their flow was not solved. Use "
                "larger eval.rtol and eval.atol; or the model itself returns values that are not finite."
            ) from error
        columns = {name: column[: len(numbers)] for name, column in bits._asdict().items()}
        return {"label": examples["label"], "bits_per_dim": columns.pop("value"), **columns}
