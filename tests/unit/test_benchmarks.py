"""The benchmark scripts fit the package as it is."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.project import ROOT

SCRIPTS = sorted(set((ROOT / "benchmarks").glob("*.py")) - {ROOT / "benchmarks" / "rows.py"})


def load(path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)
    spec = spec_from_file_location(f"benchmark_{path.stem}", path)
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_can_be_imported(path, monkeypatch):
    if path.stem == "against_medpy":
        pytest.importorskip("medpy")
    assert load(path, monkeypatch).main


OPTIONS = argparse.Namespace(
    device="cpu", patch=[16, 16, 16], features=[4, 8, 8], batch=2, steps=1, warmup=0,
    compile="off", amp="off",
)  # fmt: skip


@pytest.mark.parametrize("trainer", ["nnUNetTrainerDTC", "nnUNetTrainerBCP", "nnUNetTrainerUAMT"])
def test_a_step_costs_no_more_than_the_passes_of_the_registry(monkeypatch, trainer):
    script = load(ROOT / "benchmarks" / "step_cost.py", monkeypatch)
    monkeypatch.setenv(script.VARIABLE, "")
    with script.data_folders(), script.precision(OPTIONS):
        stock, counted = (script.count(name, OPTIONS) for name in (script.STOCK, trainer))
    least = script.floor(script.find_method(trainer), stock.of_decoder / stock.operations)
    assert 1 <= counted.operations / stock.operations / least < 1.1
    assert counted.kept == (stock.trained if script.find_method(trainer).has_teacher else 0)


def test_the_step_of_vqseg_can_be_taken_apart(monkeypatch):
    script = load(ROOT / "benchmarks" / "vqseg_step.py", monkeypatch)
    monkeypatch.setenv(script.step_cost.VARIABLE, "")
    with script.step_cost.data_folders(), script.step_cost.precision(OPTIONS):
        parts = script.take_apart(OPTIONS)
    assert all(time >= 0 for time in parts.values())
    for part in ("labeled pass", "student pass", "teacher pass", "strong view and mixing", "QPM"):
        assert parts[part] > 0, part


def test_the_sides_of_the_loader_draw_the_same_labeled_patches(monkeypatch):
    script = load(ROOT / "benchmarks" / "loader.py", monkeypatch)
    monkeypatch.setenv(script.step_cost.VARIABLE, "")
    with script.cases(OPTIONS.patch):
        workers = [script.Worker(row, OPTIONS) for row in script.SIDES.values()]
        for number in range(3):
            keys = [list(worker.make(number)["keys"]) for worker in workers]
            assert keys == keys[:1] * len(keys)


def test_lines_of_whole_volumes_have_both_sides(monkeypatch):
    script = load(ROOT / "benchmarks" / "volumes.py", monkeypatch)
    for name, small in (("FULL", (70, 140, 160)), ("CONVERTED", (88, 140, 160)), ("CASES", 3)):
        monkeypatch.setattr(script, name, small)
    found = script.rows(parts=("convert", "preprocess"))
    assert len(found) == 6
    assert all(row.ours > 0 and row.reference > 0 for row in found)


def test_the_pages_of_results_are_those_of_the_reports_kept(monkeypatch):
    script = load(ROOT / "benchmarks" / "results_page.py", monkeypatch)
    for path, text in script.pages(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: {script.__doc__}"


def test_reports_of_one_comparison_become_one_table(monkeypatch):
    """Two halves of a report give the whole, with p corrected for all rows."""
    script = load(ROOT / "benchmarks" / "results_page.py", monkeypatch)
    file = ROOT / script.KEPT / "left_atrium.json"
    whole, first, second = (json.loads(file.read_text(encoding="utf-8")) for _ in range(3))
    lines = whole["comparison"]
    assert len(lines) > 3
    baseline = [line for line in lines if not line["differences"]]
    rest = [line for line in lines if line["differences"]]
    first["comparison"] = baseline + rest[:1]
    second["comparison"] = copy.deepcopy(baseline) + rest[1:]
    second["design"]["rows"] = []
    found = script.merged({"a": copy.deepcopy(first), "b": copy.deepcopy(second)})
    by_row = {line["row"]: line for line in found["comparison"]}
    assert by_row == {line["row"]: line for line in lines}
    assert found["names"] == ["a", "b"]

    with pytest.raises(ValueError, match="a row is in two reports"):
        script.merged({"a": whole, "b": copy.deepcopy(first)})
    second["comparison"][0]["metrics"]["Dice"]["mean"] += 1e-9
    with pytest.raises(ValueError, match="the baselines are not equal"):
        script.merged({"a": first, "b": second})
    second["design"]["steps"] += 1
    with pytest.raises(ValueError, match="the designs are not equal"):
        script.merged({"a": first, "b": second})
