"""Flags of XLA under which tests compile faster: compiling is most of what they wait for."""

import importlib.metadata

# Without fusion emitters compiling takes half as long. XLA ends a process for a flag that it does not know; JAX 0.12's
# does not know this one.
_KNOWN = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12)


def flags(level: int) -> str:
    """The flags with an optimisation level of the backend."""
    return f"--xla_backend_optimization_level={level}" + " --xla_cpu_use_fusion_emitters=false" * _KNOWN
