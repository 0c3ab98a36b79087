"""Runs of a benchmark as jobs of a cluster, by submitit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnunet_semisup.benchmark.design import Layout, Run, read_design
from nnunet_semisup.benchmark.execute import Place, run_one
from nnunet_semisup.benchmark.record import read_record
from nnunet_semisup.errors import UserError
from nnunet_semisup.training.interruption import Interruption

_POLL = 5.0


def run_job(layout: Layout, run: Run, place: Place) -> str:
    """Make a run as a job does, and return its status."""
    with Interruption() as stop:
        return run_one(layout, read_design(layout), run, place, stop).status


def executor_of(layout: Layout, cluster: str, parameters: Mapping[str, Any]) -> Any:
    """Return submitit's executor.

    Args:
        layout: of the benchmark, on a file system that the nodes see.
        cluster: ``slurm``, or ``local`` for processes on this machine.
        parameters: of the executor, such as ``slurm_partition`` or ``timeout_min``.

    Raises:
        UserError: submitit is not installed, or does not take these parameters.
    """
    try:
        import submitit
    except ImportError:
        raise UserError(
            "--cluster needs submitit. Run: pip install 'nnunet-semisup[cluster]'"
        ) from None
    try:
        executor = submitit.AutoExecutor(folder=layout.folder / "jobs", cluster=cluster)
        executor.update_parameters(**parameters)
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"submitit refuses cluster {cluster} with {dict(parameters)}: {error}"
        ) from error
    return executor


def submit(
    layout: Layout,
    runs: Sequence[Run],
    place: Place,
    executor: Any,
    after_each: Callable[[], None],
) -> None:
    """Submit runs as jobs and wait for them; jobs go on when this command is stopped.

    Args:
        layout: of the benchmark.
        runs: to be made.
        place: where each computes.
        executor: of :func:`executor_of`.
        after_each: called whenever a run has ended.
    """
    jobs = {run: executor.submit(run_job, layout, run, place) for run in runs}
    print(f"{len(jobs)} jobs submitted; they go on when this command is stopped")
    waiting = dict(jobs)
    while waiting:
        for run, job in list(waiting.items()):
            if job.done():
                del waiting[run]
                status = read_record(layout, run).status
                print(f"{run.title}: {status}, {len(waiting)} of {len(jobs)} jobs left", flush=True)
                after_each()
        time.sleep(_POLL if waiting else 0)
