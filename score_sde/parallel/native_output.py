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
_FATAL = re.compile(rb"JAX distributed service detected fatal errors|" + re.escape(LOST.encode()))
_CHATTER = re.compile(
    rb".*(\[Gloo\]|peer ranks)|[IWE]\d{4} .*(preemption_sync_manager|preemption_notifier|coordination_service)"
    rb"|Additional GRPC error|:UNKNOWN:|RPC: /xla\.coordination|The tasks have crashed|\d+$|$"
)


def passed_on(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines a user should see: all but known chatter, and for a lost peer one line and nothing after it."""
    lost = False
    for line in lines:
        if lost:
            continue
        if _FATAL.search(line):
            lost = True
            yield LOST.encode() + b"\n"
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


def say_lost() -> None:
    """Tell that a peer is gone; at most one such line comes out, be it said from here or by the runtime."""
    with contextlib.suppress(OSError):
        os.write(2, LOST.encode() + b"\n")


if __name__ == "__main__":
    for shown in passed_on(sys.stdin.buffer):
        sys.stdout.buffer.write(shown)
        sys.stdout.buffer.flush()
