"""This package handles configs: sections with defaults, specs that name classes, specs as text, and JSON."""

from score_sde.config.files import differences, flatten, from_json, to_dict, to_json
from score_sde.config.loading import read_file
from score_sde.config.sections import (
    AUTO,
    DEFAULTS,
    NOT_OF_THE_MODEL,
    NOT_OF_THE_RUN,
    VERSION,
    add_argument,
    arguments,
    complete,
)
from score_sde.config.specs import Namespace, build, construct, lookup, names, rule, spec_of, takes
from score_sde.config.text import read_arguments, read_specs, write_specs

__all__ = [
    "AUTO",
    "DEFAULTS",
    "NOT_OF_THE_MODEL",
    "NOT_OF_THE_RUN",
    "VERSION",
    "Namespace",
    "add_argument",
    "arguments",
    "build",
    "complete",
    "construct",
    "differences",
    "flatten",
    "from_json",
    "lookup",
    "names",
    "read_arguments",
    "read_file",
    "read_specs",
    "rule",
    "spec_of",
    "takes",
    "to_dict",
    "to_json",
    "write_specs",
]
