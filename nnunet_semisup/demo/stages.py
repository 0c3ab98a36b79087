"""Run stages once: a finished stage leaves a record and is skipped the next time."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError


class StageFailedError(Exception):
    """Report a stage's command that ended with an error; ``code`` is the shell's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Record:
    """Hold what is known of a stage.

    Attributes:
        command: as a user would type it, empty for a step without a command.
        seconds: wall-clock time, summed over interrupted attempts.
        finished: whether the stage needs no other attempt.
        largest_mib: peak resident memory of the largest process up to the end of the stage.
    """

    command: str
    seconds: float
    finished: bool
    largest_mib: float = 0.0


class Stages:
    """Run named stages, skipping those that are recorded as finished.

    Args:
        folder: of the records, one JSON file a stage.
        environment: of the commands.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)

    def record(self, name: str) -> Record | None:
        """Return the record of a stage, ``None`` if it was never begun."""
        path = self.folder / f"{name}.json"
        return Record(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def step(self, name: str, title: str, action: Callable[[], None]) -> None:
        """Run a Python function as a stage."""
        self._run(name, title, "", action)

    def command(
        self,
        name: str,
        title: str,
        words: Sequence[str],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Run a command as a stage, after showing it as a user would type it.

        Args:
            name: of the record.
            title: said before the command.
            words: of the command; the first is looked up beside this Python, then in ``PATH``.
            variables: set for this command only, and shown before it.

        Raises:
            StageFailedError: the command failed or was interrupted.
        """
        extra = dict(variables or {})
        shown = " ".join([*(f'{key}="{value}"' for key, value in extra.items()), shlex.join(words)])

        def action() -> None:
            print(f"$ {shown}", flush=True)
            code = run_interruptibly(
                [find_command(words[0]), *words[1:]], {**self.environment, **extra}
            )
            if code:
                raise StageFailedError(f"{words[0]} ended with exit code {code}", code)

        self._run(name, title, shown, action)

    def _run(self, name: str, title: str, shown: str, action: Callable[[], None]) -> None:
        before = self.record(name)
        if before is not None and before.finished:
            print(f"\n== {title}: done before", flush=True)
            return
        print(f"\n== {title}", flush=True)
        started = time.monotonic()
        finished = False
        try:
            action()
            finished = True
        finally:
            seconds = time.monotonic() - started + (before.seconds if before else 0.0)
            largest = max(largest_process_mib(), before.largest_mib if before else 0.0)
            self._write(name, Record(shown, seconds, finished, largest))
        print(f"== {title}: {seconds:.0f} s", flush=True)

    def _write(self, name: str, record: Record) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(vars(record), indent=2), encoding="utf-8")


def largest_process_mib() -> float:
    """Return the peak resident memory of the largest finished child process; 0 on Windows."""
    if sys.platform == "win32":
        return 0.0
    import resource

    units = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / units


def find_command(name: str) -> str:
    """Return the path of an installed command, the one of this Python's environment first.

    Raises:
        UserError: it is not installed.
    """
    folders = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise UserError(
            f"The command {name} is not installed. Run: pip install . in this package's folder"
        )
    return found


def run_interruptibly(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end, also after Ctrl-C or SIGTERM, which it may use to save its work.

    A terminal sends Ctrl-C to the command as well; SIGTERM is passed on.

    Returns:
        The exit code as a shell gives it; 130 or 143 after an interruption.
    """
    received: list[int] = []
    process = subprocess.Popen(command, env=dict(environment))

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            process.send_signal(number)

    previous = {s: signal.signal(s, forward) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        return 128 + received[0]
    return 128 - code if code < 0 else code
