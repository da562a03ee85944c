"""This module reads and writes specs as text: "Likelihood(probes=2), FID(n=5000)" holds two specs.

The values are literals, and no text is executed.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.config.files import to_dict
from score_sde.core.errors import InputError

Spec = dict[str, Any]
_LONGEST = 10_000
_BAD = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


def read_specs(what: str, given: str | Mapping[str, Any] | Sequence[Any]) -> tuple[Spec, ...]:
    """Return the specs in a text, or in names, texts and dictionaries.

    Args:
        what: name of the entry, for messages.
        given: 'Likelihood(probes=2), FID(n=5000)', or a sequence of such texts and of dict(name=..., ...).

    Raises:
        InputError: if `given` is not a list of specs.
    """
    if isinstance(given, str):
        return _from_text(what, given)
    if isinstance(given, Mapping):
        given = (given,)
    if not isinstance(given, Sequence):
        raise InputError(f"{what} is {given!r}; expected text, such as 'Likelihood(probes=2)', or '' for nothing.")
    specs: list[Spec] = []
    for entry in given:
        if isinstance(entry, str):
            specs += _from_text(what, entry)
        elif isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            specs.append(to_dict(entry))
        else:
            raise InputError(f"{what} has {entry!r}; expected a name, or dict(name=..., ...).")
    return tuple(specs)


def write_specs(specs: Sequence[Mapping[str, Any]]) -> str:
    """Return specs as text that `read_specs` reads back."""
    return ", ".join(_written(spec) for spec in specs)


def read_arguments(what: str, text: str) -> dict[str, Any]:
    """Return {'label': 2, 'text': ('a', 'b')} for "label=2, text=['a', 'b']"; raise InputError for other text."""
    call = _parsed(what, f"_({text})", "name=VALUE, joined by commas, such as label=2", text)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise _unreadable(what, text, "name=VALUE, joined by commas, such as label=2")
    return _arguments(what, call, text)


def read_value(text: str) -> Any:
    """Return the value of a literal, with tuples for lists; return other text unchanged."""
    try:
        return to_dict(ast.literal_eval(text))
    except _BAD:
        return text


def _from_text(what: str, text: str) -> tuple[Spec, ...]:
    if not text.strip():
        return ()
    expected = "names with arguments, such as Likelihood(probes=2)"
    parsed = _parsed(what, f"[{text}\n]", expected, text)
    if not isinstance(parsed, ast.List):
        raise _unreadable(what, text, expected)
    return tuple(_spec(what, node, text) for node in parsed.elts)


def _parsed(what: str, source: str, expected: str, text: str) -> ast.expr:
    if len(source) > _LONGEST:
        raise InputError(f"{what} has {len(text)} characters; expected at most {_LONGEST}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's compiler may warn about the text
            return ast.parse(source, mode="eval").body
    except _BAD as error:
        raise _unreadable(what, text, expected) from error


def _spec(what: str, node: ast.expr, text: str) -> Spec:
    if isinstance(node, ast.Call):
        return {"name": _name(what, node.func, text)} | _arguments(what, node, text)
    return {"name": _name(what, node, text)}


def _name(what: str, node: ast.expr, text: str) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise _unreadable(what, text, "names with arguments, such as Likelihood(probes=2)")
    return ".".join([node.id, *reversed(parts)])


def _arguments(what: str, call: ast.Call, text: str) -> dict[str, Any]:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if call.args or None in named or len(named) < len(call.keywords):
        raise _unreadable(what, text, "arguments by name, each once, such as probes=2")
    return {str(name): _value(what, node, text) for name, node in named.items()}


def _value(what: str, node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        return _spec(what, node, text)
    try:
        return to_dict(ast.literal_eval(node))
    except _BAD as error:
        raise _unreadable(what, text, "numbers, text, None, True, False, tuples and lists as values") from error


def _unreadable(what: str, text: str, expected: str) -> InputError:
    return InputError(f"{what} is {text[:80]!r}; expected {expected}.")


def _written(spec: Mapping[str, Any], inner: bool = False) -> str:
    """Return a spec as text; a spec inside another spec always has brackets, which distinguish it from text."""
    arguments = [f"{name}={_value_written(value)}" for name, value in to_dict(spec).items() if name != "name"]
    return spec["name"] + (f"({', '.join(arguments)})" if arguments or inner else "")


def _value_written(value: Any) -> str:
    """Return a value as a literal that reads back as the same value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return _written(value, inner=True)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {_value_written(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value_written, value)) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_value_written(part)}, " for part in value) + ")"
    return repr(value).replace("inf", "1e999") if isinstance(value, float) else repr(value)
