"""Install the wheel beside the lowest and the newest dependencies allowed, and test it there.

    python -m tests.matrix [--rows lowest newest] [--folder FOLDER] [--keep]

Each row is a new environment made by uv, with the wheel and what its tests need, with every extra
but the one that compiles for CUDA. Prints the table that ``docs/install.md`` shows, and fails where
a step does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project import ROOT, pyproject

PROJECT = pyproject()["project"]
PYTHONS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
UV = (sys.executable, "-m", "uv")
ROWS = {"lowest": PYTHONS[0], "newest": PYTHONS[-1]}
"""Python of each row."""
NOT_INSTALLED = {"mamba"}
"""Extras that need CUDA's compiler."""
SHOWN = ("nnunetv2", "torch", "numpy", "scipy", "scikit-image", "SimpleITK", "pydicom")
TESTS = (
    "tests/unit/data",
    "tests/unit/topology",
    "tests/unit/test_safe_files.py",
    "tests/contract/test_recorded_checkpoints.py",
)
IMPORT_ALL = """
import importlib, pkgutil, nnunet_semisup
names = [m.name for m in pkgutil.walk_packages(nnunet_semisup.__path__, "nnunet_semisup.")]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names), nnunet_semisup.__file__)
"""

VERSIONS = """
import platform, sys
from importlib.metadata import version
print(platform.python_version(), *map(version, sys.argv[1:]), sep="\\n")
"""


def requirements() -> Iterator[tuple[str, Requirement]]:
    """Yield each requirement of the package and of its extras, and where it stands."""
    groups = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for group, lines in groups.items():
        for line in lines:
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) != PROJECT["name"]:
                yield group, requirement


def lowest(requirement: Requirement) -> str:
    """Return the lowest version that a requirement allows.

    Raises:
        ValueError: it does not say, or says it twice.
    """
    (found,) = (one.version for one in requirement.specifier if one.operator == ">=")
    return found


def constraints(row: str) -> list[str]:
    """Return what holds a row's versions down: of the lowest, every lower bound."""
    if row != "lowest":
        return []
    of = [one for group, one in requirements() if group not in NOT_INSTALLED]
    return sorted({f"{one.name}=={lowest(one)}" for one in of})


@dataclass
class Place:
    """Run commands in a row's environment.

    Attributes:
        folder: of the environment and of the sources' tests.
        row: its name.
    """

    folder: Path
    row: str

    @property
    def python(self) -> Path:
        """Return the environment's Python."""
        return self.folder / "environment" / "bin" / "python"

    def call(self, *words: str | Path) -> str:
        """Run a command where the tests lie, show it, and return its output.

        Raises:
            SystemExit: it failed.
        """
        print(f"[{self.row}] $", *words, file=sys.stderr, flush=True)
        inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=self.folder / "tree",
            env={**inherited, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line)
        if code := process.wait():
            raise SystemExit(f"{self.row}: {words[0]} ended with {code}")
        return "".join(lines)


def build(folder: Path) -> tuple[Path, Path]:
    """Build source archive and wheel; return the wheel, and the sources without the package."""
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT)
    subprocess.run(command, check=True, stdout=sys.stderr)
    (folder / "sources").mkdir(exist_ok=True)
    archive = next((folder / "dist").glob("*.tar.gz"))
    subprocess.run(("tar", "-xzf", archive, "-C", folder / "sources"), check=True)
    tree = next((folder / "sources").iterdir())
    shutil.rmtree(tree / PROJECT["name"].replace("-", "_"))
    return next((folder / "dist").glob("*.whl")), tree


def run(row: str, folder: Path, wheel: Path, tree: Path) -> list[str]:
    """Make a row's environment, test the wheel in it, and return the row of the table."""
    place = Place(folder / row, row)
    shutil.copytree(tree, place.folder / "tree")
    held = place.folder / "constraints.txt"
    held.write_text("\n".join(constraints(row)), encoding="utf-8")
    place.call(*UV, "venv", "--python", ROWS[row], place.folder / "environment")
    at = ("--python", place.python)
    place.call(*UV, "pip", "install", *at, "--constraint", held, f"{wheel}[test]")
    place.call(*UV, "pip", "check", *at)
    modules, where = place.call(place.python, "-c", IMPORT_ALL).split()[-2:]
    assert Path(where).is_relative_to(place.folder / "environment"), "another one is tested"
    place.call(place.python.with_name("nnUNetv2_semisup_info"), "--check")
    installed = place.call(place.python, "-c", VERSIONS, *SHOWN).splitlines()[-len(SHOWN) - 1 :]
    result = place.call(place.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
    return [row, *installed, modules, result.splitlines()[-1].partition(" in ")[0]]


def table(rows: list[list[str]]) -> str:
    """Return the rows as a table, a column each."""
    names = ["", "Python", *SHOWN, "modules imported", "tests"]
    columns = list(zip(names, *rows, strict=True))
    lines = [f"| {' | '.join(cells)} |" for cells in columns]
    return "\n".join([lines[0], "|---" * (len(rows) + 1) + "|", *lines[1:]])


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="where about 6 GB a row are free [temporary]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        wheel, tree = build(folder)
        rows = []
        for row in arguments.rows:
            rows.append(run(row, folder, wheel, tree))
            shutil.rmtree(folder / row)
    print(table(rows))


if __name__ == "__main__":
    main()
