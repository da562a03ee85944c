"""This module applies jax.jit to functions whose first argument is a module that also holds names and callables."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.core.arrays import is_concrete

_Spread = tuple[Mesh, Any]  # a mesh, and the mesh axes that split the rows


def _spread_of(rows: Any) -> _Spread | None:
    """Return the mesh and axes that split the rows; None for one device, for traced arrays, and for unsplit rows."""
    for leaf in jax.tree.leaves(rows):
        if not (isinstance(leaf, jax.Array) and is_concrete(leaf) and isinstance(leaf.sharding, NamedSharding)):
            continue
        axes = (*leaf.sharding.spec, None)[0]
        if axes is not None and len(leaf.sharding.device_set) > 1:
            mesh: Any = leaf.sharding.mesh
            return mesh, axes
    return None


def _on_all(leaf: Any, mesh: Mesh) -> Any:
    """Return an array with a copy on every device of a mesh, such as the weights of a guide beside a placed model."""
    if not (isinstance(leaf, jax.Array) and is_concrete(leaf)) or leaf.sharding.device_set == set(mesh.devices.flat):
        return leaf
    return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))


def _is_dynamic(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex)


def module_jit(
    function: Callable[..., Any], static_argnames: tuple[str, ...] = (), rows: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """Return jax.jit of `function(module, ...)`, where the arrays and floats of the module are arguments.

    The other leaves of the module (names, callables, integers, flags) are static. So another set of
    weights, or another beta_max, needs no compilation, and the program contains no weights. The module
    is the first positional argument; the arguments named in `static_argnames` are passed by keyword.

    Args:
        function: the function to compile.
        static_argnames: names of its static arguments.
        rows: positions, from 0 after the module, of the arguments that have one row for each example; every array of
            the result has one row for each example. If these rows are spread over devices, each device runs the
            function on its own rows without communication: no loop waits for the examples of another device.
    """

    @functools.partial(jax.jit, static_argnames=("treedef_", "fixed_", "spread_", *static_argnames))
    def compiled(
        dynamic: list[Any], *args: Any, treedef_: Any, fixed_: tuple[Any, ...], spread_: _Spread | None, **kwargs: Any
    ) -> Any:
        def on_rows(dynamic: list[Any], *args: Any) -> Any:
            remaining = iter(dynamic)
            leaves = [next(remaining) if known is None else known[0] for known in fixed_]
            return function(jax.tree.unflatten(treedef_, leaves), *args, **kwargs)

        if spread_ is None:
            return on_rows(dynamic, *args)
        mesh, axes = spread_
        split, whole = PartitionSpec(axes), PartitionSpec()
        specs = (whole, *(split if place in rows else whole for place in range(len(args))))
        return jax.shard_map(on_rows, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(dynamic, *args)

    @functools.wraps(function)
    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        leaves, treedef = jax.tree.flatten(module)
        dynamic = [leaf for leaf in leaves if _is_dynamic(leaf)]
        fixed = tuple(None if _is_dynamic(leaf) else (leaf,) for leaf in leaves)
        spread = _spread_of([args[place] for place in rows])
        if spread is not None:
            dynamic = [_on_all(leaf, spread[0]) for leaf in dynamic]
        return compiled(dynamic, *args, treedef_=treedef, fixed_=fixed, spread_=spread, **kwargs)

    return call
