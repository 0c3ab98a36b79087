"""A command that is asked for help answers at once: what takes long to import stays away."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project import pyproject

HEAVY = ("torch", "SimpleITK", "nibabel", "scipy", "matplotlib")
SCRIPTS = pyproject()["project"]["scripts"]
SLOW = {"nnUNetv2_semisup_convert"}
"""Whose data sets bring what they read with."""
ASK = """
import sys
from importlib import import_module

with_help = getattr(import_module(sys.argv[1]), "main")
sys.argv[1:] = ["--help"]
try:
    with_help()
except SystemExit as ended:
    assert not ended.code
found = [name for name in {heavy!r} if name in sys.modules]
assert not found, found
"""


@pytest.mark.parametrize("command", sorted(set(SCRIPTS) - SLOW))
def test_help_imports_nothing_heavy(command):
    module, _, function = SCRIPTS[command].partition(":")
    assert function == "main"
    program = [sys.executable, "-c", ASK.format(heavy=HEAVY), module]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
