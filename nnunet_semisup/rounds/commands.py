"""Steps of rounds, each done once: commands in processes of their own, and functions in this one.

What a step needs is on the disk, its record included. A process that outlives the command which
started it, because that was killed, holds the folder's lock: the next command waits for it instead
of starting another beside it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from nnunet_semisup.demo.stages import find_command
from nnunet_semisup.preparation.lock import exclusive_lock
from nnunet_semisup.processes import inheritable_lock, wait_for
from nnunet_semisup.scoring.voting import write_json
from nnunet_semisup.training.interruption import Interruption

_LAST_LINES = 15


class StoppedError(Exception):
    """Report that the user asked to stop; what is done is kept. ``code`` is the shell's."""

    def __init__(self, code: int) -> None:
        super().__init__("stopped; the same command goes on")
        self.code = code


class StepFailedError(Exception):
    """Report a command that ended with an error, with the end of what it said."""


@dataclass(frozen=True)
class Record:
    """Hold what is known of a step.

    Attributes:
        finished: whether nothing is left to do.
        command: as a user would type it, empty for what is done in this process.
        environment: variables that were set for it.
        attempts: how often it was started.
        seconds: of all attempts that came to an end, well or not.
    """

    finished: bool = False
    command: str = ""
    environment: Mapping[str, str] | None = None
    attempts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Steps:
    """Do the steps of one round.

    Attributes:
        folder: of their records and logs.
        stop: tells of an interruption.
        lock: descriptor that commands inherit; ``None`` where the system has none.
    """

    folder: Path
    stop: Interruption
    lock: int | None

    def record(self, name: str) -> Record:
        """Return what is known of a step."""
        return read_record(self.folder, name)

    def do(self, name: str, action: Callable[[], None]) -> None:
        """Call a function, unless its step is finished; it must bear to be called again."""
        self._run(name, "", {}, action)

    def command(self, name: str, words: Sequence[str], variables: Mapping[str, str]) -> None:
        """Run a command, unless its step is finished; what it says goes into ``NAME.log``.

        Args:
            name: of the step.
            words: of the command.
            variables: of its environment, beside this process's.

        Raises:
            StepFailedError: it ended with an error.
            StoppedError: it was stopped.
        """
        self._run(name, shlex.join(words), variables, lambda: self._call(name, words, variables))

    def _run(
        self, name: str, shown: str, variables: Mapping[str, str], action: Callable[[], None]
    ) -> None:
        before = self.record(name)
        if before.finished:
            return
        if self.stop.signal_number is not None:
            raise StoppedError(128 + self.stop.signal_number)
        print(f"{self.folder.parent.name}: {name}" + (f"\n$ {shown}" if shown else ""), flush=True)
        record = Record(False, shown, dict(variables), before.attempts + 1, before.seconds)
        self._write(name, record)
        started, finished = time.monotonic(), False
        try:
            action()
            finished = True
        finally:
            seconds = before.seconds + time.monotonic() - started
            ended = {**asdict(record), "finished": finished, "seconds": seconds}
            self._write(name, Record(**ended))

    def _write(self, name: str, record: Record) -> None:
        write_json(self.folder / f"{name}.json", asdict(record))

    def _call(self, name: str, words: Sequence[str], variables: Mapping[str, str]) -> None:
        path = self.folder / f"{name}.log"
        with path.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [find_command(words[0]), *words[1:]],
                env={**os.environ, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=() if self.lock is None else (self.lock,),
            )
            code, _ = wait_for(process, self.stop)
        if self.stop.signal_number is not None:
            raise StoppedError(128 + self.stop.signal_number)
        if code:
            text = path.read_text(encoding="utf-8", errors="replace")
            end = "\n".join(text.splitlines()[-_LAST_LINES:])
            raise StepFailedError(f"{shlex.join(words)} ended with code {code} ({path}):\n{end}")


def call_attached(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command that speaks where this one does, pass signals on, and return its exit code.

    Args:
        words: of the command.
        variables: of its environment, beside this process's.
    """
    with Interruption() as stop:
        process = subprocess.Popen(
            [find_command(words[0]), *words[1:]], env={**os.environ, **variables}
        )
        code, _ = wait_for(process, stop)
    return code


def read_record(folder: Path, name: str) -> Record:
    """Return what is known of a step; nothing, where it was never begun."""
    path = folder / f"{name}.json"
    return Record(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Record()


@contextmanager
def alone(folder: Path, stop: Interruption) -> Iterator[int | None]:
    """Hold a folder's lock and give its descriptor, once no process left alone holds it.

    Raises:
        StoppedError: the user did not want to wait.
        UserError: on a system without such locks, where another command holds it.
    """
    if os.name != "posix":
        with exclusive_lock(folder):
            yield None
        return
    waiting = partial(print, f"waiting for what runs in {folder} already", flush=True)
    with inheritable_lock(folder, stop, waiting) as lock:
        if lock is None:
            raise StoppedError(128 + (stop.signal_number or 0))
        yield lock
