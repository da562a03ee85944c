"""What the runtime's own C++ code prints, made fit to read: this file is also a small program that does it.

A process whose peer has died is ended by the runtime itself, from a thread of C++, with a stack trace; no
handler in Python runs. So its file descriptors 1 and 2 lead to a filter, a process of its own that lives
until the last writer is gone, and says in one line what happened. Python's own output does not pass through it.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

LOST = (
    "error: another process of this run has ended or cannot be reached: start all of them again with the same "
    "command, and the run goes on from what is saved"
)
# The runtime's last words, whichever way it has found out.
_FATAL = re.compile(rb"JAX distributed service detected fatal errors")
_LAST = b"\x01"  # begins a line from Python that is to be the last one
_CHATTER = re.compile(
    rb".*(\[Gloo\]|peer ranks)|[IWE]\d{4} .*(preemption_sync_manager|preemption_notifier|coordination_service)"
    rb"|Additional GRPC error|:[A-Z_]+:|RPC: /xla\.coordination|The tasks have crashed|\d+$|$"
    rb"|=== Source Location Trace|external/\S+:\d+$|\. This is only expected"
)


def passed_on(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines a user should see: all but known chatter, and nothing after one that says why the process ends."""
    ended = False
    for line in lines:
        if ended:
            continue
        _, mark, last = line.partition(_LAST)  # what stands before it is a line that C++ has not ended
        if mark or _FATAL.search(line):
            ended = True
            yield last if mark else LOST.encode() + b"\n"
        elif not _CHATTER.match(line):
            yield line


def redirect() -> None:
    """Lead file descriptors 1 and 2 through the filter; sys.stdout and sys.stderr go where they went."""
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout, sys.stderr = (os.fdopen(os.dup(descriptor), "w", buffering=1) for descriptor in (1, 2))
    # In a session of its own: a Ctrl-C is for the run, and the filter ends when its input does.
    command = [sys.executable, "-I", "-S", __file__]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    assert child.stdin is not None
    for descriptor in (1, 2):
        os.dup2(child.stdin.fileno(), descriptor)
    child.stdin.close()


def say_last(message: str) -> None:
    """Tell why the process ends; the runtime may find a reason of its own at the same time, and one line comes out."""
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(2, _LAST + message.encode() + b"\n")


if __name__ == "__main__":
    for shown in passed_on(sys.stdin.buffer):
        sys.stdout.buffer.write(shown)
        sys.stdout.buffer.flush()
