"""This module is the command line: it trains and evaluates models, and draws samples.

score-sde --config=digits --workdir=runs/digits --mode=train,eval,sample
score-sde --workdir=runs/digits --mode=sample --config.sample.n=16   (with the config of the workdir)
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import traceback
import warnings
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from score_sde import config as config_
from score_sde import data, jobs, parallel
from score_sde.core import remote
from score_sde.core.errors import DivergenceError, InputError, Stopped
from score_sde.experiment import Experiment, opened, read_config
from score_sde.jobs import Job
from score_sde.parallel import processes

_SMALLER = (
    "to use less memory: more train.microbatches, network.remat='full', network.dtype='bfloat16', or a smaller "
    "batch_size of data, eval or sample (--mode=describe estimates a training step)."
)
_JOBS = (
    jobs.Train,
    jobs.Evaluate,
    jobs.Sample,
    jobs.EditPictures,
    jobs.Report,
    jobs.Prepare,
    jobs.Import,
    jobs.Describe,
    jobs.Stats,
    jobs.TrainClassifier,
)
BUILT_IN = {job.name: job for job in _JOBS}

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: config, checkpoints, log, samples; or its address, such as gs://bucket/run."
)
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "Use several processes for the run, as set up by Slurm, Open MPI, Kubernetes or the TPU pod."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for several processes on plain hosts.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes of the run on plain hosts.")
_PROCESS = flags.DEFINE_integer("process", None, "Index of this process on plain hosts, from 0.")
_DETERMINISTIC = flags.DEFINE_boolean(
    "deterministic", False, "Compute the same numbers in each run on a GPU, but more slowly (docs/reliability.md)."
)
_MODE = flags.DEFINE_list(
    "mode", None, f"Jobs to run, one or several, in order: {', '.join(BUILT_IN)}, or the dotted path of your own job."
)


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise InputError(f"Unexpected argument {argv[1]!r}; flags start with --, as in --config=configs/digits.py.")
    modes: list[str] = _MODE.value or []
    config: Any = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
    chosen = {mode: find_job(mode) for mode in modes}
    needs_workdir = not modes or any(job.needs_workdir for job in chosen.values())
    for name, value in (("config", config), ("workdir", _WORKDIR.value), ("mode", modes)):
        if not value and not (name == "workdir" and not needs_workdir):
            raise InputError(
                f"--{name} is missing; for example --config=configs/digits.py --workdir=runs/digits --mode=train"
                + (" (a workdir with a config needs no --config)." if name == "config" else ".")
            )
    for job in _every_job(modes):
        for name in job.flags:
            if flags.FLAGS[name].value and job.name not in (each.name for each in chosen.values()):
                raise InputError(f"--{name} is for --mode={job.name}, but --mode is {','.join(modes)}.")
    config = config_.complete(config)
    if _DETERMINISTIC.value:
        parallel.ask_determinism()
    plain = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if _DISTRIBUTED.value or plain != (None, None, None):
        processes.connect(*plain)
    count = _PROCESSES.value or (None if _DISTRIBUTED.value else 1)
    parallel.request_cpu_devices(config.data.batch_size // max(config.train.microbatches, 1), count)
    parallel.use_compile_cache(data.cache_dir() / "compiled")
    experiment = Experiment.from_config(config)
    for job in chosen.values():
        job.check(experiment)
    if _WORKDIR.value and set(chosen) - {"train", "describe"}:
        jobs.check_shared(_WORKDIR.value)
    with opened(_WORKDIR.value, writes=needs_workdir) if _WORKDIR.value else contextlib.nullcontext() as workdir:
        for job in chosen.values():
            job.run(experiment, workdir, **{name: flags.FLAGS[name].value for name in job.flags})
    if workdir is not None and remote.is_address(_WORKDIR.value) and processes.is_first():
        print(f"all results are at {_WORKDIR.value}")
    processes.disconnect()


def find_job(mode: str) -> Job:
    """Return the job that a word of --mode names."""
    if mode in BUILT_IN:
        return BUILT_IN[mode]()
    if "." in mode:
        found: Job = config_.build(jobs, {"name": mode}, base=Job)
        return found
    raise InputError(
        f"--mode has {mode!r}; expected one or several of {', '.join(BUILT_IN)}, or the dotted path of your own job."
    )


def _every_job(modes: list[str]) -> list[Job]:
    """Return the built-in jobs, and the user's own jobs that are named."""
    return [job() for job in BUILT_IN.values()] + [find_job(mode) for mode in modes if mode not in BUILT_IN]


def _one_line(error: BaseException) -> str:
    # str(KeyError) shows the text of the error in quotes.
    return " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())


def _place(error: BaseException) -> str:
    """Return the last line of the user's own code that an error passed; '' if only the library was running."""
    package, library = str(pathlib.Path(__file__).parent), str(pathlib.Path(os.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [place for place, frame in enumerate(frames) if frame.filename.startswith(package)]
    own = [
        frame
        for frame in frames[inside[0] if inside else len(frames) :]
        if not frame.filename.startswith((package, library, "<")) and "site-packages" not in frame.filename
    ]
    return f" (at {own[-1].filename}:{own[-1].lineno})" if own else ""


def _warn(message: Warning | str, *_: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _run(argv: list[str]) -> None:
    try:
        main(argv)
    except Stopped as stopped:
        if processes.is_first():
            print(stopped)
        processes.disconnect()
    except (InputError, DivergenceError) as error:
        processes.leave(f"error: {_one_line(error)}")
    except OSError as error:
        processes.leave(f"error: {_one_line(error)}{_place(error)}")
    except KeyboardInterrupt:
        processes.leave("stopped; the same command resumes, training from its last checkpoint")
    except Exception as error:
        if str(error).startswith("RESOURCE_EXHAUSTED"):  # XLA's status if a device has too little memory
            processes.leave(f"error: the device has too little memory ({_one_line(error)[:200]}); {_SMALLER}")
        processes.leave_after(error)


def _parse(argv: list[str]) -> list[str]:
    try:
        for job in _every_job(_values_of("mode", argv, ",")):
            for name, what in job.flags.items():
                flags.DEFINE_string(name, None, f"For --mode={job.name}: {what}.")
        # The file is read here, so that every entry has its default before a flag changes it.
        paths, workdirs = _values_of("config", argv), _values_of("workdir", argv)
        argv = [word for word in argv if not word.startswith(("--config=", "-config="))]
        config = config_.read_file(paths[-1]) if paths else None
        if config is None and workdirs:
            config = read_config(os.path.expanduser(workdirs[-1]))
            if config is None and any(word.startswith("--config.") for word in argv):
                sys.exit(f"error: {workdirs[-1]} has no config.json; expected a trained workdir, or --config=FILE.")
        if config is not None:
            argv = [word for word in argv if not _is_added(config, word)]
            config_flags.DEFINE_config_dict("config", config, lock_config=True, sys_argv=argv)
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        sys.exit(f"error: {_one_line(error)}; an entry of the config is a flag such as --config.train.steps=1000.")
    except (flags.Error, OSError, ImportError, SyntaxError, AttributeError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"error: {_one_line(error)}")


def _is_added(config: Any, word: str) -> bool:
    """Add an argument to a spec of the config if a word of the command line gives one; return whether it was added."""
    flag, equals, text = word.partition("=")
    name = flag.lstrip("-").removeprefix("config.")
    return bool(equals) and flag.startswith(("--config.", "-config.")) and config_.add_argument(config, name, text)


def _values_of(name: str, argv: list[str], separator: str | None = None) -> list[str]:
    """Return the values of a flag before flags are parsed; `--name value` becomes `--name=value` in argv."""
    found = []
    for place in range(len(argv) - 1, 0, -1):
        if argv[place] in (f"--{name}", f"-{name}") and place + 1 < len(argv):
            argv[place : place + 2] = [f"--{name}={argv[place + 1]}"]
    for word in argv[1:]:
        flag, equals, value = word.partition("=")
        if equals and flag in (f"--{name}", f"-{name}"):
            found += [each for each in value.split(separator) if each] if separator else [value]
    return found


def run() -> None:
    """Run the command line, and exit with status 1 after an error."""
    sys.path.append(str(pathlib.Path.cwd()))  # for the user's own classes, which are named by their dotted paths
    logging.set_verbosity(logging.FATAL)  # an error that a library logs is also raised, and printed in one line
    warnings.showwarning = _warn  # type: ignore[assignment]
    app.run(_run, flags_parser=_parse)
