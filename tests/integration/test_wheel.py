"""The built archives; the wheel and the editable install in fresh environments, and their removal.

The fresh environments see the libraries of the running one through a folder of links, without this
package; nothing is downloaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from nnunet_semisup import __version__
from nnunet_semisup.registry import METHODS
from tests.integration.workspace import Run, Workspace, base_environment
from tests.project import ROOT, pyproject

NAMES = [method.trainer for method in METHODS]
COMMANDS = set(pyproject()["project"]["scripts"])

FIND = """
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

def find(names):
    for name in names:
        found = recursive_find_trainer_class_by_name(name)
        print("FOUND", found.__name__, found.__module__, flush=True)
"""
SPAWN = f"""{FIND}
if __name__ == "__main__":
    import multiprocessing, sys
    find(sys.argv[1:])
    child = multiprocessing.get_context("spawn").Process(target=find, args=(sys.argv[1:],))
    child.start()
    child.join()
    if child.exitcode == 0:
        from nnunetv2.run.run_training import run_training_entry
        sys.argv = ["nnUNetv2_train", "-h"]
        run_training_entry()
    sys.exit(child.exitcode)
"""


class Environment:
    """A virtual environment without pip, and the heavy libraries of the running one."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        self.site = Path(self.call("-c", "import site; print(site.getsitepackages()[0])").output)
        self.site = Path(str(self.site).strip())
        libraries = folder / "libraries"
        libraries.mkdir()
        for name in ("purelib", "platlib"):
            for entry in Path(sysconfig.get_path(name)).iterdir():
                link = libraries / entry.name
                if "nnunet_semisup" not in entry.name and not link.is_symlink():
                    link.symlink_to(entry)
        (self.site / "libraries.pth").write_text(f"{libraries}\n")
        self.before = self.files()

    def call(self, *arguments: str | Path) -> Run:
        """Runs the environment's Python, with none of nnU-Net's variables set."""
        variables = base_environment(Path("nowhere"))
        kept = {
            k: v
            for k, v in variables.items()
            if not k.startswith("nnUNet_") and k not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        return Workspace(kept).call(self.python, *arguments)

    def pip(self, *arguments: str | Path) -> Run:
        """Runs the running environment's pip on this one, without a network."""
        offline = ("--disable-pip-version-check", "--no-input")
        target = ("-m", "pip", "--python", self.python, *offline)
        return Workspace(dict(os.environ)).call(sys.executable, *target, *arguments).succeeded()

    def files(self) -> set[str]:
        """Everything in site-packages but what Python compiles."""
        return {
            str(f.relative_to(self.site))
            for f in self.site.rglob("*")
            if "__pycache__" not in f.parts
        }


def built(source: Path, folder: Path) -> dict[str, Path]:
    """The source archive of a folder and the wheel made from it, without a network, by suffix."""
    pytest.importorskip("hatchling", reason="builds without a network")
    options = ("--no-isolation", "--outdir", folder)
    Workspace(dict(os.environ)).call(sys.executable, "-m", "build", *options, source).succeeded()
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both archives of the working tree."""
    return built(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(archives: dict[str, Path]) -> Path:
    """The wheel of the working tree."""
    return archives[".whl"]


def test_archives_built_from_the_source_archive_are_the_same_bytes(
    archives: dict[str, Path], tmp_path: Path
) -> None:
    """At another time, in another folder, from files with other times and permissions."""
    subprocess.run(("tar", "-xzf", archives[".gz"], "-C", tmp_path), check=True)
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    again = built(source, tmp_path / "dist")
    assert {k: p.name for k, p in again.items()} == {k: p.name for k, p in archives.items()}
    different = [k for k, path in again.items() if path.read_bytes() != archives[k].read_bytes()]
    assert different == []


def test_tools_of_the_index_find_nothing(archives: dict[str, Path]) -> None:
    """Such as a long description that cannot be shown, or files in the wrong place."""
    shell = Workspace(dict(os.environ))
    twine = (sys.executable, "-m", "twine", "--no-color", "check", "--strict")
    checked = shell.call(*twine, *archives.values()).succeeded()
    assert checked.output.count(": PASSED") == len(archives) == 2
    wheel = archives[".whl"]
    contents = shell.call(sys.executable, "-m", "check_wheel_contents", wheel).succeeded()
    assert contents.output == f"{wheel}: OK\n"


def test_content_of_the_source_archive(archives: dict[str, Path]) -> None:
    with tarfile.open(archives[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    top = [f.name for f in ROOT.iterdir() if f.suffix in {".md", ".toml", ".cff", ".pth"}]
    site = {"mkdocs.yml", "website/hooks.py", "findings/README.md", "docs/images/step.svg"}
    site |= {"containers/Dockerfile", "containers/apptainer.def", "notebooks/demo.ipynb"}
    assert {*top, *site, "LICENSE", "Makefile", ".ci/run", "nnunet_semisup/py.typed"} <= names
    tested = {str(f.relative_to(ROOT)) for f in (ROOT / "tests").rglob("*.py")}
    assert tested <= names


def test_content_of_the_wheel(wheel: Path) -> None:
    assert wheel.name.startswith(f"nnunet_semisup-{__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {name.partition("/")[0] for name in names}
    information = next(f for f in folders if f.endswith(".dist-info"))
    assert folders == {"nnunet_semisup", "nnunet_semisup_discovery.pth", information}
    assert not [n for n in names if "__pycache__" in n or "/tests/" in n]
    modules = {str(f.relative_to(ROOT)) for f in (ROOT / "nnunet_semisup").rglob("*.py")}
    assert modules | {"nnunet_semisup/py.typed"} <= set(names)


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_install_use_remove(wheel: Path, tmp_path: Path, kind: str) -> None:
    environment = Environment(tmp_path / "environment")
    script = tmp_path / "script.py"
    script.write_text(SPAWN)
    what = (wheel,) if kind == "wheel" else ("--no-build-isolation", "-e", ROOT)
    environment.pip("install", "--no-deps", "--no-index", *what)
    installed = environment.files() - environment.before
    assert "nnunet_semisup_discovery.pth" in installed
    assert ("nnunet_semisup" in installed) == (kind == "wheel")

    run = environment.call(script, *NAMES).succeeded()
    expected = [f"FOUND {m.trainer} nnunet_semisup.trainers.{m.module}" for m in METHODS]
    # Once in the process itself, once in the one that it spawned.
    assert [li for li in run.output.splitlines() if li.startswith("FOUND")] == expected * 2
    assert "dataset_name_or_id" in run.output, "the help of nnUNetv2_train"
    assert {f.name for f in environment.python.parent.glob("*semisup*")} == COMMANDS

    environment.pip("uninstall", "-y", "nnunet-semisup")
    assert environment.files() == environment.before
    assert not list(environment.python.parent.glob("*semisup*"))
    after = environment.call("-c", f"{FIND}\nfind({['nnUNetTrainer', NAMES[-1]]})")
    assert "FOUND nnUNetTrainer nnunetv2." in after.output
    assert after.code != 0
    assert f"RuntimeError: Could not find requested nnunet trainer {NAMES[-1]}" in after.output
