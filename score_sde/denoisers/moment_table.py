"""This module defines the table of a model's noise moments, from which the optimal variance of each level follows."""

from __future__ import annotations

import os
import pathlib
import zipfile
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import isotonic_regression

from score_sde.core import npz
from score_sde.core.arrays import Array, as_array, is_concrete, to_time
from score_sde.core.errors import InputError
from score_sde.core.files import atomic_file
from score_sde.sde import SDE

_NAMES = ("times", "log_snr", "gamma", "stderr")
_LARGEST_GAP = 1e-2  # in log-SNR, between a table and the SDE at the times of the table


class MomentTable(eqx.Module):
    """`MomentTable` holds Gamma(t) = E |E[noise | x_t]|^2 / D at some times, measured in one pass over data.

    The optimal isotropic variance follows from it (Bao et al. 2022, arXiv:2201.06503, Theorem 1):

        C(t) = Var[x_0 | x_t], averaged over x_t and the dimensions, = (sigma^2 / alpha^2) (1 - Gamma(t)).

    Args:
        times: times, increasing, (n,).
        log_snr: log signal-to-noise ratio of the SDE at these times, (n,).
        gamma: Gamma at these times, (n,); the exact value is at most 1.
        stderr: standard error of gamma, (n,); None for 0.
    """

    times: Any
    log_snr: Any
    gamma: Any
    stderr: Any

    def __init__(self, times: ArrayLike, log_snr: ArrayLike, gamma: ArrayLike, stderr: ArrayLike | None = None) -> None:
        columns = [
            as_array(column, f"{name} of MomentTable").astype(np.float64)
            for name, column in zip(
                _NAMES, (times, log_snr, gamma, np.zeros(np.shape(gamma)) if stderr is None else stderr), strict=True
            )
        ]
        n = len(columns[0]) if columns[0].ndim else 0
        if n < 2 or any(column.shape != (n,) for column in columns):
            shapes = ", ".join(str(column.shape) for column in columns)
            raise InputError(f"MomentTable got columns of shapes {shapes}; expected (n,) for each, n >= 2.")
        if not np.all(np.diff(columns[0]) > 0) or not all(np.isfinite(column).all() for column in columns):
            raise InputError("MomentTable got times that do not increase, or NaN; expected increasing, finite times.")
        self.times, self.log_snr, self.gamma, self.stderr = columns

    def check(self, sde: SDE) -> None:
        """Raise InputError if the table was measured on another SDE."""
        if not is_concrete(sde):
            return
        low, high = float(sde.t_min), float(sde.t_max)
        inside = (self.times >= low * (1 - 1e-5) - 1e-9) & (self.times <= high * (1 + 1e-5))
        if inside.all():
            gaps = np.abs(np.asarray(sde.log_snr(self.times), np.float64) - self.log_snr)
            if gaps.max() <= _LARGEST_GAP:
                return
            i = int(gaps.argmax())
            what = f"log-SNR {self.log_snr[i]:.4g} at t = {self.times[i]:.4g}, where {type(sde).__name__} has "
            what += f"{float(sde.log_snr(self.times[i])):.4g}"
        else:
            what = f"t = {self.times[~inside][0]:.4g}, outside [{low:.4g}, {high:.4g}] of {type(sde).__name__}"
        raise InputError(f"The table of moments has {what}; expected the table of this chain or SDE (NoiseMoments).")

    def x0_variance(self, sde: SDE, t: ArrayLike, largest: float | None = None) -> Array:
        """Return C(t) within [0, largest], in the shape of t; Gamma is interpolated in log-SNR between the times."""
        t = to_time(t)
        level = sde.log_snr(t)
        # Interpolation needs increasing places; log-SNR falls with time.
        gamma = jnp.interp(
            level, jnp.asarray(self.log_snr[::-1], level.dtype), jnp.asarray(self.gamma[::-1], level.dtype)
        )
        c = jnp.exp(-level) * (1 - gamma)
        return jnp.clip(c, 0, largest)

    def rising_x0_variance(self) -> np.ndarray:
        """Return C at the times of the table, made to rise with noise: isotonic regression, weights 1 / stderr^2, (n,).

        E Var[x_0 | x_t] rises with the noise level (the minimum mean square error falls with the SNR: Guo et al. 2005,
        arXiv:cs/0412108). At much noise 1 - Gamma is smaller than its standard error, so measured values may be 0.
        """
        scale = np.exp(-self.log_snr)
        c, error = np.maximum(scale * (1 - self.gamma), 0), scale * self.stderr
        weights = None if np.any(error == 0) else 1 / error**2
        return np.asarray(isotonic_regression(c, weights=weights).x)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as an npz file, whole or not at all."""
        with atomic_file(pathlib.Path(path)) as file:
            np.savez(file, **{name: getattr(self, name) for name in _NAMES})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> MomentTable:
        """Return the table of a file that `save` or the evaluation `NoiseMoments` wrote; nothing in it is executed."""
        try:
            npz.check_size(path)
            with np.load(path, allow_pickle=False) as arrays:
                columns = [arrays[name] for name in _NAMES]
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} is no table of moments ({error}); expected noise_moments.npz, which the evaluation "
                "NoiseMoments writes."
            ) from error
        return cls(*columns)


def as_table(given: MomentTable | str | os.PathLike[str]) -> MomentTable:
    """Return a table, which may be named by its path; raise InputError for anything else."""
    if isinstance(given, MomentTable):
        return given
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"table is {given!r}; expected a MomentTable, or the path of noise_moments.npz.")
    return MomentTable.read(given)


__all__ = ["MomentTable", "as_table"]
