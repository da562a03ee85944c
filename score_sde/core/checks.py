"""Whole numbers, as every room checks them."""

from __future__ import annotations

import operator
from typing import Any

from score_sde.core.errors import InputError


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number of at least `least`; 2.0 is not, numpy's integers are."""
    try:
        return operator.index(value) >= least
    except TypeError:
        return False


def require_whole(name: str, value: Any, least: int) -> None:
    """Raise InputError, naming the value, where it is not a whole number of at least `least`."""
    if not is_whole(value, least):
        raise InputError(f"{name} is {value!r}; expected a whole number, at least {least}.")
