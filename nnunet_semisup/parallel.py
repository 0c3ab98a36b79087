"""Run one function over many cases, in spawned processes or in this one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from nnunet_semisup.errors import CaseError, UserError, WorkerError

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_parallel(
    function: Callable[..., Result],
    arguments: Mapping[str, tuple[Any, ...]],
    num_processes: int,
    description: str,
    show_progress: bool = True,
) -> dict[str, Result]:
    """Call ``function(*arguments[name])`` for every name and show the progress.

    Args:
        function: importable by name, because the processes are spawned.
        arguments: positional arguments by name of the case.
        num_processes: spawned processes; 0 runs everything in this process.
        description: label of the progress bar.
        show_progress: whether to show the bar.

    Returns:
        The results by name, in the order of ``arguments``.

    Raises:
        CaseError: the first failing case, by name.
        WorkerError: a process died. In both cases what finished by then keeps what it wrote.
    """
    results: dict[str, Result] = {}
    run = _in_this_process if num_processes == 0 else _in_processes
    hidden = not show_progress or not arguments
    with tqdm(total=len(arguments), desc=description, disable=hidden) as bar:
        for name, result in run(function, arguments, num_processes):
            results[name] = result
            bar.update()
    return {name: results[name] for name in arguments}


def map_cases(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    names: Sequence[str],
    num_processes: int,
    description: str,
    show_progress: bool = True,
) -> list[Result]:
    """Return ``[function(job) for job in jobs]`` as :func:`run_parallel` does; 1 is this process.

    Errors of the user pass through unchanged; others name the case, by its place in ``names``.
    """
    arguments = {
        f"{name} ({number} of {len(jobs)})": (job,)
        for number, (job, name) in enumerate(zip(jobs, names, strict=True), 1)
    }
    spawned = 0 if num_processes <= 1 or len(jobs) <= 1 else num_processes
    return list(run_parallel(function, arguments, spawned, description, show_progress).values())


def _in_this_process(
    function: Callable[..., Result], arguments: Mapping[str, tuple[Any, ...]], _: int
) -> Iterator[tuple[str, Result]]:
    for name, values in arguments.items():
        try:
            result = function(*values)
        except UserError:
            raise
        except Exception as error:
            raise _failure(name, error) from error
        yield name, result


def _in_processes(
    function: Callable[..., Result], arguments: Mapping[str, tuple[Any, ...]], num_processes: int
) -> Iterator[tuple[str, Result]]:
    if not arguments:
        return
    executor = ProcessPoolExecutor(
        max_workers=min(num_processes, len(arguments)),
        mp_context=multiprocessing.get_context("spawn"),
    )
    try:
        futures = {executor.submit(function, *values): n for n, values in arguments.items()}
        for future in as_completed(futures):
            try:
                result = future.result()
            except BrokenProcessPool as error:
                raise WorkerError(
                    "A background process was killed, most likely because memory ran out. Run the "
                    f"command again with fewer processes than {num_processes} (-np)."
                ) from error
            except UserError:
                raise
            except Exception as error:
                raise _failure(futures[future], error) from error
            yield futures[future], result
    finally:
        executor.shutdown(cancel_futures=True)


def _failure(name: str, error: Exception) -> CaseError:
    return CaseError(f"case {name} failed: {type(error).__name__}: {error}")
