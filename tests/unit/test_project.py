"""What ``pyproject.toml`` declares agrees with the code and with the files beside it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import numpy as np
import pytest
import yaml

import nnunet_semisup
from tests.project import ROOT, pyproject

PROJECT = pyproject()["project"]
NOT_IMPORTED = {
    "transformers": "open_clip builds BiomedCLIP's text tower from it",
    "sqlalchemy": "mlflow's client opens its default store with it",
    "alembic": "the same",
    "setuptools": "submitit imports its pkg_resources",
}
"""Dependencies that the package uses through another library only, and for what."""


def names(requirements):
    """Normalised names of the distributions in a list of requirements."""
    found = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
    return {normalised(name) for name in found}


def normalised(name):
    """A distribution's name as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(at_import_time):
    """Distributions whose modules the package imports, with one file that does.

    Args:
        at_import_time: only what importing a module of the package imports.
    """
    providers = packages_distributions()
    found = {}
    for file in sorted((ROOT / "nnunet_semisup").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body if at_import_time else ast.walk(tree):
            for module in modules(node) - sys.stdlib_module_names - {"nnunet_semisup"}:
                found.setdefault(normalised(providers.get(module, [module])[0]), file.name)
    return found


def modules(node):
    """Top-level names of the modules that a statement imports."""
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {node.module.partition(".")[0]}
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return set()


REQUIRED = names(PROJECT["dependencies"])
EXTRAS = {key: names(value) for key, value in PROJECT["optional-dependencies"].items()}
OPTIONAL = set().union(*(EXTRAS[key] for key in EXTRAS if key not in ("docs", "test", "dev")))


def test_what_modules_import_is_required():
    found = imported(at_import_time=True)
    assert {name: file for name, file in found.items() if name not in REQUIRED} == {}


def test_what_is_imported_anywhere_is_declared_and_the_other_way_round():
    found = imported(at_import_time=False)
    declared = REQUIRED | OPTIONAL
    assert {name: file for name, file in found.items() if name not in declared} == {}
    assert declared - set(found) == set(NOT_IMPORTED)


def test_every_dependency_has_its_reason():
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {normalised(name) for name in re.findall(r"\*\*([\w.-]+)\*\*", page)}
    assert (REQUIRED | OPTIONAL | EXTRAS["docs"]) - explained == set()


def test_recorded_numbers_come_with_their_source():
    folder = ROOT / "tests" / "gold"
    page = (folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|", page, re.MULTILINE)
    listed = {
        file: "; ".join(
            f"{repository} @{commit}"
            for repository, commit in zip(*(cell.split("; ") for cell in cells), strict=True)
        )
        for file, *cells in rows
    }
    recorded = {file.name: str(np.load(file)["source"]) for file in folder.glob("*.npz")}
    assert listed == recorded


def test_citation_has_the_version_of_the_package():
    assert PROJECT["dynamic"] == ["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [nnunet_semisup.__version__]


def test_citation_has_what_its_format_asks_for():
    """Of the schema of the Citation File Format 1.2.0."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    for reference in (citation, *citation["references"]):
        for author in reference["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"})


def test_changelog_lists_the_version_of_the_package():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)[0] == nnunet_semisup.__version__


def test_python_versions_listed_start_with_the_oldest_allowed():
    prefix = "Programming Language :: Python :: 3."
    listed = [c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)]
    oldest = int(PROJECT["requires-python"].removeprefix(">=3."))
    assert [int(minor) for minor in listed] == list(range(oldest, oldest + len(listed)))
    assert f"{sys.version_info.minor}" in listed


def test_every_folder_has_its_line_in_contributing():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w/]+)/` \|", page, re.MULTILINE)
    package = ROOT / "nnunet_semisup"
    folders = {file.parent.relative_to(package).as_posix() for file in package.rglob("*/*.py")}
    assert sorted(listed) == sorted(folders - {"_discovery/ext"})


def test_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    printed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True)
    assert re.findall(r"make ([\w-]+)", printed.stdout) == targets


FROM_A_CALLING_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "GNUMAKEFLAGS", "MAKEOVERRIDES"}


def test_fast_tests_are_those_without_the_slow_ones():
    command = ["make", "-n", "test-fast", "VENV=nowhere"]
    own = {key: value for key, value in os.environ.items() if key not in FROM_A_CALLING_MAKE}
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=own)
    assert '-m "not slow"' in printed.stdout.splitlines()[-1]


MAKE = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$1" in
  lint) exit "$LINT" ;;
  test) echo "3 passed in 1s"; echo "after pytest"; exit "$TEST" ;;
esac
"""


@pytest.mark.parametrize(("lint", "test"), [(0, 0), (2, 0), (0, 2)])
def test_ci_fails_with_the_style_or_the_tests(tmp_path, monkeypatch, lint, test):
    script = tmp_path / "make"
    script.write_text(MAKE, encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in (("CALLS", tmp_path / "calls"), ("LINT", lint), ("TEST", test)):
        monkeypatch.setenv(name, str(value))
    done = subprocess.run([ROOT / ".ci" / "run", "VENV=here"], capture_output=True, text=True)
    assert (tmp_path / "calls").read_text().splitlines() == ["lint VENV=here", "test VENV=here"]
    assert done.stdout.splitlines()[-1] == "3 passed in 1s"
    assert (done.returncode == 0) == (lint == test == 0)
