"""Every situation in the log of field reports has a test, and it is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs/field_reports.md").read_text(encoding="utf-8").splitlines()
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in LINES
    if line.startswith("| ") and not line.startswith("| situation")
]


def names(path):
    """Functions of a test file, those of classes after ``Class::``."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{f.name}" for f in node.body if hasattr(f, "name"))
        elif isinstance(node, ast.FunctionDef):
            yield node.name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_the_test_of_a_row_is_there(row):
    assert len(row) == 4
    assert all(row)
    tests = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", row[3])
    assert tests, "name a test as `tests/FILE.py::NAME`"
    for file, name in tests:
        assert name in set(names(ROOT / file))


def test_no_situation_is_there_twice():
    situations = [row[0] for row in ROWS]
    assert situations
    assert len(set(situations)) == len(situations)
