"""Bits per dimension of quantised or continuous data, as a sum of named terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, dimensions, is_concrete
from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.data import UniformDequantization
from score_sde.denoiser import Cond, Denoiser
from score_sde.likelihood.density import LogProb, Prior, check_keys, log_prob


class Summary(NamedTuple):
    """The mean over a data set, in bits per dimension, and where its standard error comes from.

    Attributes:
        bits_per_dim: the mean.
        stderr: its standard error, from the spread of the examples' values; NaN for one example.
        probe_stderr: the part due to Hutchinson's probes; NaN with one probe, 0 with the exact trace.
        data_stderr: the part due to the choice of examples and dequantisation noise,
            sqrt(stderr^2 - probe_stderr^2), or 0 where the probes' is the larger; NaN with one probe.
        n: the number of examples.
    """

    bits_per_dim: float
    stderr: float
    probe_stderr: float
    data_stderr: float
    n: int


class BitsPerDim(NamedTuple):
    """Bits per dimension of each example, shape (batch,); value is the sum of the four terms.

    Attributes:
        value: prior + divergence + log_det + dequantization.
        stderr: standard error from the probes; NaN with one probe, 0 with the exact trace.
        prior: -log prior(z) / (D log 2).
        divergence: -(integral of the divergence along the flow) / (D log 2).
        log_det: -log |det d forward / d values| / (D log 2): +7 for values 0 .. 255 scaled to [-1, 1].
        dequantization: E log q(u) / (D log 2), the noise's own density: 0 for bins of width 1, +8 of width 1/256.
        nfe: network evaluations, summed over the draws, int32.
        accepted, rejected: steps of the solves, summed over the draws, int32.
    """

    value: np.ndarray
    stderr: np.ndarray
    prior: np.ndarray
    divergence: np.ndarray
    log_det: np.ndarray
    dequantization: np.ndarray
    nfe: np.ndarray
    accepted: np.ndarray
    rejected: np.ndarray

    def summary(self) -> Summary:
        """The mean over the examples, with its standard error split into its sources."""
        value, n = np.asarray(self.value, np.float64), len(self.value)
        stderr = float(value.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        probe = float(np.sqrt(np.sum(np.asarray(self.stderr, np.float64) ** 2)) / n)
        # The spread of the values holds both; where the probes explain more than all, nothing is left.
        data = math.nan if math.isnan(stderr) or math.isnan(probe) else math.sqrt(max(stderr**2 - probe**2, 0.0))
        return Summary(float(value.mean()), stderr, probe, data, n)


def bits_per_dim(
    denoiser: Denoiser,
    values: ArrayLike,
    keys: Array | None,
    *,
    transform: Any,
    dequantization: UniformDequantization | None,
    draws: int = 1,
    cond: Cond = None,
    prior: Prior | None = None,
    trace: str = "hutchinson",
    probes: int = 1,
    probe: str = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    chunk: int = 16,
) -> BitsPerDim:
    """-log2 of the probability (or the density) of data, per dimension, on the data's own scale.

    For quantised data, with noise u of density q that fills a value's bin (uniform dequantisation,
    Theis et al. 2016, arXiv:1511.01844), x = forward(values + u) and D dimensions,

        bits = -E_u[log p(x) + log |det d forward / d values| - log q(u)] / (D log 2),

    which bounds -log2 P(values) / D from above; the mean over u is that of `draws` draws. For
    continuous data there is no u and the result is -log2 of a density, which may be negative.

    Args:
        denoiser: the model.
        values: on the data's own scale, shape (batch, *shape); with a dequantisation, quantised values.
        keys: one key per example, shape (batch,), for its dequantisation and its probes; None where neither is.
        transform: between the data's scale and the model's, with forward(values) and
            log_det(values) -> (batch,) in nats; where it declares `low` and `high`, values must lie within.
        dequantization: how values become continuous; None for data that are.
        draws: how many dequantisation draws are averaged.
        cond, prior, trace, probes, probe, rtol, atol, chunk: as in `log_prob`.

    Raises:
        InputError: for data outside the transform's range, whole numbers without dequantisation, a
            transform without log_det, and what `log_prob` refuses.
        DivergenceError: for examples whose flow could not be solved, naming them.
    """
    require_whole("draws", draws, 1)
    if getattr(transform, "log_det", None) is None:
        raise InputError(
            f"{type(transform).__name__} has no log_det, so its scale would be missing from the bits: define "
            "log_det(values), the log-determinant of forward's derivative in nats."
        )
    values = _check_values(values, transform, dequantization)
    check_keys(keys, len(values), trace)
    if keys is None and dequantization is not None:
        raise InputError("keys is None; dequantisation needs one key per example.")

    def folded(k: int) -> Array | None:
        return None if keys is None else keys_.fold(keys, k)

    if dequantization is None and draws > 1:
        raise InputError(f"draws is {draws} without dequantisation, where all draws are the same: use draws=1.")
    options: dict[str, Any] = {"trace": trace, "probes": probes, "probe": probe, "chunk": chunk}
    options |= {"rtol": rtol, "atol": atol, "cond": cond, "prior": prior}

    def draw(k: int) -> BitsPerDim:
        continuous, log_q = values, jnp.zeros(len(values))
        noise_keys = folded(2 * k)
        if dequantization is not None and noise_keys is not None:
            continuous = dequantization(values, noise_keys)
            log_q = dequantization.log_density(values)
        out = log_prob(denoiser, transform.forward(continuous), folded(2 * k + 1), **options)
        return _in_bits(out, _log_det(transform, continuous), log_q, dimensions(values))

    return _average([draw(k) for k in range(draws)])


def _in_bits(out: LogProb, log_det: Array, log_q: Array, size: int) -> BitsPerDim:
    """The terms of one draw, from nats to bits per dimension."""
    nats = (out.stderr, -out.prior, -out.divergence, -log_det, log_q)
    stderr, *terms = (np.asarray(term, np.float64) / (size * math.log(2)) for term in nats)
    counts = (np.asarray(count) for count in (out.nfe, out.accepted, out.rejected))
    return BitsPerDim(np.sum(terms, axis=0), stderr, *terms, *counts)


def _average(drawn: Sequence[BitsPerDim]) -> BitsPerDim:
    """The mean of the terms over the draws, and the sum of what they cost."""
    every = BitsPerDim(*(np.stack(column) for column in zip(*drawn, strict=True)))
    counts = {name: getattr(every, name).sum(axis=0) for name in ("nfe", "accepted", "rejected")}
    stderr = np.sqrt((every.stderr**2).sum(axis=0)) / len(drawn)
    means = {name: getattr(every, name).mean(axis=0) for name in ("prior", "divergence", "log_det", "dequantization")}
    return BitsPerDim(value=every.value.mean(axis=0), stderr=stderr, **means, **counts)


def _log_det(transform: Any, values: Array) -> Array:
    log_det = jnp.asarray(transform.log_det(values))
    if log_det.shape != values.shape[:1]:
        raise InputError(
            f"{type(transform).__name__}.log_det returned shape {log_det.shape}; expected (batch,) = ({len(values)},)."
        )
    return log_det


def _check_values(values: ArrayLike, transform: Any, dequantization: UniformDequantization | None) -> Array:
    """Values as floating point numbers, once they are known to fit the transform and the dequantisation."""
    kind = jnp.result_type(values)
    if dequantization is None and not jnp.issubdtype(kind, jnp.floating):
        raise InputError(
            f"values have dtype {kind} and dequantisation is off: the density of whole numbers has no bound; pass "
            "dequantization=UniformDequantization()."
        )
    array = jnp.asarray(values, float)
    if array.ndim < 2:
        raise InputError(f"values have shape {array.shape}; expected (batch, *shape), one example being values[None].")
    if not is_concrete(array):
        return array
    host = np.asarray(array)
    low, high = getattr(transform, "low", -math.inf), getattr(transform, "high", math.inf)
    outside = host[~((host >= low) & (host <= high) & np.isfinite(host))]
    if outside.size:
        raise InputError(
            f"values contain {outside.flat[0]:g}, outside the range [{low:g}, {high:g}] of {type(transform).__name__}; "
            "expected data on their own scale, before any scaling."
        )
    if dequantization is not None:
        dequantization.check(host)
    elif host.size and low > -math.inf and np.all(host == np.round(host)):
        raise InputError(
            "values are whole numbers and dequantisation is off: the density of whole numbers has no bound; pass "
            "dequantization=UniformDequantization()."
        )
    return array
