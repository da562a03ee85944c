"""This module defines the editing job, which edits one picture or a folder of pictures with a trained model."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from score_sde import config as config_
from score_sde import editing, parallel, plots
from score_sde.core import files
from score_sde.core.checks import require_whole
from score_sde.core.errors import DivergenceError, InputError, Stopped
from score_sde.core.keys import check_seed
from score_sde.core.progress import Progress
from score_sde.data import Codec
from score_sde.editing import Edit, Edited, Editor, Picture, Plan, read_picture
from score_sde.experiment import Experiment, Model, check_same, load_trained, made_of, opened
from score_sde.experiment.guides import content_of, read_sampler
from score_sde.inverse import methods
from score_sde.jobs import results
from score_sde.jobs.base import Job
from score_sde.jobs.checkpoints import check_shared, identity_of
from score_sde.jobs.evaluation import placed
from score_sde.parallel import processes
from score_sde.readers.pictures import ENDINGS, ending
from score_sde.sampling import Sampler, time_grid
from score_sde.sde import SDE

# Entries of config.edit on which no answer depends.
_OF_THE_JOB = ("what", "input", "batch_size")


class EditPictures(Job):
    """`EditPictures` edits the pictures of config.edit.input as config.edit.what names."""

    name = "edit"

    def check(self, experiment: Experiment) -> None:
        settings = experiment.config.edit
        for edit in read_edits(settings):
            edit.check(experiment.codec)
        check_seed(settings.seed, "edit.seed")
        pictures_of(settings.input)
        _walk(settings, experiment.sde, experiment.codec)
        config_.read_specs("edit.guidance", settings.guidance)

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        edit_pictures(experiment, workdir)


def edit_pictures(experiment: Experiment | Mapping[str, Any], workdir: str | os.PathLike[str]) -> None:
    """Edit each picture of config.edit.input with each edit of config.edit.what, and print the paths.

    The results go to edits/NAME-DIGEST/, where the digest is that of the edit, the settings and the checkpoint;
    edit.json states them. Each picture has a folder there with its name: 1.png and so on, the answers; comparison.png;
    and about.json, what was done. A picture that is edited already is not edited again; a picture whose content or mask
    changed gets another folder. A picture that cannot be edited is named, and the others are edited. If a run has
    several processes, each process calls this function.

    Raises:
        InputError: if the config or the workdir does not allow an edit, or if no picture can be edited.
        Stopped: after SIGTERM; finished pictures are kept.
    """
    experiment = experiment if isinstance(experiment, Experiment) else Experiment.from_config(experiment)
    check_shared(workdir)
    with opened(workdir, writes=True) as folder:
        _edit(experiment, folder)


def read_edits(settings: Any) -> tuple[Edit, ...]:
    """Return the edits that config.edit.what names; raise InputError for settings that cannot be used."""
    require_whole("edit.n", settings.n, 1)
    require_whole("edit.batch_size", settings.batch_size, 1)
    edits = tuple(config_.build(editing, spec, base=Edit) for spec in config_.read_specs("edit.what", settings.what))
    if not edits:
        known = ", ".join(config_.names(editing, Edit))
        raise InputError(
            f"edit.what is {settings.what!r}; expected one or several of {known}, such as "
            '--config.edit.what="Inpaint(mask=(8, 8, 20, 20))".'
        )
    return edits


def pictures_of(given: str) -> dict[str, pathlib.Path]:
    """Return the files of the pictures by their names below the folder, in the order of the names.

    Raises:
        InputError: if the path is no picture and no folder of pictures.
    """
    if not given:
        raise InputError("edit.input is missing; expected a picture or a folder: --config.edit.input=photo.jpg.")
    path = pathlib.Path(os.path.expanduser(str(given)))
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise InputError(f"edit.input is {given!r}, which does not exist; expected a picture or a folder of pictures.")
    names = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    shown = {name: file for name, file in names.items() if not any(part.startswith(".") for part in name.parts)}
    found = {str(name): file for name, file in sorted(shown.items()) if ending(file.name) in ENDINGS}
    if not found:
        raise InputError(
            f"edit.input {given!r} has no pictures; expected files that end in {', '.join(sorted(ENDINGS))}."
        )
    return found


def _edit(experiment: Experiment, workdir: pathlib.Path) -> None:
    config = experiment.config
    processes.check_agreed("the config", config_.to_json(config))
    edits, pictures = read_edits(config.edit), pictures_of(config.edit.input)
    trained = load_trained(workdir, dtype=config.network.get("dtype"))
    check_same(config, trained.experiment.config, config_.NOT_OF_THE_MODEL, workdir)
    model = made_of(trained)
    if not isinstance(model, Model):
        raise InputError(f"{type(experiment.objective).__name__} trains no denoiser, so there is nothing to edit with.")
    if model.codec.maximum is None:
        raise InputError("The model has real numbers as pixels; expected whole numbers, as files of pictures have.")
    devices = parallel.strategy(config.parallel).local
    model = dataclasses.replace(model, denoiser=placed(model.denoiser, devices))
    editor = _editor(config.edit, model, devices)
    asked = config_.read_arguments("edit.cond", config.edit.cond)
    for edit in edits:
        edit.check(model.codec)
        identity = identity_of(model) | _settings(config, edit, asked)
        folder = workdir / "edits" / f"{edit.name}-{results.digest(identity)}"
        _Run(edit, editor, folder, identity, config.edit.n, asked)(pictures)


def _editor(settings: Any, model: Model, devices: parallel.Jit) -> Editor:
    """Return the editor that config.edit names."""
    sampler, grid = _walk(settings, model.denoiser.sde, model.codec)
    return model.editor(
        seed=settings.seed,
        guidance=settings.guidance,
        sampler=sampler,
        grid=grid,
        clip=settings.clip,
        batch_size=settings.batch_size,
        precision=settings.precision,
        sharding=devices.sharded,
    )


def _walk(settings: Any, sde: SDE, codec: Codec) -> tuple[Sampler | None, np.ndarray]:
    """Return the sampler, or None for the default, and the grid that config.edit names."""
    spec = methods.one_spec("edit.sampler", settings.sampler) if settings.sampler else None
    sampler = None if spec is None else read_sampler(spec, codec)
    return sampler, config_.build(time_grid, methods.one_spec("edit.grid", settings.grid), sde)


def _settings(config: Any, edit: Edit, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything on which the answers depend, besides the checkpoint and the pictures."""
    settings = {name: value for name, value in config_.to_dict(config.edit).items() if name not in _OF_THE_JOB}
    kind = type(edit)
    name = kind.__name__ if kind.__module__.startswith("score_sde.") else f"{kind.__module__}.{kind.__qualname__}"
    content = content_of("edit.guidance", config.edit.guidance, asked)
    found = {"edit": {"name": name, **edit.settings()}, **settings}
    return found | ({"content": content} if content else {})


class _Input(NamedTuple):
    """`_Input` is one picture of the input: its name, file, place among all, and the digests of what is read for it."""

    name: str
    path: pathlib.Path
    number: int
    digests: dict[str, str] | None


@dataclasses.dataclass(frozen=True)
class _Run:
    """`_Run` edits the pictures of one edit, and writes the results of each picture when they are there."""

    edit: Edit
    editor: Editor
    folder: pathlib.Path
    identity: results.Identity
    n: int
    asked: Mapping[str, Any]

    def __call__(self, pictures: Mapping[str, pathlib.Path]) -> None:
        inputs = {
            name: _Input(name, path, number, self._digests(path))
            for number, (name, path) in enumerate(pictures.items())
        }
        todo = [name for name, one in inputs.items() if not self._is_done(one)]
        processes.check_agreed(f"the pictures that are edited in {self.folder}", str(todo))
        mine = [inputs[name] for name in todo[processes.index() :: processes.count()]]
        together = self.editor.together(self.n)
        failed: dict[str, str] = {}
        before, first = len(pictures) - len(todo), processes.is_first()
        progress = Progress("pictures", len(pictures), before, max(1, len(mine)), quiet=not first)
        with processes.stopping() as stop, progress:
            for turn in range(-(-len(todo) // (together * processes.count()))):
                chunk = mine[turn * together : (turn + 1) * together]
                failed |= self._of_chunk(chunk)
                if chunk:
                    progress.add(len(chunk))
                processes.barrier(f"edited {turn}")
                if stop.after_this_round():
                    raise Stopped(f"stopped by SIGTERM: {self.folder} keeps what is done; run the same command again")
        done = [one for one in inputs.values() if self._is_done(one)]
        if not done:
            reason = next(iter(failed.values()), "another process says why")
            raise InputError(reason if len(pictures) == 1 else f"No picture can be edited; the first one: {reason}")
        for reason in failed.values():
            print(f"warning: not edited: {reason}", file=sys.stderr)
        if first:
            already = f", {before} of them before" if before else ""
            print(f"{self.edit.name}: {len(done)} of {len(pictures)} pictures{already}, {self.n} answers each")
            alone = self._place(done[0]) if len(pictures) == 1 else self.folder
            print(f"  results: {alone}")

    def _of_chunk(self, chunk: Sequence[_Input]) -> dict[str, str]:
        """Edit some pictures together, write them, and return why others failed, by name."""
        failed: dict[str, str] = {}
        ready: list[tuple[_Input, Picture, Plan]] = []
        for one in chunk:
            try:
                picture = read_picture(one.path)
                plan = self.edit.plan(picture, one.number, self.editor.codec)
                self.editor.check(plan, picture, self.n)
                ready.append((one, picture, plan))
            except InputError as error:
                failed[one.name] = str(error)
        if not ready:
            return failed
        inputs, pictures, plans = zip(*ready, strict=True)
        try:
            edited = self.editor.edited(self.edit, pictures, plans, self.n, self.asked)
        except DivergenceError as error:
            if len(ready) == 1:
                return failed | {inputs[0].name: f"{inputs[0].path}: {error}"}
            for one in inputs:  # one picture may not spoil the others
                failed |= self._of_chunk([one])
            return failed
        for one, result in zip(inputs, edited, strict=True):
            self._write(one, result)
        return failed

    def _digests(self, path: pathlib.Path) -> dict[str, str] | None:
        """Return the digests of a picture and of what the edit reads for it; None if a file cannot be read."""
        try:
            return {"digest": files.digest_of_file(path), "reads": self.edit.digest_for(str(path))}
        except (OSError, InputError):
            return None

    def _is_done(self, one: _Input) -> bool:
        """Return whether the results of a picture are there, of files with the same content."""
        return one.digests is not None and _stated(self._place(one)) == one.digests

    def _place(self, one: _Input) -> pathlib.Path:
        """Return the folder of a picture; its name has a digest if the results of other content have the plain name."""
        assert one.digests is not None  # a picture that cannot be read has no results
        plain = self.folder / one.name
        if _stated(plain) in (None, one.digests):
            return plain
        return self.folder / f"{one.name}-{results.digest(one.digests)}"

    def _write(self, one: _Input, edited: Edited) -> None:
        """Write the results of one picture; about.json, which says that all are there, comes last."""
        if not (self.folder / "edit.json").exists():
            results.write(self.folder / "edit.json", {}, self.identity)
        at = self._place(one)
        for number in range(self.n):
            pixels = edited.with_alpha(number)
            plots.save_png(at / f"{number + 1}.png", pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        plots.save_png(at / "comparison.png", edited.comparison())
        about = {
            "picture": str(one.path),
            **(one.digests or {}),
            "edit": {"name": type(self.edit).__name__, **self.edit.settings()},
            "answers": self.n,
            "size": [edited.answers.shape[2], edited.answers.shape[1]],
            "spread": round(edited.mean_spread, 4),
            **edited.about,
        }
        files.write_text(at / "about.json", json.dumps(results.plain(about), indent=2) + "\n")


def _stated(folder: pathlib.Path) -> dict[str, str] | None:
    """Return the digests that the results in a folder state, or None without results."""
    try:
        found = json.loads((folder / "about.json").read_bytes())
        return {name: found[name] for name in ("digest", "reads")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


__all__ = ["EditPictures", "edit_pictures", "pictures_of", "read_edits"]
