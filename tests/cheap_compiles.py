"""This module has XLA flags that shorten compilation; the tests spend most of their time in compilation."""

import importlib.metadata

# Compilation without fusion emitters takes half the time. XLA ends a process for an unknown flag, and the XLA of
# JAX 0.12 does not know this flag.
_KNOWN = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12)


def flags(level: int) -> str:
    """Return the XLA flags with an optimisation level of the backend."""
    return f"--xla_backend_optimization_level={level}" + " --xla_cpu_use_fusion_emitters=false" * _KNOWN
