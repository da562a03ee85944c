"""This module computes bits per dimension of data on their own scale, as a sum of named terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_array, is_concrete
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.data.codec import shape_hint
from score_sde.denoisers import Denoiser
from score_sde.denoisers.inputs import as_denoiser
from score_sde.likelihood.density import LogProb, Prior, check_keys, log_prob


class Summary(NamedTuple):
    """`Summary` holds the mean over a data set, in bits per dimension, and the sources of its standard error.

    Attributes:
        bits_per_dim: the mean.
        stderr: standard error of the mean, from the spread of the examples' values; NaN for one example.
        probe_stderr: part due to Hutchinson's probes; NaN with one probe, 0 with the exact trace.
        data_stderr: part due to the choice of examples and dequantisation noise,
            sqrt(stderr^2 - probe_stderr^2), or 0 if probe_stderr is larger than stderr; NaN with one probe.
        n: number of examples.
    """

    bits_per_dim: float
    stderr: float
    probe_stderr: float
    data_stderr: float
    n: int


class BitsPerDim(NamedTuple):
    """`BitsPerDim` holds the bits per dimension of each example, shape (batch,).

    Attributes:
        value: sum of prior, divergence and all terms.
        stderr: standard error from the probes; NaN with one probe, 0 with the exact trace.
        prior: -log prior(z) / (D log 2).
        divergence: -(integral of the divergence along the flow) / (D log 2).
        terms: the codec's terms by name, divided by -(D log 2): `scale` is +7 for values 0 .. 255 scaled to [-1, 1].
        nfe: network evaluations, summed over the draws, int32.
        accepted, rejected: steps of the solves, summed over the draws, int32.
        is_bound: True if the value is an upper bound of -log2 P(values) / D, as with dequantisation noise; False if the
            value is exact.
        solve_error: with a grid, an upper estimate of the solve's error, as in `LogProb`; None with adaptive steps.
    """

    value: np.ndarray
    stderr: np.ndarray
    prior: np.ndarray
    divergence: np.ndarray
    terms: dict[str, np.ndarray]
    nfe: np.ndarray
    accepted: np.ndarray
    rejected: np.ndarray
    is_bound: bool
    solve_error: np.ndarray | None = None

    def summary(self) -> Summary:
        """Return the mean over the examples, with its standard error split into its sources."""
        value, n = np.asarray(self.value, np.float64), len(self.value)
        stderr = float(value.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        probe = float(np.sqrt(np.sum(np.asarray(self.stderr, np.float64) ** 2)) / n)
        # The spread of the values has both sources. The data's part is 0 if the probes' part exceeds the whole.
        data = math.nan if math.isnan(stderr) or math.isnan(probe) else math.sqrt(max(stderr**2 - probe**2, 0.0))
        return Summary(float(value.mean()), stderr, probe, data, n)


def bits_per_dim(
    denoiser: Denoiser,
    values: ArrayLike,
    keys: Array | None,
    *,
    codec: Codec | None = None,
    draws: int = 1,
    cond: Cond = None,
    prior: Prior | None = None,
    trace: str = "hutchinson",
    probes: int = 1,
    probe: str = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    chunk: int = 16,
    precision: str = "highest",
    grid: ArrayLike | None = None,
) -> BitsPerDim:
    """Compute -log2 of the probability (or the density) of data, per dimension, on the data's own scale.

    With (x, terms) = codec.encode(values, keys) and D dimensions of the data,

        bits = -E[log p(x) + sum of the terms] / (D log 2),

    where the mean is over `draws` random draws of the codec. If the codec draws dequantisation noise, the result is an
    upper bound of -log2 P(values) / D. For continuous data the result is -log2 of a density, which may be negative.

    Args:
        denoiser: the model.
        values: data on their own scale, shape (batch, *codec.data_shape).
        keys: one random key per example, shape (batch,), for the codec and the probes; None if neither is random.
        codec: map between the data's scale and the model's; None for the codec of a `denoiser` that is a model.
        draws: number of the codec's draws in the mean.
        cond, prior, trace, probes, probe, rtol, atol, chunk, precision, grid: as in `log_prob`.

    Raises:
        InputError: for values that the codec does not accept, a codec term without a bound, and input that
            `log_prob` does not accept.
        DivergenceError: for examples whose flow could not be solved, with their numbers.
    """
    require_whole("draws", draws, 1)
    codec = getattr(denoiser, "codec", None) if codec is None else codec
    if not isinstance(codec, Codec):
        raise InputError(f"codec is {codec!r}; expected a Codec, such as QuantizedCodec((8, 8, 1), 16).")
    denoiser = as_denoiser(denoiser)
    values = as_values(values, codec)
    check_keys(keys, len(values), trace)
    if keys is None and codec.is_bound:
        raise InputError("keys is None; the codec draws noise (dequantisation) and needs one key per example.")
    if keys is not None and not codec.is_bound:
        _check_draws_nothing(codec, values[:1], keys[:1])
    if draws > 1 and not codec.is_bound:
        raise InputError(
            f"draws is {draws}, and {type(codec).__name__} draws nothing, so all draws are equal: use draws=1."
        )
    options: dict[str, Any] = {"trace": trace, "probes": probes, "probe": probe, "chunk": chunk}
    options |= {"rtol": rtol, "atol": atol, "cond": cond, "prior": prior, "precision": precision}
    options["grid"] = grid
    size = math.prod(codec.data_shape)

    def folded(purpose: str, k: int) -> Array | None:
        return None if keys is None else keys_.fold(keys_.fold(keys, purpose), k)

    def draw(k: int) -> BitsPerDim:
        x, terms = codec.encode(values, folded("encode", k))
        out = log_prob(denoiser, x, folded("probes", k), **options)
        return _in_bits(out, _with_bounds(terms, codec, len(values)), size, codec.is_bound)

    return _average([draw(k) for k in range(draws)])


def _check_draws_nothing(codec: Codec, value: Any, key: Array) -> None:
    """Raise InputError if a codec draws noise and declares that the likelihood is exact."""
    one, other = (codec.encode(value, keys_.fold(key, purpose)) for purpose in ("encode", "another"))
    if any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)):
        name = type(codec).__name__
        raise InputError(
            f"{name}.is_bound is False, but its encode draws noise, so the result is a bound: set is_bound = True in "
            f"{name}."
        )


def _in_bits(out: LogProb, terms: dict[str, Array], size: int, is_bound: bool) -> BitsPerDim:
    """Convert the terms of one draw from nats to bits per dimension."""

    def bits(nats: Array) -> np.ndarray:
        return np.asarray(nats, np.float64) / (size * math.log(2))

    named = {name: -bits(nats) for name, nats in terms.items()}
    prior, divergence = -bits(out.prior), -bits(out.divergence)
    value = np.sum([prior, divergence, *named.values()], axis=0)
    nfe, accepted, rejected = (np.asarray(count) for count in (out.nfe, out.accepted, out.rejected))
    of_solve = None if out.solve_error is None else bits(out.solve_error)
    return BitsPerDim(value, bits(out.stderr), prior, divergence, named, nfe, accepted, rejected, is_bound, of_solve)


def _average(drawn: Sequence[BitsPerDim]) -> BitsPerDim:
    """Return the mean of the terms over the draws, and the sum of their costs."""

    def stacked(name: str) -> np.ndarray:
        return np.stack([getattr(one, name) for one in drawn])

    means = {name: stacked(name).mean(axis=0) for name in ("value", "prior", "divergence")}
    counts = {name: stacked(name).sum(axis=0) for name in ("nfe", "accepted", "rejected")}
    stderr = np.sqrt((stacked("stderr") ** 2).sum(axis=0)) / len(drawn)
    terms = jax.tree.map(lambda *values: np.mean(values, axis=0), *[one.terms for one in drawn])
    of_solve = None if drawn[0].solve_error is None else stacked("solve_error").mean(axis=0)
    return BitsPerDim(**means, stderr=stderr, terms=terms, **counts, is_bound=drawn[0].is_bound, solve_error=of_solve)


def _with_bounds(terms: dict[str, Array | None], codec: Codec, batch: int) -> dict[str, Array]:
    """Return the terms, or raise InputError if a term does not have one value per example."""
    name = type(codec).__name__
    bounded: dict[str, Array] = {}
    for term, value in terms.items():
        if value is None:
            raise InputError(f"{name} gives no bound of its term {term!r}, so its data have no bits per dimension.")
        if jnp.shape(value) != (batch,):
            raise InputError(
                f"{name} gives its term {term!r} the shape {jnp.shape(value)}; expected (batch,) = ({batch},)."
            )
        bounded[term] = value
    return bounded


def as_values(values: ArrayLike, codec: Codec) -> Array:
    """Return the values as an array, or raise InputError if the codec does not accept them."""
    values = values if isinstance(values, jax.Array) else as_array(values, "values")
    shape = values.shape
    if shape[1:] != tuple(codec.data_shape) or not shape:
        hint = shape_hint(shape[1:], codec.data_shape)
        raise InputError(f"values have shape {shape}; expected (batch, *shape) = {('batch', *codec.data_shape)}{hint}.")
    if is_concrete(values):
        array = np.asarray(values)
        if array.dtype.kind not in "biufV":
            raise InputError(f"values have dtype {array.dtype}; expected numbers.")
        codec.check(array)
    return jnp.asarray(values)
