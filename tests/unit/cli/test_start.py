"""A command that is asked for help answers at once: what takes long to import stays away."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nnunet_semisup.dataset_conversion.offers import OFFERS
from tests.project import pyproject

HEAVY = ("torch", "SimpleITK", "nibabel", "scipy", "matplotlib")
SCRIPTS = pyproject()["project"]["scripts"]
ASK = """
import sys
from importlib import import_module

with_help = getattr(import_module(sys.argv[1]), "main")
sys.argv[1:] = [*sys.argv[2:], "--help"]
try:
    with_help()
except SystemExit as ended:
    assert not ended.code
found = [name for name in {heavy!r} if name in sys.modules]
assert not found, found
"""


CASES = [
    *((command,) for command in sorted(SCRIPTS)),
    *(("nnUNetv2_semisup_convert", dataset) for dataset in OFFERS),
]


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_help_imports_nothing_heavy(words):
    module, _, function = SCRIPTS[words[0]].partition(":")
    assert function == "main"
    program = [sys.executable, "-c", ASK.format(heavy=HEAVY), module, *words[1:]]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
