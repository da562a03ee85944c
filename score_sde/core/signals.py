"""This module handles the request to stop a process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """`StopRequest` records whether the process has been asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextlib.contextmanager
def catch_sigterm() -> Iterator[StopRequest]:
    """Yield a `StopRequest` that records SIGTERM, which then does not end the process.

    Outside the main thread the handling of signals does not change.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
