"""From 'package.module:Name' to the thing that it names."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from score_sde import config, sampling, sde
from score_sde.core.errors import InputError
from score_sde.denoisers import parametrization

KINDS: dict[str, tuple[Any, type]] = {
    "SDE": (sde, sde.SDE),
    "sampler": (sampling, sampling.Sampler),
    "corrector": (sampling, sampling.Corrector),
    "parametrization": (parametrization, parametrization.Parametrization),
}


def kind_of(thing: Any) -> str:
    """'SDE', 'sampler', 'corrector' or 'parametrization'.

    Raises:
        InputError: for what is none of them.
    """
    for kind, (_, base) in KINDS.items():
        if isinstance(thing, base):
            return kind
    raise InputError(
        f"{thing!r} is a {type(thing).__name__}; expected an SDE, a Sampler, a Corrector or a Parametrization of "
        "score_sde, or a subclass of one."
    )


def resolve(path: str, arguments: Sequence[str] = ()) -> Any:
    """The thing at 'package.module:Name': an object as it is, a class made with arguments 'name=value' (JSON, or text).

    Raises:
        InputError: for a path that leads nowhere, or to something else, or for arguments that do not fit.
    """
    module, separator, name = path.partition(":")
    if not (separator and module and name):
        raise InputError(f"{path!r} is no path of the form package.module:Name, such as score_sde.sde:VP.")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{path!r} cannot be imported: {error}; is its folder the working directory?") from error
    except Exception as error:  # whatever the module does when it is imported
        raise InputError(f"{path!r} cannot be imported: its module raises {type(error).__name__}: {error}") from error
    if not isinstance(found, type):
        if arguments:
            raise InputError(f"{path} is an object already; arguments ({', '.join(arguments)}) are for a class.")
        return found
    if inspect.isabstract(found):
        raise InputError(f"{path} is abstract: give a subclass that defines what it leaves open.")
    for namespace, base in KINDS.values():
        if issubclass(found, base):
            return _made(found, namespace, dict(map(_argument, arguments)))
    return kind_of(found)


def _made(found: type, namespace: ModuleType, arguments: dict[str, Any]) -> Any:
    try:
        return config.construct(found, namespace, arguments)
    except InputError:
        raise
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "no arguments"
        raise InputError(f"{found.__name__} with {given} raises {type(error).__name__}: {error}") from error


def _argument(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not (separator and name.isidentifier()) or name == "name":
        raise InputError(f"{text!r} is no argument; expected name=value, such as beta_max=15.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
