"""This module makes random draws with one key per example: draw i depends on (seed, i), and not on its neighbours.

Keys are always threefry, whatever JAX's global flag is: under `vmap` the draws of the `rbg`
generator depend on the size of the batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jax.typing import ArrayLike, DTypeLike

from score_sde.core.arrays import Array
from score_sde.core.checks import is_whole
from score_sde.core.errors import InputError

# Each purpose of a seed has its own stream of keys, so that two uses of one seed share no key.
STREAMS = {
    "init": "the first parameters",
    "train": "the draws of training steps",
    "held out": "the draws of held-out losses",
    "sample": "the prior and the noise of samples",
    "measure": "the noise and the masks of measurements",
    "likelihood": "dequantisation and probes of an evaluation",
    "order": "the order of training data, on the host",
    "flip": "which images are mirrored, on the host",
    "verify": "the draws of verify",
}


def number(name: str) -> int:
    """Return the number, below 2**32, that is folded into a key for a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def root(seed: int) -> Array:
    """Return the key of a seed, shape (); for draws use `stream`."""
    return jax.random.key(seed, impl="threefry2x32")


def stream(seed: int, purpose: str) -> Array:
    """Return the key of a seed for one purpose of STREAMS, shape (): fold_in(root(seed), number(purpose))."""
    return jax.random.fold_in(root(seed), number(purpose))


def host_stream(seed: int, purpose: str, count: int) -> np.random.Generator:
    """Return NumPy's generator for draw number `count` of one purpose of a seed."""
    return np.random.default_rng([seed, number(purpose), count])


def check_seed(seed: Any, name: str = "seed") -> None:
    """Raise InputError for a seed outside 0 .. 2**32 - 1, which JAX would map to the key of another seed."""
    if not (is_whole(seed, 0) and seed < 2**32):
        raise InputError(f"{name} is {seed!r}; expected a whole number from 0 to 2**32 - 1.")


def examples(key: Array, indices: ArrayLike) -> Array:
    """Return one key for each example number: key of shape (), indices of shape (batch,) -> (batch,)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(indices, jnp.uint32))


def fold(keys: Array, data: ArrayLike | str) -> Array:
    """Fold one integer, or one name, into each key of `keys`, shape (batch,)."""
    data = number(data) if isinstance(data, str) else data
    return jax.vmap(jax.random.fold_in, (0, None))(keys, jnp.asarray(data, jnp.uint32))


def draw(distribution: Callable[..., Array], keys: Array, shape: tuple[int, ...], **options: Any) -> Array:
    """Return `distribution(key, shape=shape)` of jax.random for each key: (batch,) -> (batch, *shape)."""
    return jax.vmap(lambda key: distribution(key, shape=shape, **options))(keys)


def halves_of_words(keys: Array, shape: tuple[int, ...]) -> Array:
    """Return random bits, uint16, one example for each key: (batch,) -> (batch, *shape).

    Each evaluation of threefry gives two words, and each word gives two numbers, so that a number costs a quarter of
    its cost in jax.random.bits.
    """
    size = math.prod(shape)
    count = jnp.arange((size + 1) // 2, dtype=jnp.uint32)
    words = jax.vmap(lambda key: threefry_2x32(jax.random.key_data(key), count))(keys)
    low, high = words.astype(jnp.uint16), (words >> 16).astype(jnp.uint16)
    return jnp.concatenate([low, high], axis=1)[:, :size].reshape(-1, *shape)


def normal(keys: Array, shape: tuple[int, ...], dtype: DTypeLike = float) -> Array:
    """Return standard normal draws, one example for each key: (batch,) -> (batch, *shape)."""
    return draw(jax.random.normal, keys, shape, dtype=dtype)
