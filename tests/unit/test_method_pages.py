"""Pages of methods: one for each, current, with every hyper-parameter of its own."""

from __future__ import annotations

import json

import pytest

from nnunet_semisup.cli import _pages
from nnunet_semisup.registry import FAMILIES, METHODS
from tests.project import ROOT

PAGES = sorted((ROOT / "docs/methods").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_generated_part_is_current(page):
    assert page.read_text(encoding="utf-8") == _pages.with_generated(page), (
        "run python -m tests.unit.method_pages"
    )


def test_every_method_is_on_one_page_and_every_page_has_a_method():
    assert {_pages.page_of(method) for method in METHODS} == set(PAGES)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
def test_page_names_the_trainer_rule_and_use(method):
    prose = _pages.prose(method)
    assert f"`{method.trainer}`" in prose
    headings = [line.lower() for line in prose.splitlines() if line.startswith("## ")]
    assert any("a training step" in heading for heading in headings)
    assert any("when to try it" in heading for heading in headings)
    assert _pages.BEGIN.strip() not in prose


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
def test_rows_are_complete(method):
    assert 1990 < method.year < 2100
    assert method.family in FAMILIES
    assert set(method.dims) <= {2, 3}
    assert method.labels
    assert method.forwards[0] >= 1
    assert all(float(number) >= 0 for number in (method.cost, *method.parameters))


def test_pages_of_an_installed_package_come_first(tmp_path, monkeypatch):
    package = tmp_path / "nnunet_semisup"
    (package / "pages").mkdir(parents=True)
    monkeypatch.setattr(_pages.nnunet_semisup, "__file__", str(package / "__init__.py"))
    assert _pages.pages_folder() == package / "pages"


def test_passes_in_words():
    (method,) = (method for method in METHODS if method.trainer == "nnUNetTrainerMCNetPlus")
    assert _pages.passes(method) == "2 back and forth, 0 without gradient; 6 and 0 of decoders"


def test_pages_have_the_numbers_of_the_kept_reports():
    """Rows with settings are the trainer's; the labels alone stand beside each."""
    text = _pages.measured(["nnUNetTrainerPseudoLabel"])
    kept = json.loads((ROOT / "docs/results/left_atrium.json").read_text(encoding="utf-8"))
    dice = {line["row"]: line["metrics"]["Dice"]["mean"] for line in kept["comparison"]}
    (line,) = (row for row in text.splitlines() if "labeled_loss=lomix" in row)
    cells = [cell.strip() for cell in line.split("|")]
    expected = dice["nnUNetTrainerPseudoLabel:labeled_loss=lomix"], dice["nnUNetTrainerSupervised"]
    assert cells[4:6] == [f"{value:.3f}" for value in expected]
    assert "| PseudoLabel " in text
    assert _pages.measured(["nnUNetTrainerNone"]).endswith("see [benchmarks](../benchmarks.md).")


def test_pages_without_a_kept_report_have_the_row_of_the_older_table():
    """The labels alone are those of as many steps, not of as many operations."""
    text = " ".join(_pages.measured(["nnUNetTrainerSSNet", "nnUNetTrainerNone"]).split())
    assert "nnUNetTrainerSSNet 0.8259, the labels alone 0.7724." in text
