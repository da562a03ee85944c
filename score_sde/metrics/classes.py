"""This module computes the inception score from the logits of a classifier."""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike
from scipy.special import log_softmax

from score_sde.core.checks import require_whole
from score_sde.core.errors import InputError
from score_sde.metrics.estimate import Estimate, as_features


def inception_score(logits: ArrayLike, splits: int = 10, seed: int | None = 0) -> Estimate:
    """Return exp(mean KL(p(y | x), p(y))), averaged over splits of the samples.

    The score is that of Salimans et al. 2016, arXiv:1606.03498. p(y) is the mean of p(y | x) over a split. Few samples
    in a split make the score too small. The standard error is the standard deviation over the splits, divided by the
    square root of their number; published tables state the standard deviation.

    Args:
        logits: logits of the classes, (n, classes). Published scores use the 1,008 logits of the Inception of 2015
            without bias.
        splits: the number of splits.
        seed: the seed of the order of the samples, since sorted classes would spoil the splits; None for the given
            order.

    Raises:
        InputError: for logits that are not finite, or for fewer than two samples in a split.
    """
    require_whole("splits", splits, 1)
    array = np.asanyarray(logits)  # a map of a file stays one: a split at a time is in memory
    n = len(array) if array.ndim else 0
    if n < 2 * splits:
        raise InputError(f"{n} logits make {splits} splits; expected at least two samples in a split.")
    order = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    scores = [_score(as_features(array[np.sort(part)], "logits")) for part in np.array_split(order, splits)]
    stderr = float(np.std(scores, ddof=1) / np.sqrt(splits)) if splits > 1 else float("nan")
    return Estimate(float(np.mean(scores)), stderr)


def _score(logits: np.ndarray) -> float:
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    log_marginal = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
    return float(np.exp((p * (log_p - log_marginal)).sum(axis=1).mean()))
