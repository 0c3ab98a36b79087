"""The benchmark scripts fit the package as it is."""

from __future__ import annotations

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.project import ROOT

SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def load(path, monkeypatch):
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


def test_the_step_of_vqseg_can_be_taken_apart(monkeypatch):
    script = load(ROOT / "benchmarks" / "step_cost.py", monkeypatch)
    options = argparse.Namespace(
        device="cpu", patch=[16, 16, 16], features=[4, 8, 8], batch=2, steps=1, warmup=0,
        compile="off", amp="off",
    )  # fmt: skip
    with script.data_folders(), script.precision(options):
        parts = script.take_apart(options)
    assert all(time >= 0 for time in parts.values())
    for part in ("labeled pass", "student pass", "teacher pass", "strong view and mixing", "QPM"):
        assert parts[part] > 0, part
