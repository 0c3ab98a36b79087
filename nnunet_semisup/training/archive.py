"""Keep what an earlier run left under another name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Log = Callable[[str], None]


def archive(path: Path, log: Log) -> None:
    """Rename what is there to the first free of ``NAME_previous``, ``NAME_previous_2``, ..."""
    if not path.exists():
        return
    kept, number = path.with_name(f"{path.stem}_previous{path.suffix}"), 2
    while kept.exists():
        kept = path.with_name(f"{path.stem}_previous_{number}{path.suffix}")
        number += 1
    path.replace(kept)
    log(f"An earlier {path.name} is kept as {kept.name}")
