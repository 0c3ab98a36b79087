"""Give the numbers that papers print for the usual data sets, with their sources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nnunet_semisup.errors import UserError

READ = {
    "paper": "read in the paper",
    "repository": "read in the authors' repository",
    "relayed": "relayed",
}
CAUTION = (
    "Published by others. Their network, data preparation, number of steps and choice of the "
    "checkpoint differ from those of this benchmark, and mostly from each other's: a distance "
    "between a published line and one of this benchmark is no difference between methods."
)


@dataclass(frozen=True)
class PublishedLine:
    """Hold what one source prints of one method at one budget.

    Attributes:
        method: as papers call it.
        trainer: of this package; ``None``: none stands for it.
        budget: as in the source: a number of cases, of patients, or a share.
        metrics: Dice and Jaccard from 0 to 1, distances as printed.
        by: name of the paper's method, venue and year.
        table: paper, and where in it.
        read: key of :data:`READ`.
        via: who relayed it.
        backbone: network.
        selection: which checkpoint was measured.
        note: what else to know.
    """

    method: str
    trainer: str | None
    budget: str
    metrics: Mapping[str, float]
    by: str
    table: str
    read: str
    via: str | None
    backbone: str
    selection: str
    note: str | None

    @property
    def source(self) -> str:
        """Return where it is printed, and how it came here."""
        relayed = f" by {self.via}" if self.via else ""
        note = f"; {self.note}" if self.note else ""
        return f"{self.table}; {READ[self.read]}{relayed}{note}"


@dataclass(frozen=True)
class PublishedDataset:
    """Hold what is published about a data set.

    Attributes:
        key: name on the command line.
        title: data set and split.
        budget_unit: what budgets count.
        cases_per_unit: cases of a benchmark in one of these; 0: not known.
        distances: unit of HD95 and ASD.
        warnings: what to know before comparing.
        lines: numbers.
    """

    key: str
    title: str
    budget_unit: str
    cases_per_unit: int
    distances: str
    warnings: tuple[str, ...]
    lines: tuple[PublishedLine, ...]

    def at(self, cases: int) -> list[PublishedLine]:
        """Return the lines at a number of labeled cases, best Dice first."""
        found = [
            line
            for line in self.lines
            if line.budget.isdecimal() and int(line.budget) * self.cases_per_unit == cases
        ]
        return sorted(found, key=lambda line: -line.metrics["Dice"])


def published_names() -> tuple[str, ...]:
    """Return the names of the data sets that papers report on."""
    return tuple(_content()["datasets"])


def read_published(name: str) -> PublishedDataset:
    """Return what papers print about a data set.

    Raises:
        UserError: nothing is known of it.
    """
    content = _content()
    if name not in content["datasets"]:
        raise UserError(
            f"no published numbers of '{name}' are known. Possible: {', '.join(published_names())}."
        )
    dataset = content["datasets"][name]
    lines = [
        line
        for table in content["tables"]
        if table["dataset"] == name
        for line in _lines(table, content["sources"])
    ]
    dataset["warnings"] = tuple(dataset["warnings"])
    return PublishedDataset(key=name, lines=tuple(lines), **dataset)


def _lines(table: Mapping[str, Any], sources: Mapping[str, Any]) -> list[PublishedLine]:
    source = sources[table["source"]]
    venue = " ".join(str(word) for word in (source["venue"], source["year"]) if word)
    where = (source["paper"], venue, *([source["url"]] if source["url"] else []), table["table"])
    shared = {key: table[key] for key in ("read", "via", "backbone", "selection", "note")}
    return [
        PublishedLine(
            method=row["method"],
            trainer=row["trainer"],
            budget=budget,
            metrics=_metrics(table, values),
            by=f"{source['name']}, {venue}",
            table=", ".join(where),
            **shared,
        )
        for row in table["rows"]
        for budget, values in zip(table["budgets"], row["values"], strict=True)
        if values is not None
    ]


def _metrics(table: Mapping[str, Any], values: list[float]) -> dict[str, float]:
    scale = {"Dice": table["scale"], "Jaccard": table["scale"]}
    return {
        metric: round(value / scale.get(metric, 1), 6)
        for metric, value in zip(table["metrics"], values, strict=True)
    }


@cache
def _text() -> str:
    return files(__package__).joinpath("published.json").read_text(encoding="utf-8")


def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_text())
    return content
