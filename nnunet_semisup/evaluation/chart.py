"""Draw box plots of Dice and HD95 over the cases, one box a class."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.evaluation.evaluate import Evaluation
from nnunet_semisup.evaluation.names import with_unit
from nnunet_semisup.evaluation.report import distance_unit


def write_chart(evaluation: Evaluation, target: Path) -> None:
    """Write a picture with one dot a case; cases in which a class is undefined have none."""
    names = [c.name for c in evaluation.classes]
    unit = distance_unit(evaluation)
    figure = Figure(figsize=(max(6, 3 + 1.2 * len(names)), 4.5), dpi=110, layout="constrained")
    for ax, metric in zip(figure.subplots(1, 2), ("Dice", "HD95"), strict=True):
        values = [
            [v for c in evaluation.cases if not math.isnan(v := c.classes[name].values[metric])]
            for name in names
        ]
        positions = range(1, len(names) + 1)
        ax.boxplot(values, positions=positions, showfliers=False)
        for position, column in zip(positions, values, strict=True):
            ax.plot([position] * len(column), column, "o", alpha=0.5, markersize=4)
        ax.set_xticks(list(positions), names, rotation=30 if len(names) > 3 else 0)
        ax.set_ylabel(with_unit(metric, unit))
        ax.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylim(-0.02, 1.02)
    figure.axes[1].set_ylim(bottom=0)
    figure.suptitle(f"{len(evaluation.cases)} cases")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format=target.suffix[1:])
