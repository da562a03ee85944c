"""Config files."""

from __future__ import annotations

import pathlib
import runpy
from collections.abc import Mapping

import ml_collections

from score_sde.config.sections import complete
from score_sde.core.errors import InputError


def read_file(address: str) -> ml_collections.ConfigDict:
    """The complete config that a config file makes: FILE or FILE:VARIANT, with FILE's get_config(variant).

    The file is Python and is executed: it is the user's own.

    Raises:
        InputError: for a file that is not there, that cannot be run, or that makes no config.
    """
    path, _, variant = address.partition(":")
    if not pathlib.Path(path).is_file():
        raise InputError(f"--config is {address!r}, and there is no file {path}; expected FILE or FILE:VARIANT.")
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
