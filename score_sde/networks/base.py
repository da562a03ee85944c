"""A network as the rest of the library sees it: init(key) -> params, apply(params, x, label, cond)."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.checks import check_types
from score_sde.core.conditions import Cond, Condition, Conditions
from score_sde.core.errors import InputError
from score_sde.networks.layers import POLICIES, Trait, trait_of

Params = dict[str, Any]


class Network(abc.ABC):
    """A function of parameters, and how to make the parameters.

    To add one, subclass and define `init` and `apply` in plain JAX, or subclass ModuleNetwork and
    define `module` in flax NNX. Declare settings as a frozen dataclass does, so that two networks
    with equal settings share one compiled program. A network made by a config is also given those of
    `shape`, `conditions` and `levels` that its constructor takes: the model's shape, the conditions that the config
    gives it (data.given), and the number of a chain's levels.

    Attributes:
        shape: of an example.
        conditions: the conditions that it reads, by name.
    """

    shape: tuple[int, ...]
    conditions: Mapping[str, Condition] = Conditions()

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Fresh parameters, a plain dict of arrays, from a key of shape ()."""

    @abc.abstractmethod
    def apply(
        self, params: Params, x: Array, time_label: Array, cond: Cond = None, *, keys: Array | None = None
    ) -> Array:
        """The network's output.

        Args:
            params: what `init` made, trained or not.
            x: shape (batch, *shape).
            time_label: shape (batch,), or (batch, k) where a parametrisation tells several numbers.
            cond: None, or conditions by name, as `conditions` declares them; cond['absent'] says which examples lack
                one (`score_sde.core.conditions.is_absent`), and the network has its own answer to that.
            keys: None in evaluation; in training one key per example, (batch,), for dropout.

        Returns:
            Shape (batch, *shape); more channels where the parametrisation reads more.
        """

    def traits(self, params: Params) -> Any:
        """What is special about each parameter: a `Trait` in the place of every array of `params`."""
        return jax.tree.map(lambda _: Trait(), params)

    def remarks(self) -> tuple[str, ...]:
        """What a user should know of the settings, such as one without effect; told when training begins."""
        return ()

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
        check_types(self)
        for name, known in (("dtype", DTYPES), ("remat", tuple(POLICIES))):
            if getattr(self, name) not in known:
                raise InputError(f"network.{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}.")

    @abc.abstractmethod
    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        """The module, with parameters drawn from `rngs`: each rngs.params() is a new key."""

    def init(self, key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(self.module(_key_stream(key)), nnx.Param))

    def apply(
        self, params: Params, x: Array, time_label: Array, cond: Cond = None, *, keys: Array | None = None
    ) -> Array:
        if self.dtype == "float32":
            return nnx.merge(_graphdef(self), params)(x, time_label, cond, keys)
        low = jnp.dtype(self.dtype)
        module = nnx.merge(_graphdef(self), self._cast(params, low))
        return module(x.astype(low), time_label, cond, keys).astype(x.dtype)

    def traits(self, params: Params) -> Any:
        """As the module's variables declare them (`layers.special`)."""
        return _traits(self)

    def _cast(self, params: Params, dtype: Any) -> Params:
        """The parameters in another precision, but for those that are declared to stay in float32."""

        def cast(leaf: Array, trait: Trait) -> Array:
            return leaf if trait.float32 or not jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(dtype)

        return jax.tree.map(cast, params, _traits(self))


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


@functools.lru_cache(maxsize=32)
def _graphdef(network: ModuleNetwork) -> Any:
    return nnx.split(nnx.eval_shape(lambda: network.module(_key_stream(keys_.stream(0, "init")))))[0]


@functools.lru_cache(maxsize=32)
def _traits(network: ModuleNetwork) -> Any:
    state = nnx.state(nnx.eval_shape(lambda: network.module(_key_stream(keys_.stream(0, "init")))), nnx.Param)
    declared = jax.tree.map(trait_of, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return nnx.to_pure_dict(declared)
