"""This module filters the output of the JAX runtime's C++ code; the file is also the program that filters.

If a process of a run ends unexpectedly, the runtime ends the other processes from a C++ thread, with a stack trace; no
handler in Python runs. Therefore file descriptors 1 and 2 lead to a filter. The filter is a separate process. It
runs until the last writer has ended, and prints one line about the failure. Output of Python bypasses the filter.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

LOST = (
    "error: another process of this run has ended or cannot be reached: start all processes again with the same "
    "command, and the run resumes from what is saved"
)
# The runtime prints this line before it ends a process, however it detected the failure.
_FATAL = re.compile(rb"JAX distributed service detected fatal errors")
_LAST = b"\x01"  # marks a line from Python as the last line to print
_CHATTER = re.compile(
    rb".*(\[Gloo\]|peer ranks)|[IWE]\d{4} .*(preemption_sync_manager|preemption_notifier|coordination_service)"
    rb"|Additional GRPC error|:[A-Z_]+:|RPC: /xla\.coordination|The tasks have crashed|\d+$|$"
    rb"|=== Source Location Trace|external/\S+:\d+$|\. This is only expected"
)


def passed_on(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines for the user: no known runtime messages, and nothing after the line that gives the failure."""
    ended = False
    for line in lines:
        if ended:
            continue
        _, mark, last = line.partition(_LAST)  # before the mark: an unfinished line of C++
        if mark or _FATAL.search(line):
            ended = True
            yield last if mark else LOST.encode() + b"\n"
        elif not _CHATTER.match(line):
            yield line


def redirect() -> None:
    """Redirect file descriptors 1 and 2 to the filter; sys.stdout and sys.stderr keep their old targets."""
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout, sys.stderr = (os.fdopen(os.dup(descriptor), "w", buffering=1) for descriptor in (1, 2))
    # The filter has its own session, because Ctrl-C is for the run; the filter ends at the end of its input.
    command = [sys.executable, "-I", "-S", __file__]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    assert child.stdin is not None
    for descriptor in (1, 2):
        os.dup2(child.stdin.fileno(), descriptor)
    child.stdin.close()


def say_last(message: str) -> None:
    """Print why the process ends; only one line appears, even if the runtime reports a failure at the same time."""
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(2, _LAST + message.encode() + b"\n")


if __name__ == "__main__":
    for shown in passed_on(sys.stdin.buffer):
        sys.stdout.buffer.write(shown)
        sys.stdout.buffer.flush()
