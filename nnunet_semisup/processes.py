"""Processes that may outlive the command which started them, because that was killed.

Such a process inherits a lock of its folder: whoever starts the command again waits for it instead
of starting another beside it.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_semisup.errors import UserError
from nnunet_semisup.training.interruption import Interruption

POLL = 0.5
"""Seconds between two looks at a process or a lock."""
NOTE_EVERY = 60.0
"""Seconds between two notes of a process that goes on."""


@contextmanager
def inheritable_lock(
    folder: Path, stop: Interruption, waiting: Callable[[], None] = lambda: None
) -> Iterator[int | None]:
    """Wait for a folder's lock and give its descriptor; ``None`` after an interruption.

    It is for ``pass_fds`` of a process, which holds the lock as long as it lives. Not on Windows.

    Args:
        folder: gets a file ``lock``.
        stop: tells of an interruption.
        waiting: called once where another process holds it.

    Raises:
        UserError: it cannot be locked.
    """
    import fcntl

    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    told = False
    try:
        while stop.signal_number is None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting()
                told = True
                time.sleep(POLL)
                continue
            except OSError as error:  # A file system without locks gives none.
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP):
                    raise UserError(
                        f"{folder / 'lock'} cannot be locked ({error.strerror}); name a folder on "
                        "another disk."
                    ) from error
            yield descriptor
            return
        yield None
    finally:
        os.close(descriptor)


def wait_for(
    process: subprocess.Popen[bytes], stop: Interruption, note: Callable[[], None] = lambda: None
) -> tuple[int, float]:
    """Wait for a process, pass an interruption on as SIGTERM; return exit code and peak MiB.

    Args:
        process: a child of this one.
        stop: tells of an interruption.
        note: called each minute.
    """
    told, noted = False, time.monotonic()
    while True:
        if (ended := _ended(process)) is not None:
            return ended
        if stop.signal_number is not None and not told:
            process.send_signal(signal.SIGTERM)
            told = True
        if time.monotonic() - noted >= NOTE_EVERY:
            note()
            noted = time.monotonic()
        time.sleep(POLL)


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, float] | None:
    """Return exit code and peak MiB (0 where the system does not tell), once it has ended."""
    if not hasattr(os, "wait4"):
        code = process.poll()
        return None if code is None else (code, 0.0)
    pid, status, used = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
