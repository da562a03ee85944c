"""This module defines the editing job, which edits one picture or a folder of pictures with a trained model."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from score_sde import config as config_
from score_sde import editing, parallel, plots
from score_sde.core import files
from score_sde.core.checks import require_whole
from score_sde.core.errors import DivergenceError, InputError, Stopped
from score_sde.core.progress import Progress
from score_sde.editing import Edit, Edited, Editor, Picture, Plan, read_picture
from score_sde.experiment import Experiment, Model, check_same, load_trained, made_of, opened
from score_sde.experiment.guides import content_of, read_sampler
from score_sde.inverse import methods
from score_sde.jobs import results
from score_sde.jobs.base import Job
from score_sde.jobs.checkpoints import check_shared
from score_sde.jobs.evaluation import placed
from score_sde.parallel import processes
from score_sde.readers.pictures import ENDINGS, ending
from score_sde.sampling import time_grid

# Entries of config.edit on which no answer depends.
_OF_THE_JOB = ("what", "input", "batch_size")


class EditPictures(Job):
    """`EditPictures` edits the pictures of config.edit.input as config.edit.what names."""

    name = "edit"

    def check(self, experiment: Experiment) -> None:
        read_edits(experiment.config.edit)
        pictures_of(experiment.config.edit.input)

    def run(self, experiment: Experiment, workdir: pathlib.Path | None, **flags: str | None) -> None:
        assert workdir is not None
        edit_pictures(experiment, workdir)


def edit_pictures(experiment: Experiment | Mapping[str, Any], workdir: str | os.PathLike[str]) -> None:
    """Edit each picture of config.edit.input with each edit of config.edit.what, and print the paths.

    The results go to edits/NAME-DIGEST/, where the digest is that of the edit, the settings and the checkpoint. For the
    picture STEM.jpg they are STEM.png, the first answer; STEM-2.png and so on, further answers; STEM-comparison.png;
    and STEM.json, what was done. edit.json has the settings. A picture that is edited already is not edited again. A
    picture that cannot be edited is named, and the others are edited. If a run has several processes, each process
    calls this function.

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
    """Return the files of the pictures by the stems of their results, in the order of the names.

    Raises:
        InputError: if the path is no picture and no folder of pictures.
    """
    path = pathlib.Path(os.path.expanduser(str(given)))
    if not given:
        raise InputError(
            "edit.input is missing; expected a picture or a folder, such as --config.edit.input=photo.jpg."
        )
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise InputError(f"edit.input is {given!r}, which does not exist; expected a picture or a folder of pictures.")
    paths = sorted(file for file in path.rglob("*") if file.is_file() and ending(file.name) in ENDINGS)
    if not paths:
        raise InputError(
            f"edit.input {given!r} has no pictures; expected files that end in {', '.join(sorted(ENDINGS))}."
        )
    stems = [str(file.relative_to(path).with_suffix("")) for file in paths]
    counts = collections.Counter(stems)
    return {
        (stem if counts[stem] == 1 else str(file.relative_to(path))): file
        for stem, file in zip(stems, paths, strict=True)
    }


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
        identity = {"checkpoint_step": model.step, "checkpoint_digest": model.digest} | _settings(config, edit, asked)
        folder = workdir / "edits" / f"{edit.name}-{results.digest(identity)}"
        if processes.is_first():
            folder.mkdir(parents=True, exist_ok=True)
            if not results.is_there(folder, "edit", identity):
                results.write(folder / "edit.json", {}, identity)
        processes.barrier("edit")
        _Run(edit, editor, folder, config.edit.n, asked, max(1, config.edit.batch_size // config.edit.n))(pictures)


def _editor(settings: Any, model: Model, devices: parallel.Jit) -> Editor:
    """Return the editor that config.edit names."""
    sampler = (
        read_sampler(methods.one_spec("edit.sampler", settings.sampler), model.codec) if settings.sampler else None
    )
    grid = config_.build(time_grid, methods.one_spec("edit.grid", settings.grid), model.denoiser.sde)
    return model.editor(
        seed=settings.seed,
        guidance=settings.guidance,
        sampler=sampler,
        grid=grid,
        clip=settings.clip,
        batch_size=max(settings.batch_size, settings.n),
        precision=settings.precision,
        sharding=devices.sharded,
    )


def _settings(config: Any, edit: Edit, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything on which the answers depend, besides the checkpoint and the pictures."""
    settings = {name: value for name, value in config_.to_dict(config.edit).items() if name not in _OF_THE_JOB}
    kind = type(edit)
    name = kind.__name__ if kind.__module__.startswith("score_sde.") else f"{kind.__module__}.{kind.__qualname__}"
    content = content_of("edit.guidance", config.edit.guidance, asked)
    found = {"edit": {"name": name, **edit.settings()}, **settings}
    return found | ({"content": content} if content else {})


@dataclasses.dataclass(frozen=True)
class _Run:
    """`_Run` edits the pictures of one edit, and writes the results of each picture when they are there."""

    edit: Edit
    editor: Editor
    folder: pathlib.Path
    n: int
    asked: Mapping[str, Any]
    together: int

    def __call__(self, pictures: Mapping[str, pathlib.Path]) -> None:
        numbers = {stem: number for number, stem in enumerate(pictures)}
        todo = [stem for stem, path in pictures.items() if not self._is_done(stem, path)]
        processes.check_agreed(f"the pictures that are edited in {self.folder}", str(todo))
        mine = todo[processes.index() :: processes.count()]
        rounds = -(-len(todo) // (self.together * processes.count()))
        failed: dict[str, str] = {}
        before, first = len(pictures) - len(todo), processes.is_first()
        progress = Progress("pictures", len(pictures), before, max(1, len(mine)), quiet=not first)
        with processes.stopping() as stop, progress:
            for turn in range(rounds):
                chunk = mine[turn * self.together : (turn + 1) * self.together]
                failed |= self._of_chunk({stem: pictures[stem] for stem in chunk}, numbers)
                if chunk:
                    progress.add(len(chunk))
                processes.barrier(f"edited {turn}")
                if stop.after_this_round():
                    raise Stopped(f"stopped by SIGTERM: {self.folder} keeps what is done; run the same command again")
        for reason in failed.values():
            print(f"warning: not edited: {reason}", file=sys.stderr)
        done = [stem for stem, path in pictures.items() if self._is_done(stem, path)]
        if first:
            already = f", {before} of them before" if before else ""
            print(f"{self.edit.name}: {len(done)} of {len(pictures)} pictures{already}, {self.n} answers each")
            print(f"  results: {self.folder}")
            if len(done) == 1:
                at = self._file(done[0], pictures[done[0]], "")
                print(f"  picture: {at}.png\n  comparison: {at}-comparison.png")
        if not done:
            raise InputError(next(iter(failed.values())))

    def _of_chunk(self, chunk: Mapping[str, pathlib.Path], numbers: Mapping[str, int]) -> dict[str, str]:
        """Edit some pictures together, write them, and return why others failed, by stem."""
        failed: dict[str, str] = {}
        ready: dict[str, tuple[Picture, Plan]] = {}
        for stem, path in chunk.items():
            try:
                picture = read_picture(path)
                ready[stem] = picture, self.edit.plan(picture, numbers[stem], self.editor.codec)
            except InputError as error:
                failed[stem] = str(error)
        if not ready:
            return failed
        pictures, plans = zip(*ready.values(), strict=True)
        try:
            edited = self.editor.edited(self.edit, pictures, plans, self.n, self.asked)
        except DivergenceError as error:
            return failed | dict.fromkeys(ready, f"{', '.join(str(chunk[stem]) for stem in ready)}: {error}")
        for stem, one in zip(ready, edited, strict=True):
            self._write(stem, chunk[stem], one)
        return failed

    def _is_done(self, stem: str, path: pathlib.Path) -> bool:
        """Return whether the results of a picture are there, of a file with the same content."""
        try:
            found = json.loads(self._file(stem, path, ".json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("digest") == files.digest_of_file(path)

    def _file(self, stem: str, path: pathlib.Path, ending_: str) -> pathlib.Path:
        """Return the file of a result; another picture of the same name has a digest in its names."""
        about = self.folder / f"{stem}.json"
        try:
            known = json.loads(about.read_bytes()).get("digest")
        except (OSError, ValueError, AttributeError):
            known = None
        digest = files.digest_of_file(path)
        same = known in (None, digest)
        return self.folder / f"{stem}{'' if same else '-' + digest[:8]}{ending_}"

    def _write(self, stem: str, path: pathlib.Path, edited: Edited) -> None:
        """Write the results of one picture; the JSON file, which says that all are there, comes last."""
        at = self._file(stem, path, "")
        at.parent.mkdir(parents=True, exist_ok=True)
        for number in range(self.n):
            name = at.with_name(f"{at.name}{'' if number == 0 else f'-{number + 1}'}.png")
            plots.save_png(name, edited.with_alpha(number).astype(np.uint8).squeeze())
        plots.save_png(at.with_name(f"{at.name}-comparison.png"), edited.comparison())
        about = {
            "picture": str(path),
            "digest": files.digest_of_file(path),
            "edit": {"name": type(self.edit).__name__, **self.edit.settings()},
            "answers": self.n,
            "size": [edited.answers.shape[2], edited.answers.shape[1]],
            "spread": round(edited.mean_spread, 4),
            **edited.about,
        }
        files.write_text(at.with_name(f"{at.name}.json"), json.dumps(results.plain(about), indent=2) + "\n")


__all__ = ["EditPictures", "edit_pictures", "pictures_of", "read_edits"]
