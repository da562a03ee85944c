"""This module defines the exact denoiser, in closed form, of data that follow a mixture of Gaussians.

A perfectly trained network would make the predictions of the exact denoiser.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_array, dimensions, expand, is_concrete, to_time
from score_sde.core.checks import shown
from score_sde.core.conditions import Cond, Conditions, Label, is_absent
from score_sde.core.errors import InputError
from score_sde.denoisers.base import Denoiser
from score_sde.denoisers.prediction import Prediction
from score_sde.denoisers.reverse_variance import X0Variance
from score_sde.sde import SDE


class Mixture(eqx.Module):
    """`Mixture` is the density sum_k w_k N(m_k, diag(s_k^2)).

    Attributes:
        weights: w, shape (K,), positive; normalised to sum to 1.
        means: m, shape (K, *shape).
        stds: s, positive, shape () or (K,) for isotropic components, or (K, *shape).
    """

    weights: Array
    means: Array
    stds: Array

    def __init__(self, weights: ArrayLike, means: ArrayLike, stds: ArrayLike) -> None:
        weights, means, stds = _numbers("weights", weights), _numbers("means", means), _numbers("stds", stds)
        _check_mixture(weights, means, stds)
        self.weights = weights / jnp.sum(weights)
        self.means = means
        stds = jnp.broadcast_to(stds, weights.shape) if stds.ndim == 0 else stds
        self.stds = jnp.broadcast_to(stds.reshape(stds.shape + (1,) * (means.ndim - stds.ndim)), means.shape)

    def component_log_prob(self, x: Array) -> Array:
        """Return log(w_k N(x; m_k, s_k)) in nats: (batch, *shape) -> (batch, K)."""
        z = (x[:, None] - self.means) / self.stds
        axes = tuple(range(2, z.ndim))
        log_density = -0.5 * jnp.sum(z**2, axis=axes) - jnp.sum(jnp.log(self.stds), axis=tuple(a - 1 for a in axes))
        return jnp.log(self.weights) + log_density - 0.5 * math.log(2 * math.pi) * dimensions(x)

    def log_prob(self, x: Array) -> Array:
        """Return the log-density in nats: (batch, *shape) -> (batch,)."""
        return jax.nn.logsumexp(self.component_log_prob(x), axis=1)

    def sample(self, keys: Array) -> Array:
        """Draw one example for each key: (batch,) -> (batch, *shape)."""
        pick, draw = keys_.fold(keys, "component"), keys_.fold(keys, "mixture")
        component = jax.vmap(lambda key: jax.random.categorical(key, jnp.log(self.weights)))(pick)
        z = keys_.normal(draw, self.means.shape[1:], self.means.dtype)
        return self.means[component] + self.stds[component] * z

    def mean(self) -> Array:
        """Return the mean of the flattened example, shape (D,)."""
        return self.weights @ self.means.reshape(len(self.weights), -1)

    def covariance(self) -> Array:
        """Return the covariance of the flattened example, shape (D, D)."""
        centred = self.means.reshape(len(self.weights), -1) - self.mean()
        within = self.weights @ self.stds.reshape(len(self.weights), -1) ** 2
        return jnp.diag(within) + jnp.einsum("k,ki,kj->ij", self.weights, centred, centred)


class GaussianMixture(Denoiser):
    """`GaussianMixture` is the exact denoiser of data that follow sum_k w_k N(m_k, diag(s_k^2)).

    At time t the marginal is the mixture with means alpha m_k and variances
    alpha^2 s_k^2 + sigma^2. Given the component k,

        E[x_0 | x_t]   = m_k + alpha s_k^2 (x_t - alpha m_k) / (alpha^2 s_k^2 + sigma^2),
        E[noise | x_t] = sigma (x_t - alpha m_k) / (alpha^2 s_k^2 + sigma^2).

    The predictions average both expectations over the posterior of k. The variance is the exact
    Var[x_0 | x_t] of each dimension, the posterior's mean of s_k^2 sigma^2 / (alpha^2 s_k^2 + sigma^2) +
    (E[x_0 | x_t, k] - E[x_0 | x_t])^2. A condition {'label': int (batch,)}
    restricts example i to component label_i. An example without a label uses the whole mixture.

    Args:
        sde: the SDE.
        weights: shape (K,), positive; normalised to sum to 1.
        means: shape (K, *shape).
        stds: positive, shape () or (K,) for isotropic components, or (K, *shape).
    """

    data: Mixture

    def __init__(self, sde: SDE, weights: ArrayLike, means: ArrayLike, stds: ArrayLike) -> None:
        if not isinstance(sde, SDE):
            raise InputError(f"sde of GaussianMixture is {shown(sde)}; expected an SDE, such as VP().")
        self.sde = sde
        self.data = Mixture(weights, means, stds)

    def marginal(self, t: ArrayLike) -> Mixture:
        """Return the distribution of x_t, where t has shape ()."""
        alpha, variance = self.sde.alpha(to_time(t)), self.sde.variance(to_time(t))
        stds = jnp.sqrt((alpha * self.data.stds) ** 2 + variance)
        return Mixture(self.data.weights, alpha * self.data.means, stds)

    @property
    def reads(self) -> Conditions:
        return Conditions(label=Label(len(self.data.weights)))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.means.shape[1:])

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        t = jnp.broadcast_to(to_time(t), x.shape[:1])
        if cond is None or "label" not in cond:
            return jax.vmap(self._predict, (0, 0, None))(x, t, None)
        components = jnp.arange(len(self.data.weights))
        allowed = (cond["label"][:, None] == components) | is_absent(cond, "label", len(x))[:, None]
        return jax.vmap(self._predict)(x, t, allowed)

    def _predict(self, x: Array, t: Array, allowed: Array | None) -> Prediction:
        """Predict x_0 and noise for one example x (*shape), t (); the mask `allowed` (K,) selects the components."""
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        marginal = self.marginal(t)
        logits = marginal.component_log_prob(x[None])[0]
        if allowed is not None:
            logits = jnp.where(allowed, logits, -jnp.inf)
        posterior = jax.nn.softmax(logits).astype(x.dtype)
        whitened = (x - marginal.means) / marginal.stds**2
        x0_given = self.data.means + alpha * self.data.stds**2 * whitened
        x0 = jnp.tensordot(posterior, x0_given, 1)
        within = (self.data.stds * sigma / marginal.stds) ** 2
        variance = jnp.tensordot(posterior, within + (x0_given - x0) ** 2, 1)
        noise = sigma * jnp.tensordot(posterior, whitened, 1)
        return Prediction(x0.astype(x.dtype), noise.astype(x.dtype), X0Variance(variance.astype(x.dtype)))


def _numbers(name: str, values: ArrayLike) -> Array:
    if is_concrete(values) and as_array(values, f"{name} of a mixture").dtype.kind not in "biuf":
        raise InputError(f"{name} of a mixture are {shown(values)}; expected numbers.")
    return jnp.asarray(values, float)


def _check_mixture(weights: Array, means: Array, stds: Array) -> None:
    fits = weights.ndim == 1 and means.shape[:1] == weights.shape
    if not (fits and stds.shape in ((), weights.shape, means.shape)):
        raise InputError(
            f"A mixture got weights of shape {weights.shape}, means {means.shape}, stds {stds.shape}; "
            "expected (K,), (K, *shape), and () or (K,) or (K, *shape)."
        )
    if is_concrete(weights, stds) and not (np.all(np.asarray(weights) > 0) and np.all(np.asarray(stds) > 0)):
        raise InputError("A mixture needs positive weights and positive stds: remove components of weight 0.")
