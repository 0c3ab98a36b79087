"""Set published numbers beside those of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nnunet_semisup.benchmark.headline import short_title
from nnunet_semisup.benchmark.published import CAUTION, PublishedDataset, PublishedLine
from nnunet_semisup.benchmark.statistics import Line
from nnunet_semisup.benchmark.tables import DIGITS, spread
from nnunet_semisup.document import Group, Heading, Listing, Part, Table, Text
from nnunet_semisup.evaluation.names import TABLE_METRICS

COLUMNS = ["line", "Dice", "Jaccard", "HD95", "ASD", "by", "network", "checkpoint"]


def published_parts(
    published: PublishedDataset, compared: Mapping[int, Sequence[Line]], unit: str
) -> list[Part]:
    """Return what papers print, beside the own lines of the same number of labeled cases.

    Args:
        published: numbers with their sources.
        compared: own lines by budget.
        unit: of the own distances.
    """
    sources = list(dict.fromkeys(line.source for line in published.lines))
    parts: list[Part] = [
        Heading("Published numbers"),
        Text(CAUTION, "note"),
        Text(
            f"{published.title}. Published distances are in {published.distances}, those of this "
            f"benchmark in {unit}."
        ),
        Listing(published.warnings),
    ]
    for budget, own in compared.items():
        if at_budget := published.at(budget):
            table = _beside(own, at_budget, sources)
            parts += [Heading(f"{budget} labeled cases", 3), table]
    beside = [line for budget in compared for line in published.at(budget)]
    if rest := [line for line in published.lines if line not in beside]:
        title = f"Published at other budgets ({published.budget_unit})"
        parts.append(Group([_quoted(rest, sources)], title=title))
    listed = [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
    return [*parts, Group([Listing(listed)], title="Sources of the published numbers")]


def _beside(own: Sequence[Line], others: Sequence[PublishedLine], sources: Sequence[str]) -> Table:
    entries: list[tuple[float, bool, list[object]]] = []
    for line in own:
        cells = [spread(line.metrics[m], DIGITS[m]) for m in TABLE_METRICS]
        told: list[object] = [short_title(line), *cells, "this benchmark", "nnU-Net", "last"]
        entries.append((line.dice, False, told))
    entries += [(line.metrics["Dice"], True, _cells(line, sources)) for line in others]
    entries.sort(key=lambda entry: (math.isnan(entry[0]), -entry[0]))
    quoted = frozenset(i for i, entry in enumerate(entries) if entry[1])
    own_rows = frozenset(range(len(entries))) - quoted
    return Table(COLUMNS, [entry[2] for entry in entries], marked=own_rows, quoted=quoted)


def _quoted(lines: Sequence[PublishedLine], sources: Sequence[str]) -> Table:
    rows = [[line.budget, *_cells(line, sources)] for line in lines]
    return Table(["labels", *COLUMNS], rows, quoted=frozenset(range(len(rows))))


def _cells(line: PublishedLine, sources: Sequence[str]) -> list[object]:
    metrics = [
        f"{line.metrics[m]:.{DIGITS[m]}f}" if m in line.metrics else None for m in TABLE_METRICS
    ]
    by = f"published: {line.by} [{sources.index(line.source) + 1}]"
    return [line.method, *metrics, by, line.backbone, line.selection]
