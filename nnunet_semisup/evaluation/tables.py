"""Align tables, as text or as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

_NOISE = 1e-9
"""Rounding error of zero, at most; distances in mm between voxels of a nanometer are greater."""


def fixed(value: float, sign: str = "") -> str:
    """Return four digits after the point, or two significant ones of what these show as nothing.

    Args:
        value: a number, as in microscopy a distance of less than a micrometer in mm.
        sign: ``"+"`` to show it of positive values, too.
    """
    small = _NOISE < abs(value) < 1e-3
    return format(value, f"{sign}.2g" if small else f"{sign}.4f")


def format_table(
    header: Sequence[object], rows: Sequence[Sequence[object]], markdown: bool = False
) -> str:
    """Lay out a table with columns of equal width, for a terminal or as Markdown.

    A column whose filled cells all start like a number is aligned to the right. Floats are shown
    as :func:`fixed` does, ``None`` and NaN as ``-``.

    Args:
        header: titles of the columns.
        rows: cells row by row, each row as long as ``header``.
        markdown: whether to write a Markdown table instead of plain text.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(header)} cells expected as in the header, got {list(row)}")
    cells = [[shown_cell(cell) for cell in row] for row in [header, *rows]]
    if markdown:
        cells = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    columns = list(zip(*cells, strict=True))
    # A Markdown rule needs a dash beside its colon.
    widths = [max(2 if markdown else 1, *map(len, column)) for column in columns]
    right = [is_numeric(column[1:]) for column in columns]
    lines = [
        [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ]
        for row in cells
    ]
    if markdown:
        rule = ["-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, right, strict=True)]
        return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])
    rule = ["-" * width for width in widths]
    return "\n".join("  ".join(line).rstrip() for line in [lines[0], rule, *lines[1:]])


def shown_cell(cell: object) -> str:
    """Return a cell's text, in one line; see :func:`format_table`."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    text = fixed(cell) if isinstance(cell, float) else str(cell)
    return " ".join(text.split())


def is_numeric(cells: Sequence[str]) -> bool:
    """Tell whether the filled cells of a column all start like a number."""
    filled = [cell for cell in cells if cell not in ("-", "")]
    return bool(filled) and all(_starts_with_number(cell) for cell in filled)


def _starts_with_number(cell: str) -> bool:
    try:
        float(cell.split()[0].rstrip("%"))
    except ValueError:
        return False
    return True
