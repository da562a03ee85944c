"""This module defines the interface of a network: init(key) -> params, apply(params, x, label, cond)."""

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
    """A network is a function of parameters and inputs, together with a function that makes the parameters.

    To add a network, subclass `Network` and define `init` and `apply` in plain JAX, or subclass `ModuleNetwork` and
    define `module` in flax NNX. Declare settings as fields of a frozen dataclass, so that two networks with equal
    settings share one compiled program. A config passes `shape`, `conditions`, `levels` and `classes` to a constructor
    that takes them, and `outputs`. They are the shape of the model, the conditions that the config gives to the network
    (data.given), the number of levels of a chain, the number of classes of the condition `label`, and 2 for a
    parametrisation with a variance.

    Attributes:
        shape: shape of an example.
        conditions: conditions that the network reads, by name.
    """

    shape: tuple[int, ...]
    conditions: Mapping[str, Condition] = Conditions()

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Return new parameters, a plain dict of arrays, from a random key of shape ()."""

    @abc.abstractmethod
    def apply(
        self, params: Params, x: Array, time_label: Array, cond: Cond = None, *, keys: Array | None = None
    ) -> Array:
        """Return the output of the network.

        Args:
            params: parameters that `init` made, trained or not.
            x: array of shape (batch, *shape).
            time_label: array of shape (batch,), or (batch, k) if the parametrisation gives k numbers.
            cond: None, or conditions by name, as `conditions` declares them; cond['absent'] marks the examples without
                a condition (`score_sde.core.conditions.is_absent`). The network defines how it handles these examples.
            keys: None in evaluation; in training one random key per example, shape (batch,), for dropout.

        Returns:
            An array of shape (batch, *shape), with twice the channels, mean and variance, if `outputs` is 2; the logits
            of the classes, (batch, classes), of a classifier.
        """

    def traits(self, params: Params) -> Any:
        """Return what is special about each parameter: a tree like `params` with a `Trait` in place of every array."""
        return jax.tree.map(lambda _: Trait(), params)

    def remarks(self) -> tuple[str, ...]:
        """Return notes on the settings, such as a setting without effect; training prints them at the start."""
        return ()

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """Return the result of `apply`.

        Two networks with equal settings are equal; their bound methods `apply` are not.
        """
        return self.apply(*args, **kwargs)


# These settings change how a network is computed, not what its weights mean: a run may resume with other values.
COMPUTE_SETTINGS = ("dtype", "remat")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleNetwork(Network):
    """A `ModuleNetwork` computes its output with a flax NNX module, called as module(x, time_label, cond, keys).

    Attributes:
        dtype: 'float32' computes in the dtype of the input; 'bfloat16' casts parameters and input to bfloat16, and the
            output back. The stored parameters, their gradients and the time label stay in float32.
        remat: values that the gradient computes again instead of keeping: 'none' for no values; 'dots' for all but the
            outputs of convolutions and matrix products; 'full' for all values within a block.
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
        """Return the module, with parameters drawn from `rngs`; each call of rngs.params() returns a new random key."""

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
        """Return the traits that the variables of the module declare (`layers.special`)."""
        return _traits(self)

    def _cast(self, params: Params, dtype: Any) -> Params:
        """Return the parameters in another dtype, except the parameters that are declared to stay in float32."""

        def cast(leaf: Array, trait: Trait) -> Array:
            return leaf if trait.float32 or not jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(dtype)

        return jax.tree.map(cast, params, _traits(self))


def check_outputs(outputs: int) -> None:
    """Raise InputError unless a network has one output, or two with the variance."""
    if outputs not in (1, 2):
        raise InputError(f"outputs is {outputs!r}; expected 1, or 2 for a mean and a variance.")


class _KeyStream:
    """`_KeyStream` returns one random key after another, under any attribute name.

    nnx.Rngs counts on the device. Under a trace each count takes milliseconds: 10 s for 1,000 arrays.
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
    stream: Any = _KeyStream(key)  # modules use nothing else of nnx.Rngs
    return stream


@functools.lru_cache(maxsize=32)
def _graphdef(network: ModuleNetwork) -> Any:
    return nnx.split(nnx.eval_shape(lambda: network.module(_key_stream(keys_.stream(0, "init")))))[0]


@functools.lru_cache(maxsize=32)
def _traits(network: ModuleNetwork) -> Any:
    state = nnx.state(nnx.eval_shape(lambda: network.module(_key_stream(keys_.stream(0, "init")))), nnx.Param)
    declared = jax.tree.map(trait_of, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return nnx.to_pure_dict(declared)
