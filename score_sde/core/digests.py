"""This module computes digests of arrays."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np


def digest(tree: Any) -> str:
    """Return a BLAKE2b digest of the names, dtypes, shapes and bytes of a pytree's arrays, in hexadecimal."""
    total = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()
