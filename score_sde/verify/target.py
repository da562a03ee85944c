"""This module imports the object that a path 'package.module:Name' names."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_sde import config, inverse, sampling, sde
from score_sde.core.errors import InputError
from score_sde.denoisers import Guide, guidance, parametrization
from score_sde.verify import laws

KINDS: dict[str, tuple[Any, type]] = {
    "operator": (inverse, inverse.Operator),
    "guide": ((guidance, inverse), Guide),
    "variance": (inverse, inverse.Variance),
    "SDE": (sde, sde.SDE),
    "sampler": (sampling, sampling.Sampler),
    "corrector": (sampling, sampling.Corrector),
    "parametrization": (parametrization, parametrization.Parametrization),
}


def kind_of(thing: Any) -> str:
    """Return the kind of `thing`, a name of KINDS, such as 'SDE' or 'sampler'.

    Raises:
        InputError: for an object of another kind.
    """
    for kind, (_, base) in KINDS.items():
        if isinstance(thing, base):
            return kind
    raise InputError(
        f"{thing!r} is a {type(thing).__name__}; expected an SDE, a Sampler, a Corrector, a Parametrization, a Guide, "
        "an Operator or a Variance of score_sde, or a subclass of one."
    )


def resolve(path: str, arguments: Sequence[str] = ()) -> Any:
    """Return the object at 'package.module:Name'; for a class, an object made with arguments 'name=value'.

    A value is JSON, or otherwise text.

    Raises:
        InputError: for a path that cannot be imported, an object of another kind, or arguments that do not fit.
    """
    module, separator, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not (separator and module and name):
        raise InputError(f"{path!r} is not a path of the form package.module.Name, such as score_sde.sde.VP.")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{path!r} cannot be imported: {error}; check the name, and the working directory.") from error
    except Exception as error:  # the module may raise any error on import
        raise InputError(f"{path!r} cannot be imported: its module raises {type(error).__name__}: {error}") from error
    if not isinstance(found, type):
        if arguments:
            raise InputError(f"{path} is an object already; arguments ({', '.join(arguments)}) need a class.")
        return found
    if inspect.isabstract(found):
        raise InputError(f"{path} is abstract: give a subclass that defines its abstract methods.")
    for namespace, base in KINDS.values():
        if issubclass(found, base):
            return _made(found, namespace, dict(map(_argument, arguments)))
    return kind_of(found)


def _made(found: type, namespace: config.Namespace, arguments: dict[str, Any]) -> Any:
    context: list[Any] = []
    if issubclass(found, Guide):  # the guide is put around a known denoiser
        context.append(laws.model_of(sde.VP(), laws.default_mixture()))
        if issubclass(found, inverse.Posterior):
            # The checks have an operator of their own.
            arguments = {"operator": inverse.Linear(np.array([[1.0, 0.5]])), "noise_std": 0.3} | arguments
    try:
        return config.construct(found, namespace, arguments, *context)
    except InputError:
        raise
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "no arguments"
        raise InputError(f"{found.__name__} with {given} raises {type(error).__name__}: {error}") from error


def _argument(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not (separator and name.isidentifier()) or name == "name":
        raise InputError(f"{text!r} is not an argument; expected name=value, such as beta_max=15.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
