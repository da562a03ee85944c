"""This module compares the installed versions of required packages with the versions that are supported."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement


def check_versions(requirements: list[str] | None = None) -> None:
    """Raise ImportError if a required package is missing or has a version that is not supported.

    Args:
        requirements: requirements such as 'jax>=0.10,<0.13'; None for those of the installed score_sde. Without an
            installed score_sde nothing is checked. Requirements of extras are ignored.
    """
    if requirements is None:
        try:
            requirements = importlib.metadata.requires("score_sde") or []
        except importlib.metadata.PackageNotFoundError:
            return
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(
                f"{requirement.name} is not installed; expected {requirement}: pip install '{requirement}'"
            ) from None
        if not requirement.specifier.contains(version, prereleases=True):
            raise ImportError(
                f"{requirement.name} {version} is installed; expected {requirement}: pip install '{requirement}'"
            )
