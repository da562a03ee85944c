"""A network as the rest of the library sees it: init(key) -> params, apply(params, x, label, cond)."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.networks.layers import POLICIES

Params = dict[str, Any]


class Network(abc.ABC):
    """A function of parameters, and how to make the parameters.

    To add one, subclass and define `init` and `apply` in plain JAX, or subclass ModuleNetwork and
    define `module` in flax NNX. Declare settings as a frozen dataclass does, so that two networks
    with equal settings share one compiled program. A network made by a config is also given
    `shape` and `num_classes`, which come from the data.
    """

    shape: tuple[int, ...]
    num_classes: int | None

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Fresh parameters, a plain dict of arrays, from a key of shape ()."""

    @abc.abstractmethod
    def apply(
        self, params: Params, x: Array, time_label: Array, cond: Any = None, *, keys: Array | None = None
    ) -> Array:
        """The network's output.

        Args:
            params: what `init` made, trained or not.
            x: shape (batch, *shape).
            time_label: shape (batch,).
            cond: None, or {'label': int32 (batch,)} with num_classes meaning none.
            keys: None in evaluation; in training one key per example, (batch,), for dropout.

        Returns:
            Shape of x.
        """

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """`apply`: unlike a bound method, a network equals another one with the same settings."""
        return self.apply(*args, **kwargs)


# How a network is computed, and not what its weights mean: a run may go on with other values of these.
COMPUTE_SETTINGS = ("dtype", "remat")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleNetwork(Network):
    """A network whose `module` is a flax NNX module called as module(x, time_label, cond, keys).

    Attributes:
        dtype: 'float32' computes in the input's own precision; 'bfloat16' casts parameters and input to it,
            and the output back. Parameters, their gradients and the time label stay in float32.
        remat: what the gradient computes again instead of keeping: 'none'; 'dots', all but the outputs of
            convolutions and matrix products; 'full', all within a block.
    """

    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self) -> None:
        for name, known in (("dtype", DTYPES), ("remat", tuple(POLICIES))):
            if getattr(self, name) not in known:
                raise InputError(f"network.{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}.")

    @abc.abstractmethod
    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        """The module, with parameters drawn from `rngs`: each rngs.params() is a new key."""

    def init(self, key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(self.module(_key_stream(key)), nnx.Param))

    def apply(
        self, params: Params, x: Array, time_label: Array, cond: Any = None, *, keys: Array | None = None
    ) -> Array:
        if self.dtype == "float32":
            return nnx.merge(_graphdef(self), params)(x, time_label, cond, keys)
        low = jnp.dtype(self.dtype)
        module = nnx.merge(_graphdef(self), _cast(params, low))
        return module(x.astype(low), time_label, cond, keys).astype(x.dtype)


class _KeyStream:
    """Keys one after another, by any name.

    nnx.Rngs counts on the device, which under a trace takes it milliseconds each: 10 s for 1,000 arrays.
    """

    def __init__(self, key: Array) -> None:
        self._key, self._count = key, itertools.count()

    def __call__(self) -> Array:
        return jax.random.fold_in(self._key, next(self._count))

    def __getattr__(self, name: str) -> _KeyStream:
        if name.startswith("_"):
            raise AttributeError(name)
        return self


def _key_stream(key: Array) -> nnx.Rngs:
    stream: Any = _KeyStream(key)  # all that modules ask of nnx.Rngs
    return stream


def _cast(params: Params, dtype: Any) -> Params:
    """The parameters in another precision, but for frequencies: an angle of 100 rad has no digit left in bfloat16."""

    def cast(path: tuple[Any, ...], leaf: Array) -> Array:
        kept = path[-1] == jax.tree_util.DictKey("frequencies") or not jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf if kept else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


@functools.lru_cache(maxsize=32)
def _graphdef(network: ModuleNetwork) -> Any:
    return nnx.split(nnx.eval_shape(lambda: network.module(_key_stream(keys_.root(0)))))[0]
