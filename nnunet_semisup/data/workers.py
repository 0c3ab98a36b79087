"""Decide what a data loading process does when the run is stopped or training is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from types import FrameType

import torch

GRACE_SECONDS = 15.0
"""How long a worker goes on after SIGTERM."""


def prepare_worker() -> None:
    """Let the training process decide when this worker process ends; elsewhere do nothing.

    A terminal sends Ctrl-C, and a batch scheduler SIGTERM, to all processes of a job at once. If
    the workers ended first, the training process would wait in vain for its next batch instead of
    finishing the step and saving. So Ctrl-C is ignored, SIGTERM acts after
    :data:`GRACE_SECONDS`, and a worker whose training process is gone (killed, out of memory) ends
    instead of staying behind.

    A worker has one thread: a forked one that opens a parallel region waits forever where its
    training process had threads at the time of the fork.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_later(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(GRACE_SECONDS, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
