"""This module reads a published checkpoint of either format into dictionaries of arrays, by the file's names."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers import msgpack_file, torch_file
from score_sde.readers.known import Stored
from score_sde.readers.refusal import UNFORESEEN, Refused, other_kind, shown

Arrays = dict[str, np.ndarray]

# Names of wrappers of a network in a file; a wrapper is not part of the network.
_WRAPPERS = ("module", "model", "net", "network", "score_model", "_orig_mod", "ema_model", "unet")


@dataclasses.dataclass(frozen=True, repr=False)
class Weights:
    """`Weights` holds the content of a file; its printed form is a table of the tensors.

    Attributes:
        path: path of the file.
        format: 'torch' for files of the PyTorch port, 'flax' for files of the original.
        sha256: SHA-256 of the file, in hexadecimal.
        params: parameters of the network.
        ema: moving average of the parameters, in the port without untrained parameters; None if missing.
        moments: Adam's first and second moments, with the names of `ema`; None if missing.
        adam_step: number of updates in the moments.
        step: training steps; None if missing.
        sigmas: the port's table of noise levels, from the most noise; None if missing.
    """

    path: pathlib.Path
    format: str
    sha256: str
    params: Arrays
    ema: Arrays | None = None
    moments: tuple[Arrays, Arrays] | None = None
    adam_step: int = 0
    step: int | None = None
    sigmas: np.ndarray | None = None

    def __repr__(self) -> str:
        rows = [(name, str(array.shape), str(array.dtype)) for name, array in self.params.items()]
        wide = [max(len(row[column]) for row in rows) for column in range(2)] if rows else [0, 0]
        table = [f"  {name:<{wide[0]}}  {shape:<{wide[1]}}  {dtype}" for name, shape, dtype in rows]
        count = sum(array.size for array in self.params.values())
        extra = [word for word, there in (("a moving average", self.ema), ("Adam's moments", self.moments)) if there]
        step = "no step" if self.step is None else f"step {self.step:,}"
        head = f"{self.path.name}: {self.format}, {step}, {len(rows)} tensors of {count:,} numbers"
        return "\n".join([head + "".join(f", {word}" for word in extra), *table])


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a .pth file of score_sde_pytorch, or a msgpack checkpoint of score_sde (2021).

    Nothing in the file is executed. A file with only parameters (a state dict or a parameter tree) is accepted.

    Raises:
        InputError: if the file cannot be read, with the reason or with the name that the file asked for.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not start:
            raise Refused("it is empty")
        if what := other_kind(start):
            raise Refused(what)
        if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
            with torch_file.read(path) as opened:
                return _from_torch(opened, path, sha256)
        return _from_flax(msgpack_file.read(path), path, sha256)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected a file of weights.") from error
    except Refused as error:
        raise InputError(
            f"{path} is not read: {error}. Expected a .pth file, or a msgpack checkpoint of flax."
        ) from error
    except UNFORESEEN as error:
        raise InputError(f"{path} is not read: it is damaged ({type(error).__name__}: {shown(error)}).") from error


def _from_torch(file: torch_file.TorchFile, path: pathlib.Path, sha256: str) -> Weights:
    value = file.value
    if not isinstance(value, dict):
        raise Refused("it holds no dictionary")
    state = value.get("model", value.get("state_dict", value))
    if not isinstance(state, dict) or not state or not all(isinstance(v, Stored) for v in state.values()):
        raise Refused(f"it has no weights under 'model'; it has {_listed(value)}")
    model = _named(file, state)
    sigmas = model.pop("sigmas", None)
    if sigmas is not None and (sigmas.ndim != 1 or not jnp.issubdtype(sigmas.dtype, jnp.floating)):
        raise Refused("its sigmas are not a table of noise levels")
    # Only the Fourier frequencies are not trained: they are a vector named W, and every other W is a matrix.
    trained = [name for name, array in model.items() if not (name.endswith(".W") and array.ndim == 1)]
    averages = _entry(value, "ema", dict).get("shadow_params")
    by_name = _average_by_name(value)
    ema = None
    if averages is None and by_name:
        ema = {name: array for name, array in _named(file, by_name).items() if name in trained}
        if set(ema) != set(trained):
            missing = next(name for name in trained if name not in ema)
            raise Refused(f"its moving average by name has no {shown(missing)}, which the model has")
    if averages is not None:
        if not isinstance(averages, list) or not all(isinstance(each, Stored) for each in averages):
            raise Refused("its ema.shadow_params is not a list of tensors")
        if len(averages) != len(trained):
            raise Refused(
                f"its moving average has {len(averages)} tensors; expected {len(trained)}, as many as the model trains"
            )
        ema = {name: file.array(stored) for name, stored in zip(trained, averages, strict=True)}
    moments, adam_step = _torch_moments(file, _entry(value, "optimizer", dict), list(model), trained)
    return Weights(path, "torch", sha256, model, ema, moments, adam_step, _whole(value.get("step"), file), sigmas)


def _named(file: torch_file.TorchFile, state: Mapping[Any, Any]) -> Arrays:
    """Return the tensors by their names in the network, without the prefixes of wrappers."""
    named = {str(name): file.array(stored) for name, stored in state.items()}
    while len(named) > 1:
        first = {name.partition(".")[0] for name in named}
        if len(first) != 1 or next(iter(first)) not in _WRAPPERS:
            break
        named = {name.partition(".")[2]: array for name, array in named.items()}
    stripped = {name.removeprefix("module."): array for name, array in named.items()}
    if len(stripped) != len(state):
        raise Refused("two of its tensors have the same name")
    return stripped


def _average_by_name(value: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """Return a moving average that is stored as a state dict under a usual name; None if missing."""
    for name in ("ema", "model_ema", "ema_model", "ema_state_dict"):
        entry = _entry(value, name, dict)
        for average in (entry, *(_entry(entry, inner, dict) for inner in ("shadow", "state_dict", "module", "model"))):
            if average and all(isinstance(part, Stored) for part in average.values()):
                return average
    return None


def _torch_moments(
    file: torch_file.TorchFile, optimizer: dict[str, Any], names: list[str], trained: list[str]
) -> tuple[tuple[Arrays, Arrays] | None, int]:
    state = _entry(optimizer, "state", dict)
    if not state:
        return None, 0
    by_name = {names[i]: each for i, each in state.items() if isinstance(i, int) and 0 <= i < len(names)}
    if not set(by_name) <= set(trained) or len(by_name) != len(state):
        raise Refused(f"its optimizer has the state of {len(state)} tensors, some of which the model does not train")
    found: tuple[Arrays, Arrays] = ({}, {})
    steps = set()
    for name, each in by_name.items():
        for kind, into in zip(("exp_avg", "exp_avg_sq"), found, strict=True):
            if not isinstance(each, dict) or not isinstance(each.get(kind), Stored):
                raise Refused("its optimizer is not Adam")
            into[name] = file.array(each[kind])
        steps.add(_whole(each.get("step"), file))
    if len(steps) != 1 or None in steps:
        raise Refused("its optimizer has no single number of steps")
    return found, steps.pop() or 0


def _from_flax(value: Any, path: pathlib.Path, sha256: str) -> Weights:
    if not isinstance(value, dict):
        raise Refused("it is neither a file of PyTorch nor one of flax")
    optimizer = _entry(value, "optimizer", dict)
    tree = optimizer.get("target", value.get("params", value))
    params = _flat(tree)
    if not params or any(array.ndim and not array.size for array in params.values()):
        raise Refused(f"it has no weights under 'optimizer/target'; it has {_listed(value)}")
    ema = _flat(value["params_ema"]) if "params_ema" in value else None
    state = _entry(optimizer, "state", dict)
    moments, adam_step = None, 0
    if "param_states" in state:
        each = _flat(state["param_states"])
        kinds = ("/grad_ema", "/grad_sq_ema")
        found = [{k.removesuffix(kind): v for k, v in each.items() if k.endswith(kind)} for kind in kinds]
        if len(found[0]) + len(found[1]) != len(each):
            raise Refused("its optimizer is not Adam")
        moments, adam_step = (found[0], found[1]), _whole(state.get("step")) or 0
    return Weights(path, "flax", sha256, params, ema, moments, adam_step, _whole(value.get("step")))


def _flat(tree: Any, prefix: str = "") -> Arrays:
    """Return {'Conv_0/kernel': array, ...}; empty if `tree` is not a tree of arrays."""
    if not isinstance(tree, dict):
        return {}
    found: Arrays = {}
    for name, value in tree.items():
        inner = {prefix + name: value} if isinstance(value, np.ndarray) else _flat(value, f"{prefix}{name}/")
        if found.keys() & inner.keys() or "/" in name:
            raise Refused("two of its tensors have the same name")
        found |= inner
    return found


def _entry(value: Mapping[Any, Any], name: str, kind: type) -> Any:
    found = value.get(name)
    return found if isinstance(found, kind) else kind()


def _whole(value: Any, file: torch_file.TorchFile | None = None) -> int | None:
    """Return a count, which may be stored as an array of one number; None if the value is not a count."""
    if isinstance(value, Stored) and file is not None and value.shape in ((), (1,)):
        value = file.array(value)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _listed(value: Mapping[Any, Any]) -> str:
    return shown(", ".join(str(name) for name in list(value)[:6]) or "nothing")
