"""A network as the rest of the library sees it: init(key) -> params, apply(params, x, label, cond)."""

from __future__ import annotations

import abc
import functools
from typing import Any

from flax import nnx

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array

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


class ModuleNetwork(Network):
    """A network whose `module` is a flax NNX module called as module(x, time_label, cond, keys)."""

    @abc.abstractmethod
    def module(self, rngs: nnx.Rngs) -> nnx.Module:
        """The module, with parameters drawn from `rngs`."""

    def init(self, key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(self.module(nnx.Rngs(key)), nnx.Param))

    def apply(
        self, params: Params, x: Array, time_label: Array, cond: Any = None, *, keys: Array | None = None
    ) -> Array:
        return nnx.merge(_graphdef(self), params)(x, time_label, cond, keys)


@functools.lru_cache(maxsize=32)
def _graphdef(network: ModuleNetwork) -> Any:
    return nnx.split(nnx.eval_shape(lambda: network.module(nnx.Rngs(keys_.root(0)))))[0]
