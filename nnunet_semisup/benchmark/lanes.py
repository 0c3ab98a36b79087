"""Runs of a benchmark on this machine: some at a time, each from where it stands."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from nnunet_semisup.benchmark.design import Design, Layout, Run
from nnunet_semisup.benchmark.execute import Place, run_one
from nnunet_semisup.benchmark.progress import Progress
from nnunet_semisup.benchmark.record import Record, read_record
from nnunet_semisup.training.interruption import Interruption

_POLL = 2.0


def to_do(layout: Layout, runs: Sequence[Run], retry: bool) -> list[Run]:
    """Return the runs that are neither finished nor, without ``retry``, failed."""
    settled = {"finished"} if retry else {"finished", "failed"}
    return [run for run in runs if read_record(layout, run).status not in settled]


def run_lanes(
    layout: Layout,
    design: Design,
    runs: Sequence[Run],
    places: Sequence[Place],
    after_each: Callable[[], None],
) -> bool:
    """Make runs, one at a time in each lane; a run that fails stops no other.

    Args:
        layout: of the benchmark.
        design: what is compared.
        runs: to be made, in their order.
        places: one a lane.
        after_each: called in this thread whenever a run has ended.

    Returns:
        Whether none was interrupted.
    """
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
    for run in runs:
        waiting.put(run)
    ended: queue.SimpleQueue[tuple[Run, Record]] = queue.SimpleQueue()
    current: dict[int, Run] = {}

    def work(lane: int, place: Place, stop: Interruption) -> None:
        while stop.signal_number is None:
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            current[lane] = run
            try:
                record = run_one(layout, design, run, place, stop)
            except Exception as error:  # A lane's other runs go on, whatever this one met.
                record = Record(status="failed", fault=f"{type(error).__name__}: {error}")
            finally:
                current.pop(lane, None)
            ended.put((run, record))

    progress = Progress(layout, design, runs, len(places))
    with Interruption() as stop:
        threads = [
            threading.Thread(target=work, args=(lane, place, stop))
            for lane, place in enumerate(places)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or not ended.empty():
            _tell(ended, progress, after_each)
            for lane, run in list(current.items()):
                progress.update(lane, run)
        progress.close()
        return stop.signal_number is None


def _tell(
    ended: queue.SimpleQueue[tuple[Run, Record]],
    progress: Progress,
    after_each: Callable[[], None],
) -> None:
    """Wait a moment for a run to end, and say how."""
    try:
        run, record = ended.get(timeout=_POLL)
    except queue.Empty:
        return
    if record.status != "running":
        progress.finish(run)
        told = f"{run.title}: {record.status}"
        progress.write(told if not record.fault else f"{told} ({record.fault})")
        after_each()
