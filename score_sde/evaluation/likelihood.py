"""The likelihood of a split, in bits per dimension, every example exactly once."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
import tqdm

from score_sde import data
from score_sde.core import keys as keys_
from score_sde.core.errors import DivergenceError
from score_sde.core.files import atomic_file
from score_sde.likelihood import BitsPerDim, bits_per_dim

if TYPE_CHECKING:
    from score_sde.evaluation.evaluate import Job

_TERMS = ("prior", "divergence", "log_det", "dequantization")


def over_split(job: Job) -> tuple[dict[str, Any], str]:
    """Mean, standard error and terms; each example's own numbers go to likelihood.npz.

    Example i is a function of (eval.seed, i): not of the batch size or the devices.
    """
    examples = data.all_examples(job.source)
    bits = _concatenate(list(_batches(job, examples)))
    with atomic_file(job.folder / "likelihood.npz") as file:
        np.savez(file, index=np.arange(len(bits.value)), label=examples["label"], **_columns(bits))  # type: ignore[arg-type]
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
    }
    line = f"{summary.bits_per_dim:.4f} +- {summary.stderr:.4f} bits/dim over {summary.n} examples"
    return found, f"{line}, {found['nfe']:.0f} evaluations each"


def _batches(job: Job, examples: dict[str, np.ndarray]) -> Iterator[BitsPerDim]:
    n, settings, model = len(examples["label"]), job.settings, job.model
    dequantization = model.transform.dequantization
    # A chain has a flow on the curve through its levels only.
    denoiser = eqx.tree_at(lambda d: d.sde, job.denoiser, job.denoiser.sde.smooth())
    size = batch_size(n, settings.batch_size, len(job.devices.devices))
    starts = range(0, n, size)
    for low in tqdm.tqdm(starts, unit="batch", disable=not sys.stderr.isatty()):
        # The last batch is filled up with its last example, and what comes of that is cut off.
        place = np.minimum(np.arange(low, low + size), n - 1)
        values, labels = job.devices.place_sharded(
            (examples["image"][place], examples["label"][place].astype(np.int32))
        )
        keys = job.devices.place_sharded(keys_.examples(keys_.root(settings.seed), place))
        try:
            bits = bits_per_dim(
                denoiser,
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
            numbers = ", ".join(map(str, sorted({int(place[i]) for i in error.examples})))
            raise DivergenceError(
                f"The likelihood of the test examples {numbers} could not be computed: their flow was not solved. Use "
                "larger eval.rtol and eval.atol; or the model itself returns values that are not finite."
            ) from error
        yield BitsPerDim(*(column[: n - low] for column in bits))


def batch_size(n: int, most: int, devices: int) -> int:
    """The examples of a batch: about `most`, divided by the devices, with as little padding as can be."""
    equal = math.ceil(n / math.ceil(n / most))
    return math.ceil(equal / devices) * devices


def _concatenate(parts: list[BitsPerDim]) -> BitsPerDim:
    return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)


def _columns(bits: BitsPerDim) -> dict[str, np.ndarray]:
    columns = bits._asdict()
    return {"bits_per_dim": columns.pop("value"), **columns}
