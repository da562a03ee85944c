"""Two CPU devices for every test, and cheaper compiles; set before JAX is imported."""

import os
import pathlib
import shutil
import tempfile

from tests import cheap_compiles

# Compiled programs are shared by the workers of one run, and go with it.
OWNS_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWNS_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="score_sde-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.0"
os.environ.setdefault("NPROC", "8")  # threads of XLA's: docs/performance.md, Threads of a CPU
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=2 {cheap_compiles.flags(0)}")

import jax
import pytest

import score_sde as ss

# Files that take longest come first: whatever comes last keeps one worker busy while the others wait.
LONGEST = ("faults", "verify", "processes", "docs", "main", "likelihood", "laws", "accelerator_script", "published")


# Tests that take more than about 4 s on two cores, beside those that are marked where they stand: `slow`, or `long`
# where a test of the same kind stays quick or slow. `python -m pytest --durations=0` tells the seconds.
LISTED = dict(
    reversed(line.split(" ", 1)) for line in (pathlib.Path(__file__).parent / "slow.txt").read_text().splitlines()
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid in LISTED:
            item.add_marker(LISTED[item.nodeid])
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def pytest_unconfigure():
    if OWNS_CACHE:
        shutil.rmtree(os.environ.pop("JAX_COMPILATION_CACHE_DIR"), ignore_errors=True)


SDES = {"vp": ss.VP(), "subvp": ss.SubVP(), "ve": ss.VE(sigma_max=20.0)}


# SubVP is like VP in all that VP and VE differ in.
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name == "subvp" else ()) for name in SDES])
def sde(request):
    return SDES[request.param]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compiles():
    """A list that grows by one for every program that XLA compiles."""
    seen: list[str] = []

    def listen(event: str, duration: float, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
