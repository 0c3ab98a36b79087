"""Layout of text and Markdown tables."""

from __future__ import annotations

import math

import pytest

from nnunet_semisup.evaluation.tables import fixed, format_table

HEADER = ["method", "Dice"]
ROWS = [["mean teacher", 0.5], ["a", "0.25 ± 0.1"], ["none", math.nan]]


def test_columns_are_aligned_and_numbers_stand_right():
    assert format_table(HEADER, ROWS).splitlines() == [
        "method              Dice",
        "------------  ----------",
        "mean teacher      0.5000",
        "a             0.25 ± 0.1",
        "none                   -",
    ]


def test_markdown_has_a_rule_with_alignment_and_escapes_bars():
    lines = format_table(["a|b", "n"], [["x", 3]], markdown=True).splitlines()
    assert lines == [r"| a\|b |  n |", "| ---- | -: |", "| x    |  3 |"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "0.5000"), (0.00123, "0.0012"), (0.00021, "0.00021"), (-2.14e-5, "-2.1e-05")]
    + [(0.0, "0.0000"), (1e-17, "0.0000"), (12.34567, "12.3457")],
)
def test_small_numbers_are_not_shown_as_nothing(value, shown):
    """Distances in mm of microscopy: 0.0000 would be the best there is."""
    assert fixed(value) == shown
    assert fixed(value, "+").lstrip("+") == shown
    assert format_table(["a"], [[value]]).splitlines()[-1] == shown


def test_none_is_a_dash_and_line_breaks_are_removed():
    assert format_table(["a"], [[None], ["x\ny"]]).splitlines()[2:] == ["-", "x y"]


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match="2 cells"):
        format_table(HEADER, [["only one"]])
