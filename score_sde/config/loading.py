"""This module reads config files."""

from __future__ import annotations

import pathlib
import runpy
from collections.abc import Mapping

import ml_collections

from score_sde.config.sections import complete
from score_sde.core.errors import InputError

_PACKAGED = pathlib.Path(__file__).parent.parent / "configs"


def packaged() -> list[str]:
    """Return the names of the configs that are part of the package."""
    return sorted(path.stem for path in _PACKAGED.glob("*.py") if "def get_config(" in path.read_text())


def _path(given: str) -> str:
    """Return the path of a config file: the given path if that file exists, otherwise that of a packaged config."""
    name = given.removeprefix("configs/").removesuffix(".py")
    is_packaged = not pathlib.Path(given).is_file() and name in packaged()
    return str(_PACKAGED / f"{name}.py") if is_packaged else given


def read_file(address: str) -> ml_collections.ConfigDict:
    """Return the complete config of FILE or FILE:VARIANT, from the function get_config(variant) in FILE.

    FILE is a path, or the name of a packaged config.

    The file is Python code of the user, and is executed.

    Raises:
        InputError: for a file that does not exist, that cannot be run, or that makes no config.
    """
    given, _, variant = address.partition(":")
    path = _path(given)
    if not pathlib.Path(path).is_file():
        raise InputError(
            f"--config is {address!r}, but there is no file {path}; expected FILE or FILE:VARIANT, or a config of the "
            f"package: {', '.join(packaged())}."
        )
    try:
        made = runpy.run_path(path)["get_config"](*([variant] if variant else []))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} makes no config: {type(error).__name__}: {' '.join(str(error).split())[:200]}."
        ) from error
    if not isinstance(made, Mapping | ml_collections.ConfigDict):
        raise InputError(
            f"get_config of {path} returns a {type(made).__name__}; expected a dictionary or a ConfigDict."
        )
    return complete(made)
