"""Train, evaluate, and draw samples, from the command line.

python main.py --config=configs/digits.py --workdir=runs/digits --mode=train,eval,sample
"""

import importlib
import sys
import warnings

from absl import app, flags, logging
from ml_collections import config_flags

from score_sde import config as config_
from score_sde import data, parallel
from score_sde.core.errors import DivergenceError, InputError, Stopped
from score_sde.parallel import processes

MODES = {
    "train": ("score_sde.training", "train"),
    "eval": ("score_sde.evaluation", "evaluate"),
    "sample": ("score_sde.evaluation", "draw_samples"),
    "import": ("score_sde.published", "run"),
    "describe": ("score_sde.description", "run"),
}

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True, help_string="Config file, FILE or FILE:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: config, checkpoints, log, samples.")
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "Several processes make one run; Slurm, Open MPI, Kubernetes or the TPU pod says which."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of a run of several, on plain hosts.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes make the run, on plain hosts.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0, on plain hosts.")
_WEIGHTS = flags.DEFINE_string("weights", None, "For --mode=import: a .pth file, or a msgpack checkpoint of flax.")
_EXPECT = flags.DEFINE_string(
    "expect", None, "For --mode=import: an .npz file of x, label and output, to compare with."
)
_MODE = flags.DEFINE_list("mode", None, f"What to do, one or several, in order: {', '.join(MODES)}.")


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise InputError(f"Unexpected argument {argv[1]!r}; flags start with --, as in --config=configs/digits.py.")
    needs_no_workdir = _MODE.value == ["describe"]
    for name, value in (("config", _CONFIG.value), ("workdir", _WORKDIR.value), ("mode", _MODE.value)):
        if not value and not (name == "workdir" and needs_no_workdir):
            raise InputError(
                f"--{name} is missing; for example --config=configs/digits.py --workdir=runs/digits --mode=train."
            )
    for mode in _MODE.value:
        if mode not in MODES:
            raise InputError(f"--mode has {mode!r}; expected one or several of {', '.join(MODES)}.")
    for name, value in (("weights", _WEIGHTS.value), ("expect", _EXPECT.value)):
        if value and "import" not in _MODE.value:
            raise InputError(f"--{name} is for --mode=import, and --mode is {','.join(_MODE.value)}.")
    config_.check_complete(_CONFIG.value)
    plain = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if _DISTRIBUTED.value or plain != (None, None, None):
        processes.connect(*plain)
    train, count = _CONFIG.value.train, _PROCESSES.value or (None if _DISTRIBUTED.value else 1)
    parallel.request_cpu_devices(_CONFIG.value.data.batch_size // max(train.get("microbatches", 1), 1), count)
    parallel.use_compile_cache(data.cache_dir() / "compiled")
    for mode in _MODE.value:
        module, function = MODES[mode]
        job = getattr(importlib.import_module(module), function)
        if mode == "describe":
            job(_CONFIG.value)
        elif mode == "import":
            job(_CONFIG.value, _WORKDIR.value, _WEIGHTS.value, _EXPECT.value)
        else:
            job(_CONFIG.value, _WORKDIR.value)
    processes.disconnect()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _warn(message: Warning | str, *_: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _run(argv: list[str]) -> None:
    try:
        main(argv)
    except Stopped as stopped:
        if processes.is_first():
            print(stopped)
        processes.disconnect()
    except (InputError, DivergenceError, OSError) as error:
        processes.leave(f"error: {_one_line(error)}")
    except KeyboardInterrupt:
        processes.leave("stopped; training goes on from its last checkpoint with the same command")
    except Exception as error:
        processes.leave_after(error)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, OSError, ImportError, SyntaxError, AttributeError, KeyError, TypeError, ValueError) as error:
        # What a config file raises comes with its traceback as text.
        sys.exit(f"error: {_one_line(error).rpartition('InputError: ')[2]}")


if __name__ == "__main__":
    logging.set_verbosity(logging.FATAL)  # what a library logs as an error is raised too, and told in one line
    warnings.showwarning = _warn  # type: ignore[assignment]
    app.run(_run, flags_parser=_parse)
