"""This module defines the trained model, and compares configs with the config of a workdir."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.typing import ArrayLike

from score_sde import config as config_
from score_sde import editing
from score_sde.core import given
from score_sde.core import keys as keys_
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.data import Codec
from score_sde.denoisers import Denoiser
from score_sde.denoisers.inputs import as_points
from score_sde.editing import Edit, Editor, as_pictures
from score_sde.experiment.guides import GuideSpecs, guided, limited, read_guides
from score_sde.inverse import methods
from score_sde.likelihood import BitsPerDim, Bound, LogProb, bits_per_dim, log_prob, variational_bound
from score_sde.likelihood.bits import as_values
from score_sde.sampling import DDIM, Heun, Sampler, Samples, sample, time_grid
from score_sde.sampling.checks import check_grid, check_sampler, read_by


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("denoiser", "codec"),
    meta_fields=("config", "step", "digest"),
)
@dataclasses.dataclass(frozen=True, repr=False)
class Model:
    """A `Model` is a trained denoiser, as `load` returns it, with the codec to the data's own values.

    A `Model` is a pytree of its arrays.

    Attributes:
        denoiser: the denoiser, with its weights.
        codec: the codec between the data's values and the model's scale.
        config: the config of the training run.
        step: the number of training steps of the weights.
        digest: the digest of the weights in their checkpoint; results record this digest.
    """

    denoiser: Denoiser
    codec: Codec
    config: ml_collections.ConfigDict
    step: int
    digest: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one example on the model's scale."""
        return self.codec.model_shape

    @property
    def conditions(self) -> Conditions:
        """Return the conditions that the model reads, by name."""
        return self.denoiser.reads

    def __repr__(self) -> str:
        reads = ", ".join(self.conditions) or "nothing"
        name, sde = self.config.data.name, self.config.sde.name
        return f"Model of {name} at step {self.step}: shape {self.shape}, {sde}, reads {reads}"

    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        first: int = 0,
        guidance: GuideSpecs = "",
        sampler: Sampler | None = None,
        grid: ArrayLike | None = None,
        cond: Mapping[str, Any] | None = None,
        clip: bool = True,
        **asked: Any,
    ) -> Samples:
        """Draw samples; x of the result is on the data's own scale, and rounded if the data are quantised.

        Args:
            n: the number of samples.
            seed: the seed; sample i is a function of (seed, i).
            first: the number of the first sample; the result has the samples first .. first + n - 1.
            guidance: guides, in the form of `sample.guidance` in a config: 'ClassifierFree(weight=2)'.
            sampler: the sampler; None for Heun's method.
            grid: the time grid; None for 40 steps of the SDE's own grid.
            cond: conditions for each sample, in the form of `score_sde.sample`, also those that a guide or the sampler
                reads, such as the measurement y of a `Posterior`.
            clip: whether x_0 is clipped to the range of the data (`Clipped`), if the data have a range.
            **asked: conditions in short form: label=2 for all samples, label=[1, 2] in turn, label=None for no label.
        """
        require_whole("n", n, 1)
        grid = time_grid.default(self.denoiser.sde, 40) if grid is None else grid
        sampler = Heun() if sampler is None else sampler
        check_sampler(sampler, Sampler)
        sampler = limited(sampler, self.codec)
        denoiser = guided(self.denoiser, read_guides("guidance", guidance, clip, self.codec))
        if cond is None:
            require_whole("first", first, 0)
            cond = given.asked_for(asked, read_by(denoiser, sampler, self.shape), np.arange(first, first + n))
        elif asked:
            raise InputError(f"sample got both cond and {', '.join(asked)}; expected one of them.")
        drawn = sample(denoiser, sampler, grid, self.shape, n=n, first=first, seed=seed, cond=cond)
        return drawn._replace(x=np.asarray(self.codec.quantize(self.codec.decode(drawn.x))))

    def edit(
        self,
        pictures: Any,
        edit: Edit | str | Mapping[str, Any],
        *,
        n: int = 4,
        seed: int = 0,
        guidance: GuideSpecs = "",
        sampler: Sampler | None = None,
        grid: ArrayLike | None = None,
        clip: bool = True,
        **asked: Any,
    ) -> Any:
        """Edit pictures of any size, and return several answers for each, which differ as far as the model is unsure.

        Args:
            pictures: the path of a picture, or an array (height, width, channels) in the units of the data; or a list,
                or an array (n, height, width, channels), of several.
            edit: an edit of `score_sde.editing`, such as Inpaint(mask=(8, 8, 20, 20)), or its text.
            n: the number of answers for each picture.
            seed: the seed; answer j of a picture is a function of (seed, j, picture).
            guidance, clip: as in `sample`.
            sampler: the sampler of edits whose method is a guide; None for Heun's method, or for DDIM on a chain.
            grid: the time grid; None for 40 steps of the SDE's own grid.
            **asked: conditions in short form, as in `sample`; conditions that are not asked for are absent.

        Returns:
            `Edited` for one picture, or a list of them. Pixels that an edit does not change come back as they were.
        """
        require_whole("n", n, 1)
        if isinstance(n, bool):
            raise InputError(f"n is {n}; expected a whole number, at least 1.")
        given_pictures, alone = as_pictures(pictures, self.codec)
        edited = list(
            self.editor(seed=seed, guidance=guidance, sampler=sampler, grid=grid, clip=clip)(
                as_edit(edit), given_pictures, n, asked
            )
        )
        return edited[0] if alone else edited

    def editor(
        self,
        *,
        seed: int = 0,
        guidance: GuideSpecs = "",
        sampler: Sampler | None = None,
        grid: ArrayLike | None = None,
        clip: bool = True,
        **options: Any,
    ) -> Editor:
        """Return the `Editor` of `edit`; `options` are further arguments of `Editor`."""
        keys_.check_seed(seed)
        sde = self.denoiser.sde
        times = time_grid.default(sde, 40) if grid is None else check_grid(sde, grid, float, from_prior=True)
        if sampler is None:
            sampler = Heun() if sde.levels is None else DDIM()
        check_sampler(sampler, Sampler)
        sampler.check(sde, times)
        denoiser = guided(self.denoiser, read_guides("guidance", guidance, False, self.codec))
        return Editor(denoiser, self.codec, sampler, times, seed=seed, clip=clip, **options)

    def log_prob(
        self, x: ArrayLike, *, seed: int = 0, cond: Mapping[str, Any] | None = None, **options: Any
    ) -> LogProb:
        """Return the log-density of x in nats.

        Args:
            x: real data on their own scale, or quantised data on the model's scale, (batch, *shape); for quantised data
                on their own scale use `bits_per_dim`.
            seed: the seed of the probes.
            cond: conditions for each example.
            **options: options of `score_sde.log_prob`, or conditions in short form as in `sample`: label=2 for all
                examples, label=[1, 2] in turn.
        """
        x = as_points(x)
        cond, options = self._conditions(cond, options, len(x))
        if self.codec.is_bound:
            return log_prob(self.denoiser.smooth(), x, self._keys(seed, len(x)), cond=cond, **options)
        if x.shape[1:] != tuple(self.codec.data_shape):
            raise InputError(f"x has shape {x.shape}; expected (batch, *shape) = {('batch', *self.codec.data_shape)}.")
        encoded, terms = self.codec.encode(x, None)
        out = log_prob(self.denoiser.smooth(), encoded, self._keys(seed, len(x)), cond=cond, **options)
        return out._replace(value=out.value + sum(term for term in terms.values() if term is not None))

    def bits_per_dim(
        self, values: ArrayLike, *, seed: int = 0, cond: Mapping[str, Any] | None = None, **options: Any
    ) -> BitsPerDim:
        """Return the bits per dimension of values on the data's own scale.

        The options are the options of `score_sde.bits_per_dim`. Conditions have the same form as in `log_prob`.
        """
        values = as_values(values, self.codec)
        cond, options = self._conditions(cond, options, len(values))
        keys = self._keys(seed, len(values))
        return bits_per_dim(self.denoiser.smooth(), values, keys, codec=self.codec, cond=cond, **options)

    def variational_bound(
        self, values: ArrayLike, *, seed: int = 0, cond: Mapping[str, Any] | None = None, **options: Any
    ) -> Bound:
        """Return the variational bound of values on the data's own scale, in bits per dimension.

        The options are the options of `score_sde.variational_bound`. Conditions have the same form as in `log_prob`.
        """
        values = as_values(values, self.codec)
        cond, options = self._conditions(cond, options, len(values))
        keys = self._keys(seed, len(values))
        return variational_bound(self.denoiser, values, keys, codec=self.codec, cond=cond, **options)

    def save(self, workdir: str | os.PathLike[str]) -> None:
        """Save the model to a workdir, which `load` and the jobs of the command line can open.

        Raises:
            InputError: if the workdir already holds a model, or if a config cannot describe the model.
        """
        from score_sde.experiment.keeping import save  # imported late: keeping.py imports this module

        save(self, workdir)

    def _conditions(
        self, cond: Mapping[str, Any] | None, options: dict[str, Any], batch: int
    ) -> tuple[Cond, dict[str, Any]]:
        """Return (conditions of each example, the options that are not conditions)."""
        asked = {name: options[name] for name in options if name in self.conditions}
        rest = {name: value for name, value in options.items() if name not in asked}
        if asked and cond is not None:
            raise InputError(f"Both cond and {', '.join(asked)} were given; expected one of them.")
        if not asked:
            return cond, rest
        unasked: dict[str, Any] = {name: None for name in self.conditions if name not in asked}
        return given.asked_for(unasked | asked, self.conditions, np.arange(batch)), rest

    def _keys(self, seed: int, batch: int) -> jax.Array:
        keys_.check_seed(seed)
        return keys_.examples(keys_.stream(seed, "likelihood"), np.arange(batch))


def as_edit(given_edit: Edit | str | Mapping[str, Any]) -> Edit:
    """Return an edit, which may be given as text or as a spec; raise InputError for anything else."""
    if isinstance(given_edit, Edit):
        return given_edit
    if not isinstance(given_edit, str | Mapping):
        raise InputError(
            f"edit is {given_edit!r}; expected an edit, such as Inpaint(mask=(8, 8, 20, 20)), or its text."
        )
    made: Edit = config_.build(editing, methods.one_spec("edit", given_edit), base=Edit)
    return made


def check_same(
    config: ml_collections.ConfigDict,
    trained: ml_collections.ConfigDict,
    free: Sequence[str],
    workdir: pathlib.Path,
) -> None:
    """Raise InputError if two configs differ in an entry that is not in `free`; the message names the entry."""
    for name, (ours, theirs) in config_.differences(config, trained).items():
        if not any(name == entry or name.startswith(entry + ".") for entry in free):
            raise InputError(
                f"{workdir} was trained with {name} = {theirs!r}, and the config says {ours!r}: "
                f"use another --workdir, or the config of the training run."
            )
