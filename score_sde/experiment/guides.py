"""This module reads the guides that a config or a call names, and applies them to a denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from score_sde import config as config_
from score_sde.data import Codec
from score_sde.denoisers import Denoiser, Guide, guidance

GuideSpecs = str | Mapping[str, Any] | Sequence[Any]


def read_guides(entry: str, given: GuideSpecs, clip: bool, codec: Codec) -> tuple[dict[str, Any], ...]:
    """Return the specs of the guides, from the innermost to the outermost.

    The last guide clips x_0 to the range of the data. The last guide is omitted if `clip` is False, if the data have no
    range, or if `Clipped` is already named.

    Args:
        entry: the name of the entry or argument, for messages.
        given: 'ClassifierFree(weight=2)', dict(name='ClassifierFree', weight=2), or a sequence of such texts and specs.
        clip: whether to clip x_0.
        codec: the codec of the data.

    Raises:
        InputError: if `given` is not a list of specs.
    """
    guides = config_.read_specs(entry, given)
    if not clip or codec.clip_range is None or any(guide["name"] == guidance.Clipped.__name__ for guide in guides):
        return guides
    low, high = codec.clip_range
    return (*guides, {"name": guidance.Clipped.__name__, "low": low, "high": high})


def guided(denoiser: Denoiser, guides: Sequence[Mapping[str, Any]]) -> Denoiser:
    """Return the denoiser inside the guides of `read_guides`."""
    for spec in guides:
        denoiser = config_.build(guidance, spec, denoiser, base=Guide)
    return denoiser
