"""Hold what a benchmark found: one row for each thing that has a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from nnunet_semisup.evaluation.tables import format_table

HEADER = ("what", "ours", "reference", "against", "ratio", "at most", "holds")


@dataclass(frozen=True)
class Row:
    """Compare a number of this package with another one.

    Attributes:
        what: was measured, in a few words.
        ours: its value; ``None`` where it could not be measured.
        reference: what it is compared with, in the same unit.
        against: whose number that is; ``allowed`` where it is the limit itself.
        unit: of both.
        limit: greatest ratio; ``None`` where there is none.
        note: what to do for the row, where there is no value.
        points: size of the work and seconds, where the row is of how these grow.
    """

    what: str
    ours: float | None
    reference: float | None
    against: str
    unit: str
    limit: float | None
    note: str = ""
    points: Sequence[Sequence[float]] = ()

    @property
    def ratio(self) -> float | None:
        """Ours over the reference."""
        known = self.ours is not None and self.reference
        return self.ours / self.reference if known else None  # type: ignore[operator]

    @property
    def holds(self) -> bool | None:
        """Whether the ratio is within its limit; ``None`` where one of the two is missing."""
        if self.ratio is None or self.limit is None:
            return None
        return self.ratio <= self.limit

    def cells(self) -> list[str]:
        """Return the row as text, in the order of :data:`HEADER`."""
        values = [f"{shown(v)} {self.unit}".strip() for v in (self.ours, self.reference)]
        ratio = "-" if self.ratio is None else f"{self.ratio:.3g}"
        limit = "-" if self.limit is None else f"{self.limit:g}"
        holds = {True: "yes", False: "**no**", None: self.note or "-"}[self.holds]
        return [self.what, *values, self.against, ratio, limit, holds]


def shown(value: float | None) -> str:
    """Return a number with three digits that count, thousands apart."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def allowed(what: str, ours: float, most: float, unit: str) -> Row:
    """Return the row of a number that has a limit of its own."""
    return Row(what, ours, most, "allowed", unit, 1.0)


def missing(what: str, module: str, package: str) -> Row | None:
    """Return the row that says how to install what a comparison needs; ``None`` if it is there.

    Args:
        what: is compared.
        module: that the comparison imports.
        package: that brings it, as pip takes it.
    """
    if find_spec(module):
        return None
    return Row(what, None, None, package, "", None, f"`pip install {package}`")


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    return format_table(HEADER, [row.cells() for row in rows], markdown=True)
