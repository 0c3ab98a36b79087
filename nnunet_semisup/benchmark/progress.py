"""Progress of trainings, one line a lane and one for all."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunet_semisup.benchmark.design import Design, Layout, Row, Run
from nnunet_semisup.registry import find_method

_EPOCH = re.compile(r"Epoch (\d+) ?$", re.MULTILINE)
_WHOLE = "{l_bar}{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_fmt}]"
"""A bar in whole steps, though trainers have fractions of nnUNetTrainer's operations."""
_QUIET = 60.0
"""Seconds between two lines where the output is no terminal."""


def effort(design: Design, row: Row) -> float:
    """Return the work of a row's training, in steps of nnUNetTrainer."""
    return design.steps_of(row) * float(find_method(row.trainer).cost)


def epochs_done(fold: Path) -> int:
    """Return the number of epochs that nnU-Net's logs in a fold's folder show as done."""
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return 0
    if (fold / "checkpoint_final.pth").is_file():
        return sys.maxsize
    found = _EPOCH.findall(logs[-1].read_text(encoding="utf-8", errors="replace"))
    return int(found[-1]) if found else 0


class Progress:
    """Show bars in steps of nnUNetTrainer, by the operations of each trainer.

    Args:
        layout: of the benchmark.
        design: what is compared.
        todo: runs that this command makes.
        lanes: number of lines.
    """

    def __init__(self, layout: Layout, design: Design, todo: Sequence[Run], lanes: int) -> None:
        self.layout, self.design = layout, design
        terminal = sys.stderr.isatty()
        options = {"mininterval": 0.5 if terminal else _QUIET, "dynamic_ncols": terminal}
        total = sum(effort(design, run.row) for run in todo)
        self._all = tqdm(
            total=total, desc="all runs", unit="step", smoothing=0.05, bar_format=_WHOLE, **options
        )
        self._bars = [
            tqdm(position=lane + 1, desc="-", unit="epoch", leave=False, **options)
            for lane in range(lanes if terminal else 0)
        ]
        self._counted: dict[Run, float] = {}
        self._first: dict[Run, int] = {}

    def update(self, lane: int, run: Run) -> None:
        """Show where a lane's run stands."""
        steps = self.design.steps_of(run.row)
        epochs = steps // self.design.steps_per_epoch
        done = min(epochs, epochs_done(self.layout.fold(self.design, run)))
        self._count(run, effort(self.design, run.row) * done / epochs)
        if self._bars:
            bar = self._bars[lane]
            if bar.desc != f"{run.title}: ":
                bar.reset(epochs)
                bar.set_description(run.title)
            bar.update(done - bar.n)

    def finish(self, run: Run) -> None:
        """Count a run as a whole, however it ended."""
        self._count(run, effort(self.design, run.row))

    def write(self, text: str) -> None:
        """Print a line above the bars."""
        tqdm.write(text, file=sys.stdout)

    def close(self) -> None:
        """Remove the bars."""
        for bar in (*self._bars, self._all):
            bar.close()

    def _count(self, run: Run, done: float) -> None:
        self._all.update(max(0.0, done - self._counted.get(run, 0.0)))
        self._counted[run] = max(done, self._counted.get(run, 0.0))
