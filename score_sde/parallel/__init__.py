"""This package counts devices and processes, and lets one run use all of them."""

from score_sde.parallel import processes
from score_sde.parallel.host import ask_determinism, host_device, request_cpu_devices, usable_cores, use_compile_cache
from score_sde.parallel.strategy import Fsdp, Jit, Pmap, ahead, check_batch, strategy

__all__ = [
    "Fsdp",
    "Jit",
    "Pmap",
    "ahead",
    "ask_determinism",
    "check_batch",
    "host_device",
    "processes",
    "request_cpu_devices",
    "strategy",
    "usable_cores",
    "use_compile_cache",
]
