"""The tests share these distributions: a mixture in the plane, and mixtures with full covariances in a user's class."""

import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

import score_sde as ss


def mixture(sde):
    """Return the exact denoiser of a mixture of two overlapping Gaussians in the plane."""
    return ss.GaussianMixture(sde, [0.3, 0.7], [[1.5, 0.0], [-0.8, 0.6]], [0.3, 0.5])


def energy_distance(x, y):
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely & Rizzo 2013), over all pairs."""
    return 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()


def random_covariance(rng, size):
    """Return a covariance far from diagonal, with standard deviations from about 0.1 to 1."""
    rotation, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return rotation @ np.diag(np.geomspace(0.01, 1.0, size)) @ rotation.T


class Marginal:
    """`Marginal` is the distribution sum_k w_k N(m_k, C_k), computed by SciPy in float64."""

    def __init__(self, weights, means, covariances):
        self.weights = weights
        self.parts = [stats.multivariate_normal(m, c) for m, c in zip(means, covariances)]

    def log_prob(self, x):
        x = np.asarray(x, np.float64)
        log_probs = np.stack([np.atleast_1d(part.logpdf(x)) for part in self.parts])
        with np.errstate(divide="ignore"):  # a weight may be 0
            return np.logaddexp.reduce(np.log(self.weights)[:, None] + log_probs, axis=0)

    def sample(self, rng, n):
        component = rng.choice(len(self.weights), n, p=self.weights)
        draws = [part.rvs(n, random_state=rng).reshape(n, -1) for part in self.parts]
        return np.asarray(jnp.asarray(np.stack(draws)[component, np.arange(n)], float))


class FullMixture(ss.Denoiser):
    """`FullMixture` is the exact denoiser of sum_k w_k N(m_k, C_k), computed with the eigenvectors of each C_k."""

    weights: np.ndarray
    means: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    def __init__(self, sde, weights, means, covariances):
        self.sde, self.weights, self.means = sde, np.asarray(weights), np.asarray(means)
        self.values, self.vectors = np.linalg.eigh(covariances)

    def predict(self, x, t, cond=None, *, keys=None):
        t = jnp.broadcast_to(t, x.shape[:1])[:, None, None]
        alpha, variance = self.sde.alpha(t), self.sde.variance(t)
        spread = alpha**2 * self.values + variance  # (batch, K, D)
        centred = jnp.einsum("kij,bki->bkj", jnp.asarray(self.vectors, x.dtype), x[:, None] - alpha * self.means)
        whitened = centred / spread
        logits = jnp.log(self.weights) - 0.5 * jnp.sum(centred * whitened + jnp.log(spread), axis=-1)
        posterior = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
        posterior = (posterior / posterior.sum(axis=1, keepdims=True))[..., None]
        back = "kij,bkj->bki"
        x0 = self.means + jnp.einsum(back, self.vectors, alpha * self.values * whitened)
        noise = jnp.sqrt(variance) * jnp.einsum(back, self.vectors, whitened)
        return ss.Prediction(
            (posterior * x0).sum(axis=1).astype(x.dtype), (posterior * noise).sum(axis=1).astype(x.dtype)
        )

    def marginal(self, t):
        alpha, variance = float(self.sde.alpha(t)), float(self.sde.variance(t))
        spread = alpha**2 * self.values + variance
        covariances = np.einsum("kij,kj,klj->kil", self.vectors, spread, self.vectors)
        return Marginal(self.weights, alpha * self.means, covariances)


def FullGaussian(sde, mean, covariance):
    """Return the exact denoiser of N(mean, covariance)."""
    return FullMixture(sde, np.ones(1), mean[None], covariance[None])


class Images(ss.Guide):
    """`Images` gives images of a shape to a closed form of vectors."""

    size: tuple

    def __init__(self, denoiser, shape):
        super().__init__(denoiser)
        self.size = tuple(shape)

    @property
    def shape(self):
        return self.size

    def predict(self, x, t, cond=None, *, keys=None):
        inner = self.denoiser.predict(x.reshape(len(x), -1), t, cond)
        return ss.Prediction(inner.x0.reshape(x.shape), inner.noise.reshape(x.shape))


def posterior_law(mean, cov, matrix, y, noise):
    """Return mean and covariance of x given y = A x + N(0, noise)."""
    gain = cov @ matrix.T @ np.linalg.inv(matrix @ cov @ matrix.T + noise)
    return mean + gain @ (y - matrix @ mean), cov - gain @ matrix @ cov
