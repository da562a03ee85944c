"""This module reads and writes statistics of the features of a data set, with their provenance."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from score_sde.core import npz
from score_sde.core.errors import InputError
from score_sde.core.files import atomic_file
from score_sde.metrics.features import FeatureNetwork
from score_sde.metrics.frechet import Moments

UNKNOWN = "unknown"
# What a file must say about its features so that they can be compared; other files do not say it.
_PROTOCOL = ("network", "parameters", "resize", "size", "scale")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """`Statistics` holds mean and covariance of the features of a data set.

    Attributes:
        mean: the mean, (d,).
        cov: the covariance with divisor n - 1, (d, d).
        n: the number of examples; None if the file does not say it.
        provenance: the data, the split and the protocol of the features; entries that the file does not state are
            'unknown'.
        sha256: the digest of the file; '' for statistics that were not read from a file.
    """

    mean: np.ndarray
    cov: np.ndarray
    n: int | None
    provenance: dict[str, Any]
    sha256: str = ""

    def about(self) -> dict[str, Any]:
        """Return what identifies the statistics, as JSON can hold it."""
        return {**self.provenance, "sha256": self.sha256, "n": self.n}

    def check(self, network: FeatureNetwork) -> None:
        """Raise InputError if the statistics say that they belong to features of another protocol."""
        ours, theirs = network.protocol(), self.provenance.get("features")
        theirs = theirs if isinstance(theirs, dict) else {}
        for name in _PROTOCOL:
            if theirs.get(name, UNKNOWN) not in (UNKNOWN, ours.get(name)):
                raise InputError(
                    f"The statistics are of features with {name}={theirs[name]!r}, and the samples of features with "
                    f"{name}={ours.get(name)!r}; expected one protocol."
                )


def write(path: str | os.PathLike[str], moments: Moments, provenance: dict[str, Any]) -> None:
    """Write statistics as an npz file with `mu`, `sigma`, `n` and `provenance` (JSON), whole or not at all."""
    told = np.frombuffer(json.dumps(provenance, indent=1).encode(), np.uint8)
    with atomic_file(path) as file:
        np.savez(file, mu=moments.mean, sigma=moments.cov, n=np.int64(moments.n), provenance=told)


def read(path: str | os.PathLike[str], spatial: bool = False) -> Statistics:
    """Read an npz file of statistics.

    The forms in use are read: our own; `mu` and `sigma` (TTUR, pytorch-fid, clean-fid, EDM, and the batches of
    guided-diffusion, which also hold images); and raw activations `pool_3`.

    Args:
        path: the file.
        spatial: whether to read `mu_s` and `sigma_s`, the statistics of sFID in the batches of guided-diffusion.

    Raises:
        InputError: if the file is missing, is no npz file, or has no statistics.
    """
    path = pathlib.Path(path).expanduser()
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        npz.check_size(path)
        with np.load(path, allow_pickle=False) as arrays:
            return _of(path, arrays, sha256, "_s" if spatial else "")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); expected a file of statistics."
        ) from error
    except InputError:
        raise
    except Exception as error:  # a damaged file can make NumPy raise any exception
        raise InputError(
            f"{path} is not read: it is no npz file of arrays, or it is damaged ({type(error).__name__}). A pickle of "
            "statistics is not read, because reading executes it."
        ) from error


def _of(path: pathlib.Path, arrays: Any, sha256: str, suffix: str) -> Statistics:
    names = set(arrays.files)
    provenance: dict[str, Any] = {"data": UNKNOWN, "split": UNKNOWN, "features": UNKNOWN}
    n = int(arrays["n"]) if "n" in names and arrays["n"].shape == () else None
    if "provenance" in names:
        told = json.loads(bytes(np.asarray(arrays["provenance"], np.uint8)))
        provenance |= told if isinstance(told, dict) else {}
    wanted = (f"mu{suffix}", f"sigma{suffix}")
    if set(wanted) <= names:
        mean, cov = (np.asarray(arrays[name], np.float64) for name in wanted)
    elif "pool_3" in names and not suffix:
        activations = np.asarray(arrays["pool_3"], np.float64)
        moments = Moments.of(activations.reshape(len(activations), -1))
        mean, cov, n = moments.mean, moments.cov, moments.n
    else:
        raise InputError(f"{path} has {', '.join(sorted(names)) or 'no arrays'}; expected {' and '.join(wanted)}.")
    if (
        mean.ndim != 1
        or cov.shape != (len(mean), len(mean))
        or not (np.isfinite(mean).all() and np.isfinite(cov).all())
    ):
        raise InputError(f"{path}: mu has shape {mean.shape} and sigma {cov.shape}; expected finite (d,) and (d, d).")
    return Statistics(mean, cov, n, provenance, sha256)
