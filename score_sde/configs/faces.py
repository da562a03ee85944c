"""This module holds what FFHQ and CelebA-HQ share: two image sizes, and a network for each size."""

from __future__ import annotations

import dataclasses

import ml_collections

from score_sde.configs import published
from score_sde.core.errors import InputError


def data_set(folder: str, old: dict[str, str]) -> published.DataSet:
    """Return the data set of faces in a folder, with 1024 pixels as the default."""
    return published.DataSet(
        file=f"configs/{folder}.py",
        data=dict(name="ImageFolder", folder=folder, size=1024, crop=0),
        sigma_max=1348,
        scales=2000,
        snr=0.15,
        batch_size=8,
        steps=2_400_000,
        dropout=0.0,
        old=old,
        versions=("1024", "256"),
    )


def config(here: published.DataSet, variant: str, reduction: str) -> ml_collections.ConfigDict:
    """Return the config of a variant; `reduction` is the reduction of the VE loss at 1024 pixels."""
    words = published.choose(here, variant)
    if words["network"] in published.REFINE:
        raise InputError(f"{here.file} has no variant {variant!r}: {words['network']} is for 32 to 128 pixels.")
    if words["version"] == "1024":
        network = dict(channels=16, multipliers=(1, 2, 4, 8, 16, 32, 32, 32), blocks=8 if words["depth"] else 1)
        network |= published.pyramids(words)
        loss = dict(objective__reduction=reduction) if words["sde"] == "ve" else {}
        return published.config(here, words, network, averages__ema__decay=0.9999, **loss)
    here = dataclasses.replace(here, data=here.data | dict(size=256), sigma_max=348, snr=0.075, batch_size=64)
    if words["network"] == "ddpm":
        network = dict(multipliers=(1, 1, 2, 2, 4, 4), blocks=2)
        return published.config(here, words, network, optimizer__schedule__peak_value=2e-5)
    network = dict(multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=8 if words["depth"] else 2)
    return published.config(here, words, network | published.pyramids(words))
