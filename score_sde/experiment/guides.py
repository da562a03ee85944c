"""This module reads the guides and the sampler that a config or a call names, and applies guides to a denoiser."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from score_sde import config as config_
from score_sde import inverse, sampling
from score_sde.core import columns
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.denoisers import Analytic, ClassifierGuided, Denoiser, Guide, NetworkClassifier, guidance
from score_sde.denoisers.classifier import check_fits
from score_sde.inverse import Posterior, Through
from score_sde.inverse.known import Measuring
from score_sde.sampling import Sampler

GuideSpecs = str | Mapping[str, Any] | Sequence[Any]
# The arguments of guides that name a workdir: with a second model, and with a classifier.
_BAD, _WORKDIR = "bad", "workdir"
_TABLE = "table"  # the argument of `Analytic` that names a file


def read_guides(entry: str, given: GuideSpecs, clip: bool, codec: Codec) -> tuple[dict[str, Any], ...]:
    """Return the specs of the guides, from the innermost to the outermost.

    The last guide clips x_0 to the range of the data. The last guide is omitted if `clip` is False, if the data have no
    range, or if `Clipped` is already named. `Through` gets the codec, and `Posterior` the range of the data.

    Args:
        entry: the name of the entry or argument, for messages.
        given: 'ClassifierFree(weight=2)', dict(name='ClassifierFree', weight=2), or a sequence of such texts and specs.
        clip: whether to clip x_0.
        codec: the codec of the data.

    Raises:
        InputError: if `given` is not a list of specs, or if a guide does not fit the range of the data.
    """
    guides = tuple(with_codec(guide, codec) for guide in config_.read_specs(entry, given))
    for guide in guides:
        if guide["name"] == Posterior.__name__ and codec.clip_range is not None:
            guide.setdefault("limits", codec.clip_range)
        if guide["name"] == Analytic.__name__ and codec.clip_range is not None:
            low, high = codec.clip_range
            guide.setdefault("largest", (high - low) ** 2 / 4)
        if guide["name"] == ClassifierGuided.__name__:
            if (_WORKDIR in guide) == ("log_prob" in guide):
                raise InputError(
                    f"{entry} has ClassifierGuided({', '.join(name for name in guide if name != 'name')}); expected "
                    "workdir, that of a classifier of noised examples, or in Python log_prob, one of them."
                )
            if _WORKDIR in guide:
                _check_scale(entry, guide[_WORKDIR], codec)
        if guide["name"] == guidance.Thresholded.__name__ and codec.model_range != (-1.0, 1.0):
            raise InputError(
                f"{entry} has Thresholded, and the data have the range {codec.model_range} on the model's scale; "
                "expected [-1, 1]: use Clipped."
            )
    if not clip or codec.clip_range is None or any(guide["name"] == guidance.Clipped.__name__ for guide in guides):
        return guides
    low, high = codec.clip_range
    return (*guides, {"name": guidance.Clipped.__name__, "low": low, "high": high})


def guided(denoiser: Denoiser, guides: Sequence[Mapping[str, Any]]) -> Denoiser:
    """Return the denoiser inside the guides of `read_guides`.

    An argument `bad` that is text, or dict(workdir=..., step=..., average=...), names the workdir of a trained model.
    An argument `workdir` of `ClassifierGuided`, in the same form, names the workdir of a classifier of noised examples.
    A classifier that was trained on another SDE is used by its noise level.
    """
    for spec in guides:
        arguments = dict(spec)
        if arguments.get(_BAD) is not None:
            arguments[_BAD] = _second(arguments[_BAD]).denoiser
        if _WORKDIR in arguments and spec["name"] == ClassifierGuided.__name__:
            arguments["log_prob"] = _classifier(arguments.pop(_WORKDIR), denoiser)
        denoiser = config_.build((guidance, inverse), arguments, denoiser, base=Guide)
    return denoiser


def read_sampler(spec: Mapping[str, Any], codec: Codec) -> Sampler:
    """Return the sampler that a config names; `Through` gets the codec, and a measuring sampler the data's range."""
    sampler: Sampler = config_.build(
        (sampling, inverse), with_codec(config_.to_dict(spec), codec), base=sampling.Sampler
    )
    return limited(sampler, codec)


def limited(sampler: Sampler, codec: Codec) -> Sampler:
    """Return a sampler that checks the scale of its measurement, if it reads one, with the range of the data."""
    if isinstance(sampler, Measuring) and sampler.limits is None and codec.clip_range is not None:
        return dataclasses.replace(sampler, limits=codec.clip_range)
    return sampler


def content_of(entry: str, guides: GuideSpecs, asked: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the files and weights that guides and conditions name, for the identity of a result."""
    seconds = [
        guide[name]
        for guide in config_.read_specs(entry, guides)
        for name in (_BAD, _WORKDIR)
        if guide.get(name) is not None
    ]
    weights = {str(_place(second)[0]): _opened(second).digest for second in seconds}
    tables = [guide[_TABLE] for guide in config_.read_specs(entry, guides) if columns.is_file(guide.get(_TABLE))]
    weights |= {table: columns.digest(table) for table in tables}
    return weights | {name: columns.digest(value) for name, value in asked.items() if columns.is_file(value)}


def with_codec(spec: Mapping[str, Any], codec: Codec) -> dict[str, Any]:
    """Return a spec in which each `Through` has the codec."""
    result: dict[str, Any] = {
        name: with_codec(value, codec)
        if isinstance(value, Mapping)
        else tuple(with_codec(part, codec) if isinstance(part, Mapping) else part for part in value)
        if isinstance(value, tuple | list)
        else value
        for name, value in spec.items()
    }
    if result.get("name") == Through.__name__:
        result.setdefault("codec", codec)
    return result


def _place(given: Any) -> tuple[Any, Any, Any]:
    """Return (workdir, step, average) of a second model; raise InputError if it is not stated so."""
    stated = {"workdir": given} if isinstance(given, str | os.PathLike) else given
    known = isinstance(stated, Mapping) and set(stated) <= {"workdir", "step", "average"} and "workdir" in stated
    if not known:
        raise InputError(
            f"A guide names {given!r}; expected the workdir of a trained model, or dict(workdir=..., step=..., "
            "average=...)."
        )
    return stated["workdir"], stated.get("step"), stated.get("average", "")


@functools.lru_cache(maxsize=4)
def _loaded(workdir: str, step: int | None, average: str | None) -> Any:
    from score_sde.experiment.workdir import load  # imported late: workdir.py imports this module

    return load(workdir, step, average)


def _opened(given: Any) -> Any:
    """Return what a second workdir has."""
    workdir, step, average = _place(given)
    return _loaded(str(workdir), step, average)


def _second(given: Any) -> Any:
    """Return the model of a second workdir."""
    model = _opened(given)
    if not isinstance(getattr(model, "denoiser", None), Denoiser):
        raise InputError(f"{_place(given)[0]} has no denoiser; expected the workdir of a trained denoiser.")
    return model


def _classifier(given: Any, denoiser: Denoiser) -> Any:
    """Return log p(label | x_t) of the classifier of a workdir, for the x_t of a denoiser."""
    name, opened = str(_place(given)[0]), _opened(given)
    classifier = getattr(opened, "classifier", None)
    if not isinstance(classifier, NetworkClassifier):
        raise InputError(
            f"{name} has no classifier of noised examples; expected a workdir of the variant 'classifier'."
        )
    check_fits(classifier, denoiser.reads, denoiser.shape, name)
    return classifier.on(denoiser.sde)


def _check_scale(entry: str, given: Any, codec: Codec) -> None:
    """Raise InputError unless the classifier of a workdir has the model's scale."""
    theirs = getattr(_opened(given), "codec", codec)
    if (theirs.model_range, theirs.data_shape) != (codec.model_range, codec.data_shape):
        raise InputError(
            f"{entry} names {_place(given)[0]}, whose examples have shape {theirs.data_shape} and range "
            f"{theirs.model_range}; expected {codec.data_shape} and {codec.model_range}, as the model has."
        )
