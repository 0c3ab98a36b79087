"""Each loss term and diagnostic, per epoch: a CSV file and a picture of the curves."""

from __future__ import annotations

import csv
import io
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from nnunet_semisup.atomic import atomic_path

Row = dict[str, float]

CSV_NAME = "semisup_terms.csv"
PLOT_NAME = "semisup_progress.png"


class Monitor:
    """Collect the terms of an epoch on the device and keep one row of means an epoch.

    Values are moved to the CPU once an epoch, so that a training step never waits for the device.

    Attributes:
        rows: one dictionary an epoch, ``epoch`` first.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._unwritten = False

    def add(self, values: dict[str, torch.Tensor | float]) -> None:
        """Add one step's values: scalars, tensors stay on their device."""
        for name, value in values.items():
            tensor = torch.as_tensor(value, dtype=torch.float32).detach()
            self._sums[name] = self._sums[name] + tensor if name in self._sums else tensor.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def finish_epoch(self, epoch: int, extra: dict[str, float] | None = None) -> Row:
        """Append the epoch's row of means, ``extra`` values after them, and start the next."""
        row: Row = {"epoch": epoch}
        row.update({name: float(s) / self._counts[name] for name, s in self._sums.items()})
        row.update(extra or {})
        self.rows = [r for r in self.rows if r["epoch"] < epoch] + [row]
        self._sums, self._counts, self._unwritten = {}, {}, True
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return rows and the unfinished epoch's sums."""
        sums = {name: s.cpu() for name, s in self._sums.items()}
        return {"rows": self.rows, "sums": sums, "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.rows = list(state["rows"])
        self._unwritten = bool(self.rows)
        self._sums = {name: s.to(device) for name, s in state["sums"].items()}
        self._counts = dict(state["counts"])

    def write(self, folder: str) -> None:
        """Write the CSV file and the picture into ``folder``, each atomically, if rows are new."""
        if not self._unwritten:
            return
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(
            {k: int(v) if k == "epoch" else f"{v:.6g}" for k, v in row.items()} for row in self.rows
        )
        with atomic_path(Path(folder, CSV_NAME)) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        with default_style(), atomic_path(Path(folder, PLOT_NAME)) as temporary:
            plot_rows(self.rows, temporary)
        self._unwritten = False


def default_style() -> AbstractContextManager[None]:
    """Use matplotlib's own style; nnU-Net's progress plot enlarges all fonts of the process."""
    from matplotlib import style

    return style.context("default")


def plot_rows(rows: list[Row], path: Path) -> None:
    """Draw every column over the epochs, one small panel each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [n for n in dict.fromkeys(k for row in rows for k in row) if n != "epoch"]
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    width, height, edge = 4.0 * columns, 2.2 * lines, 0.3
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # Fixed margins: fitting them to the labels would draw everything three times.
    left, bottom = 2 * edge / width, 2 * edge / height
    right, top = 1 - edge / width, 1 - edge / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.2, hspace=0.45)
    for i, name in enumerate(names):
        axis = figure.add_subplot(lines, columns, i + 1)
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None)
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.locator_params(nbins=5)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    figure.supxlabel("epoch", y=0.05 / height, fontsize=9)
    figure.savefig(path, dpi=80)
