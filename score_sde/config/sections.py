"""The sections of a config and their defaults: a config file states what differs."""

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

VERSION = 2  # of configs and workdirs; those of score_sde 0.1 have none

# An entry whose default is a dictionary with a name is a spec: any other arguments may stand beside the name.
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
    parallel="jit",
)
# Entries that are lists of specs, kept as text, so that a flag may give another list.
SPEC_LISTS = ("data.conditions", "sample.guidance", "eval.what")
# Dictionaries by names that a config chooses.
_OPEN = {
    "data.drop": "dict(label=0.1)",
    "optimizer.groups": "dict(network=dict(name='sgd'))",
    "averages": "dict(ema=dict(name='WarmedUp', decay=0.999))",
}

# What may change between the training of a model and its use; all other entries say what its weights mean.
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
    *("sample", "eval", "parallel", "network.dtype", "network.remat"),
)
# What may change when a run goes on; with any other entry it would be neither the old run nor a new one.
NOT_OF_THE_RUN = ("data.dir", "data.path", "train", "sample", "eval", "parallel", "network.dtype", "network.remat")


def complete(config: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """A config with every entry: what it states, and the defaults for the rest.

    Raises:
        InputError: for an entry that no job reads, with the nearest name; for a missing data.name or network.name; and
            for a config of another version.
    """
    given = to_dict(config)
    if given.get("version", VERSION) != VERSION:
        raise InputError(f"version is {given['version']!r}; expected {VERSION}, that of configs of score_sde 0.2.")
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
    if not isinstance(merged["sample"]["cond"], str):
        raise InputError(f"sample.cond is {merged['sample']['cond']!r}; expected text, such as 'label=2'.")
    read_arguments("sample.cond", merged["sample"]["cond"])
    return ml_collections.ConfigDict(merged)


def _merged(given: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """`given` over `defaults`, section by section."""
    section = prefix.removesuffix(".")
    if "name" in defaults and isinstance(given.get("name"), str) and given["name"] != defaults["name"]:
        # The defaults of another class are not of this one; entries that the jobs read are of every one.
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
    """Refuse entries of another kind than the jobs read."""
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
    for section in ("train", "sample", "eval"):
        check_precision(f"{section}.precision", merged[section]["precision"])
    start = merged["train"]["start_from"]
    if not isinstance(start, str):
        raise InputError(f"train.start_from is {start!r}; expected the folder of a trained workdir, or '' for none.")
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float)):
        raise InputError(f"optimizer.clip is {clip!r}; expected a number, or None for no clipping.")


# Entries beside a spec's own arguments, which the jobs read whatever the name is.
_READ = {
    "data": ("batch_size", "flip", "given", "conditions", "drop"),
    "optimizer": ("schedule", "clip", "groups"),
}


def arguments(config: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The spec of a section, without the entries that the jobs read themselves."""
    return {name: value for name, value in to_dict(config)[section].items() if name not in _READ.get(section, ())}


def add_argument(config: ml_collections.ConfigDict, name: str, text: str) -> bool:
    """Give a spec of a config an argument that it does not state yet, or as 'auto'; False for other entries.

    Args:
        config: a complete config, which is changed.
        name: of the entry, dotted.
        text: a literal, or else text as it is.

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


def _unknown(name: str) -> str:
    known = _every_entry(DEFAULTS)
    # The same word in another section, or a word like it.
    moved = [entry for entry in known if entry.rpartition(".")[2] == name.rpartition(".")[2]]
    hint = (moved or difflib.get_close_matches(name, known, n=1, cutoff=0.5))[:1]
    return f"The config has {name}, which nothing reads" + (f"; did you mean {hint[0]}?" if hint else ".")


def _every_entry(section: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of entries and of sections."""
    found = []
    for name, value in section.items():
        found.append(prefix + name)
        if isinstance(value, Mapping):
            found += _every_entry(value, f"{prefix}{name}.")
    return found
