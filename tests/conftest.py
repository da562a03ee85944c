"""Two CPU devices for every test, and cheaper compiles; set before JAX is imported."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=1")

import jax
import pytest

import score_sde as ss

SDES = {"vp": ss.VP(), "subvp": ss.SubVP(), "ve": ss.VE(sigma_max=20.0)}


@pytest.fixture(params=SDES, ids=list(SDES))
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
