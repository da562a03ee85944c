"""This module edits pictures: it draws the unknown pixels of each window, and pastes the answers back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import config as config_
from score_sde.core import given
from score_sde.core import keys as keys_
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.core.precision import products
from score_sde.data import Codec
from score_sde.denoisers import Clipped, Denoiser, Guide
from score_sde.editing.base import Edit
from score_sde.editing.edited import Edited
from score_sde.editing.pictures import Picture
from score_sde.editing.plan import Plan
from score_sde.editing.strength import kept
from score_sde.inverse import Operator, methods
from score_sde.inverse.measurement import MASK, MEASURED
from score_sde.sampling import Sampler, sample
from score_sde.sampling.checks import read_by

_MOST_ANSWERS, _MOST_WINDOWS = 2**20, 2**12  # their product is the number of samples of a seed


class _Work:
    """`_Work` holds the canvases of one picture, one for each answer, and which of their pixels are known so far."""

    def __init__(self, picture: Picture, plan: Plan, n: int) -> None:
        self.picture, self.plan = picture, plan
        self.canvases = np.repeat(plan.canvas[None], n, axis=0)
        self.known = plan.known.copy()
        self.nfe, self.vjps = np.zeros(n, int), np.zeros(n, int)

    def window(self, number: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the place of a window in the canvases."""
        top, left = self.plan.windows[number]
        return slice(top, top + shape[0]), slice(left, left + shape[1])


@dataclasses.dataclass(frozen=True)
class Editor:
    """An `Editor` edits pictures with one model; answer j of a picture is a function of (seed, j, picture) alone.

    Attributes:
        denoiser: the denoiser, with its guides, which do not clip x_0.
        codec: the codec of the data, which are images.
        sampler: the sampler of edits whose method is a guide.
        grid: the time grid of a walk of strength 1.
        seed: the seed of the answers.
        clip: whether x_0 is clipped to the range of the data, if the data have a range.
        batch_size: the largest number of answers that are drawn together; at least all answers of one picture are.
        precision, sharding: as in `core.precision.products` and `sampling.sample`.
    """

    denoiser: Denoiser
    codec: Codec
    sampler: Sampler
    grid: np.ndarray
    seed: int = 0
    clip: bool = True
    batch_size: int = 64
    precision: str = "default"
    sharding: jax.sharding.Sharding | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.codec.data_shape)
        if len(shape) != 3 or shape != tuple(self.codec.model_shape):
            raise InputError(
                f"The model has examples of shape {shape}; expected images, (height, width, channels), for an edit."
            )
        if not isinstance(self.clip, bool):
            raise InputError(f"clip is {self.clip!r}; expected True or False.")
        own = self.sampler.reads(shape)
        if own:
            name = type(self.sampler).__name__
            raise InputError(
                f"sampler of an edit is {name}, which reads {', '.join(own)} itself; expected a sampler without "
                f"measurement: name {name} as the method of an edit, method='{name}'."
            )

    def together(self, n: int) -> int:
        """Return how many pictures with n answers each are edited together."""
        return max(1, self.batch_size // n)

    def __call__(self, edit: Edit, pictures: Sequence[Picture], n: int, asked: Mapping[str, Any]) -> Iterator[Edited]:
        """Yield each picture with its answers.

        Args:
            edit: the edit.
            pictures: the pictures.
            n: the number of answers for each picture.
            asked: conditions in short form, such as {'label': 2}; conditions that are not asked for are absent.

        Raises:
            InputError: for a picture that cannot be edited so.
        """
        together = self.together(n)
        edit.check(self.codec)
        for low in range(0, len(pictures), together):
            chunk = pictures[low : low + together]
            plans = [edit.plan(picture, low + i, self.codec) for i, picture in enumerate(chunk)]
            for picture, plan in zip(chunk, plans, strict=True):
                self.check(plan, picture, n)
            yield from self.edited(edit, chunk, plans, n, asked)

    def check(self, plan: Plan, picture: Picture, n: int) -> None:
        """Raise InputError if a picture has more windows or answers than there are random numbers of a seed."""
        if n > _MOST_ANSWERS or len(plan.windows) > _MOST_WINDOWS:
            raise InputError(
                f"{picture.name} needs {len(plan.windows)} windows for each of {n} answers; expected at most "
                f"{_MOST_WINDOWS} windows and {_MOST_ANSWERS} answers: use a smaller picture, or add less."
            )

    def edited(
        self, edit: Edit, pictures: Sequence[Picture], plans: Sequence[Plan], n: int, asked: Mapping[str, Any]
    ) -> list[Edited]:
        """Return pictures with their answers, drawn together; the arguments are those of `__call__`."""
        times = kept(self.grid, edit.strength)
        work = [_Work(picture, plan, n) for picture, plan in zip(pictures, plans, strict=True)]
        both = [name for name in edit.asked if name in asked]
        if both:
            raise InputError(
                f"{type(edit).__name__} states {both[0]} = {edit.asked[both[0]]!r}, and so do the conditions, "
                f"{asked[both[0]]!r}; expected one of them."
            )
        cond = self._asked({**edit.asked, **asked}, np.arange(n))
        if len(times) > 1:
            for number in range(max(len(plan.windows) for plan in plans)):
                for alike in _alike([one for one in work if number < len(one.plan.windows)]):
                    self._draw(edit, alike, number, times, cond, size=n * len(work))
        else:  # the errors of an edit do not depend on its strength
            self._walk(edit, plans[0].operator, plans[0].noise_std)
        sde, level = self.denoiser.sde, float(times[0])
        about = {
            "steps": len(times) - 1,
            "t": level,
            "alpha": float(sde.alpha(level)),
            "sigma": float(sde.sigma(level)),
        }
        return [_finished(one, self.codec, about, len(times) > 1) for one in work]

    def _draw(self, edit: Edit, work: list[_Work], number: int, times: np.ndarray, cond: Cond, size: int) -> None:
        """Draw one window of each picture in batches of `size`, and write it into the canvases.

        `cond` has the conditions of the answers of one picture.
        """
        shape, n = tuple(self.codec.data_shape), len(work[0].canvases)
        places = [one.window(number, shape) for one in work]
        values = np.concatenate([one.canvases[(slice(None), *place)] for one, place in zip(work, places, strict=True)])
        known = np.concatenate(
            [np.repeat(one.known[place][None], n, axis=0) for one, place in zip(work, places, strict=True)]
        )
        # Each window has random numbers of its own: with equal ones the windows of an answer would be correlated.
        numbers = np.tile(number * _MOST_ANSWERS + np.arange(n), len(work))
        denoiser, sampler = self._walk(edit, work[0].plan.operator, work[0].plan.noise_std)
        x0, _ = self.codec.encode(jnp.asarray(values, jnp.zeros((), float).dtype), None)
        every = jax.tree.map(lambda leaf: np.concatenate([leaf] * len(work)), dict(cond or {}))
        if work[0].plan.operator is not None:
            ys = [one.plan.y for one in work if one.plan.y is not None]
            every[MEASURED] = np.repeat(np.stack(ys), n, axis=0).astype(x0.dtype) if ys else np.asarray(x0)
            if not ys:
                every[MASK] = np.broadcast_to(known[..., None], x0.shape)
        start = None if len(times) == len(self.grid) else self._start(edit, x0, known, times[0], numbers)
        with products(self.precision):
            drawn = sample(
                denoiser,
                sampler,
                times,
                shape,
                n=len(numbers),
                seed=self.seed,
                cond=every or None,
                x=start,
                batch_size=size,
                sharding=self.sharding,
                numbers=numbers,
            )
        answers = np.asarray(self.codec.decode(drawn.x), float).reshape(len(work), n, *shape)
        for i, (one, place) in enumerate(zip(work, places, strict=True)):
            rows = slice(i * n, (i + 1) * n)
            window = one.canvases[(slice(None), *place)]
            window[:] = np.where(known[rows][..., None], window, answers[i])
            one.known[place] = True
            one.nfe += drawn.nfe[rows]
            one.vjps += 0 if drawn.vjps is None else drawn.vjps[rows]

    def _start(self, edit: Edit, x0: jax.Array, known: np.ndarray, t: float, numbers: np.ndarray) -> np.ndarray:
        """Return x_t of the content, with the noise from which a walk of strength 1 would start."""
        keys = keys_.examples(keys_.stream(self.seed, "sample"), numbers)
        if edit.content in ("noise", "zeros"):
            empty = keys_.normal(keys_.fold(keys, "content"), x0.shape[1:], x0.dtype)
            x0 = jnp.where(jnp.asarray(known)[..., None], x0, empty if edit.content == "noise" else 0)
        noise = keys_.normal(keys_.fold(keys, 0), x0.shape[1:], x0.dtype)
        return np.asarray(self.denoiser.sde.perturb(x0, noise, jnp.asarray(t, x0.dtype)))

    def _walk(self, edit: Edit, operator: Operator | None, noise_std: float) -> tuple[Denoiser, Sampler]:
        """Return the denoiser and the sampler of an edit."""
        denoiser, sampler, limits = self.denoiser, self.sampler, self.codec.clip_range
        if operator is not None:
            spec = methods.with_problem(
                methods.one_spec(f"method of {type(edit).__name__}", edit.by), operator, noise_std
            )
            if limits is not None and config_.takes(methods.SPACES, spec, "limits"):
                spec.setdefault("limits", limits)
            if methods.is_sampler(spec):
                sampler = config_.build(methods.SPACES, spec, base=Sampler)
            else:
                denoiser = config_.build(methods.SPACES, spec, denoiser, base=Guide)
            reads = read_by(denoiser, sampler, tuple(self.codec.model_shape))
            if MEASURED not in reads or MEASURED in self.denoiser.reads:
                raise InputError(
                    f"method of {type(edit).__name__} is {spec['name']}, which keeps no measurement; expected a guide "
                    "or a sampler that does, such as Posterior or Replacement."
                )
        if self.clip and limits is not None:
            denoiser = Clipped(denoiser, *limits)
        return denoiser, sampler

    def _asked(self, asked: Mapping[str, Any], numbers: np.ndarray) -> Cond:
        """Return the conditions that were asked for, for answers of these numbers; other conditions are absent."""
        reads = self.denoiser.reads
        unread = [name for name in asked if name not in reads]
        if unread:
            hint = (
                ": use a class-conditional model, or a guide such as ClassifierGuided(workdir=...)"
                if unread[0] == "label"
                else ""
            )
            raise InputError(
                f"The edit asks for {unread[0]!r}, which the model does not read; it reads "
                f"{', '.join(reads) or 'nothing'}{hint}."
            )
        absent = {name: None for name, one in reads.items() if not one.required}
        return given.asked_for({**absent, **asked}, reads, numbers, entry="edit.cond")


def _alike(work: list[_Work]) -> list[list[_Work]]:
    """Return the pictures in groups of the same operator, noise and kind of measurement, which are drawn together."""
    groups: list[list[_Work]] = []
    for one in work:
        for group in groups:
            first, plan = group[0].plan, one.plan
            if (first.operator, first.noise_std, first.y is None) == (plan.operator, plan.noise_std, plan.y is None):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _finished(work: _Work, codec: Codec, about: dict[str, Any], walked: bool) -> Edited:
    picture, plan = work.picture, work.plan
    answers = np.stack([plan.paste(canvas, picture, codec) for canvas in work.canvases])
    if not walked:  # strength 0: the picture itself, without the way to the model's size and back
        base = plan.paste.base.astype(answers.dtype)
        answers = np.repeat(base[None], len(answers), axis=0)
    told = {**plan.about, **about, "nfe": int(work.nfe[0]), "vjps": int(work.vjps[0])}
    return Edited(picture, answers, plan.paste.weight, plan.seen, told)


__all__ = ["Editor"]
