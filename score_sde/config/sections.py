"""This module defines the sections of a config and their defaults; a config file states only what differs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import ml_collections

from score_sde.config.files import to_dict
from score_sde.config.text import read_arguments, read_specs, read_value, write_specs
from score_sde.core.checks import AUTO
from score_sde.core.errors import InputError
from score_sde.core.precision import check_precision

VERSION = 2  # of configs and workdirs; configs and workdirs of score_sde 0.1 have no version

# An entry whose default is a dictionary with a name is a spec: any other arguments may be given with the name.
DEFAULTS: dict[str, Any] = dict(
    version=VERSION,
    seed=0,
    data=dict(name=None, batch_size=64, flip=False, given=(), conditions="", drop={}),
    sde=dict(name="VP"),
    parametrization=dict(name="Noise"),
    network=dict(name=None),
    objective=dict(name="Denoising"),
    optimizer=dict(name="adam", schedule=dict(name="constant_schedule", value=1e-3), clip=1.0, groups={}),
    averages=dict(ema=dict(name="WarmedUp", decay=0.999)),
    train=dict(
        start_from="",
        steps=10_000,
        log_every=100,
        eval_every=1000,
        sample_every=1000,
        measure="",
        measure_every=0,
        checkpoint_every=1000,
        fused=1,
        microbatches=1,
        precision="default",
        keep=dict(last=1, every=0),
    ),
    sample=dict(
        sampler=dict(name="Heun"),
        grid=dict(name="default", n=40),
        n=64,
        seed=0,
        batch_size=64,
        denoise=True,
        guidance="",
        clip=True,
        cond="",
        precision="default",
        checkpoints="newest",
    ),
    eval=dict(what="HeldOutLoss", batch_size=64, seed=0, precision="highest", checkpoints="newest"),
    edit=dict(
        what="",
        input="",
        n=4,
        seed=0,
        batch_size=16,
        sampler="",
        grid="default(n=40)",
        guidance="",
        clip=True,
        cond="",
        precision="default",
    ),
    parallel="jit",
)
# These entries are lists of specs. They are stored as text, so that a flag can give another list.
SPEC_LISTS = ("data.conditions", "sample.guidance", "train.measure", "eval.what", "edit.what", "edit.guidance")
# A config chooses the names in these dictionaries. The values here are examples for messages.
_OPEN = {
    "data.drop": "dict(label=0.1)",
    "optimizer.groups": "dict(network=dict(name='sgd'))",
    "averages": "dict(ema=dict(name='WarmedUp', decay=0.999))",
}

# These entries may change between training and use of a model; all other entries determine what its weights mean.
NOT_OF_THE_MODEL = (
    *(
        "version",
        "seed",
        "data.dir",
        "data.path",
        "data.batch_size",
        "data.flip",
        "data.drop",
        "optimizer",
        "averages",
        "train",
    ),
    *("sample", "eval", "edit", "parallel", "network.dtype", "network.remat"),
)
# These entries may change when a run resumes. With a change of another entry it would be neither the old nor a new run.
NOT_OF_THE_RUN = (
    "data.dir",
    "data.path",
    "train",
    "sample",
    "eval",
    "edit",
    "parallel",
    "network.dtype",
    "network.remat",
)


def complete(config: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Return a config with every entry: the values that it states, and the defaults for all other entries.

    Raises:
        InputError: for an entry that no job reads (the message has the nearest name), for a missing data.name or
            network.name, and for a config of another version.
    """
    given = to_dict(config)
    if given.get("version", VERSION) != VERSION:
        raise InputError(f"version is {given['version']!r}; expected {VERSION}, the version of score_sde 0.2 configs.")
    merged = _merged(given, DEFAULTS, "")
    for name in ("data.name", "network.name"):
        section, entry = name.split(".")
        if not isinstance(merged[section].get(entry), str):
            raise InputError(f"The config has no {name}; configs/digits.py is an example of a config.")
    _check_kinds(merged)
    for name in SPEC_LISTS:
        section, entry = name.split(".")
        if merged[section][entry] == AUTO:
            continue
        merged[section][entry] = write_specs(read_specs(name, merged[section][entry]))
    for section in ("sample", "edit"):
        if not isinstance(merged[section]["cond"], str):
            raise InputError(f"{section}.cond is {merged[section]['cond']!r}; expected text, such as 'label=2'.")
        read_arguments(f"{section}.cond", merged[section]["cond"])
    return ml_collections.ConfigDict(merged)


def _merged(given: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return `given` merged over `defaults`, section by section."""
    section = prefix.removesuffix(".")
    if "name" in defaults and isinstance(given.get("name"), str) and given["name"] != defaults["name"]:
        # The default arguments belong to the default class. The entries that the jobs read exist for every class.
        defaults = {name: value for name, value in defaults.items() if section in _READ and name in _READ[section]}
    free = "name" in defaults or "name" in given or section in _OPEN
    merged = dict(defaults)
    for name, value in given.items():
        if name not in defaults and not free:
            raise InputError(_unknown(prefix + name))
        default = defaults.get(name)
        if isinstance(default, Mapping) and prefix + name not in _OPEN:
            if not isinstance(value, Mapping):
                raise InputError(f"{prefix}{name} is {value!r}; expected entries: {', '.join(default)}.")
            value = _merged(value, default, f"{prefix}{name}.")
        merged[name] = value
    return {name: to_dict(value) for name, value in merged.items()}


def _check_kinds(merged: Mapping[str, Any]) -> None:
    """Raise InputError for entries whose type is not the type that the jobs read."""
    for name in _OPEN:
        value: Any = merged
        for part in name.split("."):
            value = value[part]
        if not isinstance(value, Mapping):
            raise InputError(f"{name} is {value!r}; expected entries by name, such as {_OPEN[name]}.")
    given, clip = merged["data"]["given"], merged["optimizer"]["clip"]
    names = (given,) if isinstance(given, str) else given
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise InputError(f"data.given is {given!r}; expected names of conditions, such as ('label',).")
    for section in ("train", "sample", "eval", "edit"):
        check_precision(f"{section}.precision", merged[section]["precision"])
    start = merged["train"]["start_from"]
    if not isinstance(start, str):
        raise InputError(f"train.start_from is {start!r}; expected the folder of a trained workdir, or '' for none.")
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float)):
        raise InputError(f"optimizer.clip is {clip!r}; expected a number, or None for no clipping.")


# The jobs read these entries for every name; they are not arguments of the spec.
_READ = {
    "data": ("batch_size", "flip", "given", "conditions", "drop"),
    "optimizer": ("schedule", "clip", "groups"),
}


def arguments(config: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return the spec of a section, without the entries that the jobs read themselves."""
    return {name: value for name, value in to_dict(config)[section].items() if name not in _READ.get(section, ())}


def add_argument(config: ml_collections.ConfigDict, name: str, text: str) -> bool:
    """Set an argument of a spec if the config does not state it or states 'auto'; return whether it was set.

    Args:
        config: a complete config, which is changed.
        name: dotted name of the entry.
        text: a literal; other text is the value itself.

    Raises:
        InputError: for an entry that nothing reads.
    """
    *sections, entry = name.split(".")
    parent: Any = config
    for section in sections:
        parent = parent.get(section) if isinstance(parent, ml_collections.ConfigDict) else None
    if isinstance(parent, ml_collections.ConfigDict) and entry in parent:
        if parent[entry] != AUTO:
            return False
        with parent.ignore_type():
            parent[entry] = read_value(text)
        return True
    if not isinstance(parent, ml_collections.ConfigDict) or not ("name" in parent or ".".join(sections) in _OPEN):
        raise InputError(_unknown(name))
    parent[entry] = read_value(text)
    return True


# Entries that users look for under another name.
_MOVED = {
    "sample.steps": "sample.grid.n",
    "sample.cfg": "sample.guidance",
    "train.batch_size": "data.batch_size",
    "train.lr": "optimizer.schedule",
    "optimizer.lr": "optimizer.schedule",
    "optimizer.learning_rate": "optimizer.schedule",
}


def _unknown(name: str) -> str:
    known = _every_entry(DEFAULTS)
    # The hint is the same word in another section, or otherwise a similar name.
    moved = [entry for entry in known if entry.rpartition(".")[2] == name.rpartition(".")[2]]
    hint = [_MOVED[name]] if name in _MOVED else (moved or difflib.get_close_matches(name, known, n=1, cutoff=0.5))
    return f"The config has {name}, which nothing reads" + (f"; did you mean {hint[0]}?" if hint else ".")


def _every_entry(section: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all entries and sections."""
    found = []
    for name, value in section.items():
        found.append(prefix + name)
        if isinstance(value, Mapping):
            found += _every_entry(value, f"{prefix}{name}.")
    return found
