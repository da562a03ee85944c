"""Being asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether the process has been asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextlib.contextmanager
def catch_sigterm() -> Iterator[StopRequest]:
    """While inside, SIGTERM is noted instead of ending the process; outside the main thread nothing is changed."""
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
