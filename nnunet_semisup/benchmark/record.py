"""State of a run, kept beside it on disk."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.benchmark.design import Layout, Run

Status = Literal["waiting", "running", "finished", "failed"]


@dataclass(frozen=True)
class Record:
    """Hold the state of a run.

    Attributes:
        status: ``running`` also where the process is gone: such a run goes on at the next start.
        attempts: how often it was started.
        seconds: in which it trained and validated, over all attempts.
        peak_mib: greatest resident memory of its processes, 0 where it is not known.
        commands: typed out, in their order.
        environment: variables that were set for them.
        fault: why it failed.
        versions: of nnU-Net, torch, this package and so on.
        hashes: SHA-256 of ``splits_final.json``, the plans and the fingerprint.
        machine: processor or GPU, in words.
    """

    status: Status = "waiting"
    attempts: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0
    commands: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    machine: str = ""


def read_record(layout: Layout, run: Run) -> Record:
    """Return what is known of a run; nothing, where it was never started."""
    path = layout.record(run)
    if not path.is_file():
        return Record()
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Record(**{**content, "commands": tuple(content.get("commands", ()))})


def write_record(layout: Layout, run: Run, record: Record) -> None:
    """Write it, whole or not at all."""
    layout.run(run).mkdir(parents=True, exist_ok=True)
    with atomic_path(layout.record(run)) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(record), indent=1), encoding="utf-8")
