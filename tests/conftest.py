"""Every test has two CPU devices and fast compilation; the environment is set before the import of JAX."""

import gc
import os
import pathlib
import shutil
import tempfile

from tests import cheap_compiles

# The workers of one run share compiled programs; the end of the run deletes the programs.
OWNS_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWNS_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="score_sde-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.0"
os.environ.setdefault("NPROC", "8")  # XLA's threads: docs/performance.md, Threads of a CPU
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=2 {cheap_compiles.flags(0)}")

import jax
import pytest

import score_sde as ss

# The slowest files come first; a slow file at the end keeps one worker busy while the other workers wait.
LONGEST = ("faults", "verify", "processes", "docs", "main", "likelihood", "laws", "accelerator_script", "published")


# tests/slow.txt lists tests that take more than about 4 s on two cores; other such tests have a mark in their own file.
# A name without [...] stands for all parameters. The mark is `slow`, or `long` if a test of the same kind stays quick
# or slow. `python -m pytest --durations=0` prints the seconds of each test.
LISTED = dict(
    reversed(line.split(" ", 1)) for line in (pathlib.Path(__file__).parent / "slow.txt").read_text().splitlines()
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        mark = LISTED.get(item.nodeid) or LISTED.get(item.nodeid.partition("[")[0])
        if mark:
            item.add_marker(mark)
    rank = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


# Linux gives a process 65,530 memory maps (vm.max_map_count); a compiled program needs about three, and the compiler
# ends in a segmentation fault without them.
MOST_MAPS = 25_000


def pytest_runtest_teardown(item, nextitem):
    """Forget the compiled programs between two files once there are many; the cache on the disk keeps them."""
    maps = pathlib.Path("/proc/self/maps")
    between_files = nextitem is None or nextitem.path != item.path
    if between_files and maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


def pytest_unconfigure():
    if OWNS_CACHE:
        shutil.rmtree(os.environ.pop("JAX_COMPILATION_CACHE_DIR"), ignore_errors=True)


SDES = {"vp": ss.VP(), "subvp": ss.SubVP(), "ve": ss.VE(sigma_max=20.0)}


# SubVP agrees with VP in every property in which VP and VE differ.
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name == "subvp" else ()) for name in SDES])
def sde(request):
    return SDES[request.param]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compiles():
    """Yield a list that gets one entry for each program that XLA compiles."""
    events: list[str] = []

    def listen(event: str, duration: float, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)
