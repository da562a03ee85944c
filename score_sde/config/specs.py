"""This module builds objects from specs: dict(name='VP', beta_max=10.) in namespace `sde` is sde.VP(beta_max=10.)."""

from __future__ import annotations

import difflib
import importlib
import inspect
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from score_sde.config.files import to_dict
from score_sde.core.errors import InputError

Namespace = ModuleType | tuple[ModuleType, ...]  # several modules offer their names together


def names(namespace: Namespace, base: type | None = None) -> list[str]:
    """Return the names that a config may use: the concrete subclasses of `base`, or without `base` all callables."""
    if isinstance(namespace, tuple):
        return sorted({name for module in namespace for name in names(module, base)})
    public = getattr(namespace, "__all__", None) or [name for name in vars(namespace) if not name.startswith("_")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # access to an old name of a library warns
        values = {name: getattr(namespace, name) for name in public}
    return sorted(name for name, value in values.items() if _is_offered(value, base))


def _is_offered(value: Any, base: type | None) -> bool:
    fits = callable(value) if base is None else isinstance(value, type) and issubclass(value, base)
    return fits and not inspect.isabstract(value)


def lookup(namespace: Namespace, name: str, base: type | None = None, offered: Sequence[str] | None = None) -> Any:
    """Return the class or function called `name` in the namespace, or a subclass of `base` by its dotted path.

    A dotted path, such as 'mypackage.mymodule.MySDE', must name a subclass of `base`, so that a
    config from another source cannot call any function. `offered` restricts the namespace.

    Raises:
        InputError: for an unknown name; the message lists the known names.
    """
    known = names(namespace, base) if offered is None else sorted(offered)
    modules = namespace if isinstance(namespace, tuple) else (namespace,)
    if isinstance(name, str) and name in known:
        return next(getattr(module, name) for module in modules if hasattr(module, name))
    if isinstance(name, str) and ("." in name or ":" in name) and base is not None:
        return _dotted(name, base)
    if len(known) > 40:  # for a whole library, similar names help more than the full list
        known = difflib.get_close_matches(str(name), known, n=8, cutoff=0.4) or known[:8]
    offering = next((module for module in modules if names(module, base)), modules[0])
    where = offering.__name__.removeprefix("score_sde.")
    hint = " (or the dotted path of your own class)" if base is not None else ""
    raise InputError(f"{where} has no {name!r}; expected one of {', '.join(known)}{hint}.")


def _dotted(path: str, base: type) -> Any:
    name, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a module of the user may raise any error
        away = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        frames = traceback.extract_tb(error.__traceback__)
        where = "" if away or not frames else f" at {frames[-1].filename}:{frames[-1].lineno}"
        hint = "; is its package installed, or its folder in PYTHONPATH?" if away else "."
        raise InputError(f"{path!r} cannot be imported: {type(error).__name__}{where}: {error}{hint}") from error
    named = getattr(module, attribute, None)
    if named is None:
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise InputError(f"{path!r} cannot be imported: {name} ({module.__file__}) has no {attribute!r}{hint}")
    if not (isinstance(named, type) and issubclass(named, base)):
        raise InputError(f"{path!r} is not a subclass of {base.__name__}; expected the dotted path of a subclass.")
    return named


def build(namespace: Namespace, spec: Mapping[str, Any], *args: Any, base: type | None = None, **context: Any) -> Any:
    """Return the object that a spec names, made with the other entries of the spec as keyword arguments.

    An entry that is a spec itself, such as the predictor of dict(name='PredictorCorrector',
    predictor=dict(name='DDIM'), corrector=None), is built too, as an object of the class that the constructor's
    annotation names.

    Args:
        namespace: the module, or the modules, in which the name is looked up.
        spec: a mapping with 'name'; its other entries are arguments.
        *args: positional arguments, before all others.
        base: the base class of a class that is named by its dotted path.
        **context: arguments that the spec does not state, such as a network's `shape` from the data.

    Raises:
        InputError: for an unknown name, or for arguments that do not fit; the message lists the valid arguments.
    """
    arguments: dict[str, Any] = to_dict(spec)
    if not (isinstance(arguments, Mapping) and isinstance(arguments.get("name"), str)):
        raise InputError(f"The spec {arguments!r} has no 'name'; expected one of {', '.join(names(namespace, base))}.")
    return construct(lookup(namespace, arguments.pop("name"), base), namespace, arguments, *args, **context)


def construct(
    constructor: Callable[..., Any], namespace: Namespace, arguments: dict[str, Any], *args: Any, **context: Any
) -> Any:
    """Call a constructor with arguments that may be specs, and return its object; raise the same errors as `build`."""
    signature = inspect.signature(constructor)
    try:
        signature.bind(*args, **arguments, **context)
    except TypeError as error:
        raise InputError(_misfit(constructor.__name__, signature, len(args), context, arguments, error)) from error
    built = {name: _built(constructor, namespace, name, value) for name, value in arguments.items()}
    try:
        return constructor(*args, **built, **context)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{constructor.__name__} cannot be built from {arguments} ({type(error).__name__}): {error}."
        ) from error


def _built(constructor: Callable[..., Any], namespace: Namespace, argument: str, value: Any) -> Any:
    """Return the value of an argument; build a spec if the annotation names one class, with or without None."""
    if not (isinstance(value, dict) and "name" in value):
        return value
    annotation = _annotation(constructor, argument)
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    origins = [get_origin(part) or part for part in parts]
    if any(isinstance(origin, type) and origin is not object and issubclass(dict, origin) for origin in origins):
        return value  # the argument is a mapping
    classes = [part for part in parts if isinstance(part, type) and part is not NoneType]
    if len(classes) != 1 or classes[0].__module__ == "builtins":
        raise InputError(f"{constructor.__name__}: {argument} is a spec; expected a plain value.")
    base = classes[0]
    if not names(namespace, base):  # such as a sampler of an evaluation: use the package of the base class
        namespace = importlib.import_module(base.__module__.rpartition(".")[0] or base.__module__)
    return build(namespace, value, base=base)


def _annotation(constructor: Callable[..., Any], argument: str) -> Any:
    """Return the annotation of an argument, or None if it cannot be read."""
    # The fields of a dataclass may be annotated in another module than its own constructor.
    of_class = isinstance(constructor, type)
    for source in [getattr(constructor, "__init__", None), constructor] if of_class else [constructor]:
        try:
            annotation = get_type_hints(source).get(argument)
        except (NameError, TypeError):  # the annotation has a name that only a type checker imports
            continue
        if annotation is not None:
            return annotation
    return None


def spec_of(thing: Any, namespace: ModuleType, base: type, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Return the spec from which `build` makes an object: its name or dotted path, and its constructor's arguments.

    Args:
        thing: the object. It has an attribute for each argument of its constructor, or its attribute `arguments`
            holds the arguments as pairs.
        namespace: the namespace in which its class is looked up.
        base: the base class of its class.
        skip: names of arguments that the spec does not state.

    Raises:
        InputError: for an object that no spec can describe.
    """
    if isinstance(thing, type) or not isinstance(thing, base):
        what = f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"
        raise InputError(f"{what} was given; expected a {base.__name__}, such as {names(namespace, base)[0]}(...).")
    kind = type(thing)
    own = getattr(namespace, kind.__name__, None) is not kind
    if own and "<locals>" in kind.__qualname__:
        raise InputError(f"{kind.__qualname__} is defined inside a function; expected a class of a module.")
    stated = dict(getattr(thing, "arguments", ()))
    spec: dict[str, Any] = {"name": f"{kind.__module__}.{kind.__qualname__}" if own else kind.__name__}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in skip or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(thing, name) and name not in stated:
            raise InputError(
                f"A {kind.__name__} has no attribute for its argument {name}, so that no config can describe it: add "
                "an attribute of that name."
            )
        value = _plain(stated.get(name, getattr(thing, name, None)), namespace)
        if parameter.default is parameter.empty or value != _plain(parameter.default, namespace):
            spec[name] = value
    return spec


def _plain(value: Any, namespace: ModuleType) -> Any:
    """Return a value as a config stores it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(_plain(part, namespace) for part in value)
    if isinstance(value, Mapping):
        return {str(name): _plain(part, namespace) for name, part in value.items()}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _plain(value.tolist(), namespace)
    if isinstance(value, type) or callable(value) or not hasattr(value, "__dict__"):
        raise InputError(f"{value!r} cannot be kept in a config; expected numbers, text, or objects made of them.")
    return spec_of(value, namespace, type(value))


def takes(namespace: Namespace, spec: Mapping[str, Any], argument: str, base: type | None = None) -> bool:
    """Return whether the constructor that a spec names takes an argument of this name."""
    constructor = lookup(namespace, to_dict(spec).get("name"), base)
    return argument in inspect.signature(constructor).parameters


def rule(namespace: ModuleType, spec: str | Mapping[str, Any], base: type) -> Any:
    """Return a function that a config names, such as 'unit', or builds, such as dict(name='MinSNR', gamma=5.).

    A class of the user's own is a subclass of `base`, named by its dotted path.
    """
    arguments = to_dict({"name": spec} if isinstance(spec, str) else spec)
    if not isinstance(arguments, Mapping):
        raise InputError(f"A rule is {spec!r}; expected one of {', '.join(names(namespace))}, or dict(name=..., ...).")
    named = lookup(namespace, str(arguments.get("name")), base, offered=names(namespace))
    if isinstance(named, type):
        return construct(named, namespace, {key: value for key, value in arguments.items() if key != "name"})
    if len(arguments) > 1:
        left_over = ", ".join(name for name in arguments if name != "name")
        raise InputError(f"{arguments['name']}: no argument {left_over}; it takes no arguments.")
    return named


def _misfit(
    name: str,
    signature: inspect.Signature,
    positional: int,
    context: Mapping[str, Any],
    arguments: Mapping[str, Any],
    error: TypeError,
) -> str:
    """Return a message with the reason why arguments do not fit a constructor, and with the valid arguments."""
    takes = [p for p in list(signature.parameters.values())[positional:] if p.name not in context]
    left_over = [argument for argument in arguments if argument not in {p.name for p in takes}]
    wrong = f"no argument {', '.join(left_over)} (an argument of another class?)" if left_over else str(error)
    shown = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in takes)
    return f"{name}: {wrong}; it takes {shown or 'no arguments'}."
