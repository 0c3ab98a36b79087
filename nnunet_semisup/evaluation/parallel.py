"""One function over many cases, in worker processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from nnunet_semisup.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Job], Result], jobs: Sequence[Job], num_processes: int, description: str
) -> list[Result]:
    """``[function(job) for job in jobs]`` in ``num_processes`` spawned processes.

    One process means this one. ``function``, jobs and results must be picklable.

    Raises:
        UserError: a worker was killed, which is almost always a lack of memory.
    """
    if num_processes <= 1 or len(jobs) <= 1:
        return [function(job) for job in tqdm(jobs, desc=description)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_processes, len(jobs)), mp_context=context) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc=description):
                future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"a worker process ended abruptly during '{description}' with {num_processes} "
                "processes, most likely out of memory. Run again with a smaller -np."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]
