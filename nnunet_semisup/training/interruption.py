"""Turns SIGINT and SIGTERM into a flag that the training loop reads between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

GRACE = 2.0
"""Seconds after the first signal in which others belong to it: a scheduler signals all processes of
a job, and the system then signals the children whose parent that ended."""


class Interruption:
    """Make the first SIGINT or SIGTERM only set :attr:`signal_number` inside.

    A second signal, more than :data:`GRACE` later, acts as it would have without this context, for
    a user who does not want to wait. Worker processes forked inside the context ignore Ctrl-C (the
    main process stops them) and die on SIGTERM. Outside the main thread nothing is installed.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._asked_at = 0.0
        self._owner = os.getpid()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        self._owner = os.getpid()
        self.signal_number = None
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.signal_number is not None:
            if time.monotonic() - self._asked_at > GRACE:
                self._restore()
                signal.raise_signal(number)
            return
        self.signal_number, self._asked_at = number, time.monotonic()
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving after this step; again to stop at once\n".encode())
