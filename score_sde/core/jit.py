"""jax.jit for functions whose first argument is a module that also holds names and callables."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def _is_dynamic(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex)


def module_jit(function: Callable[..., Any], static_argnames: tuple[str, ...] = ()) -> Callable[..., Any]:
    """jax.jit of `function(module, ...)` in which the module's arrays and floats are arguments.

    Its other leaves (names, callables, integers, flags) are static. So another set of weights, or
    another beta_max, compiles nothing, and no weight is baked into the program. The module comes
    first and by position; the arguments named in `static_argnames` go by keyword.
    """

    @functools.partial(jax.jit, static_argnames=("treedef_", "fixed_", *static_argnames))
    def compiled(dynamic: list[Any], *args: Any, treedef_: Any, fixed_: tuple[Any, ...], **kwargs: Any) -> Any:
        remaining = iter(dynamic)
        leaves = [next(remaining) if known is None else known[0] for known in fixed_]
        return function(jax.tree.unflatten(treedef_, leaves), *args, **kwargs)

    @functools.wraps(function)
    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        leaves, treedef = jax.tree.flatten(module)
        dynamic = [leaf for leaf in leaves if _is_dynamic(leaf)]
        fixed = tuple(None if _is_dynamic(leaf) else (leaf,) for leaf in leaves)
        return compiled(dynamic, *args, treedef_=treedef, fixed_=fixed, **kwargs)

    return call
