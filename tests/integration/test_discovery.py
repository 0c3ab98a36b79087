"""How nnU-Net's commands find the trainers: the variable, its start-up file, and the search."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nnunet_semisup import _discovery
from nnunet_semisup.registry import METHODS
from tests.integration.workspace import Run, Workspace, base_environment

LOOK_UP = """
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

def show(name):
    found = find(name)
    print("FOUND", name, found.__module__, found is find(name), flush=True)
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """An environment in which nobody has set nnUNet_extTrainer."""
    return Workspace(base_environment(tmp_path))


def python(workspace: Workspace, code: str) -> Run:
    """Runs ``code`` in a new interpreter."""
    return workspace.call(sys.executable, "-c", code)


def test_install_sets_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_discovery.VARIABLE, raising=False)
    monkeypatch.delenv(_discovery.OPT_OUT, raising=False)
    _discovery.install()
    assert os.environ[_discovery.VARIABLE] == _discovery.EXT_FOLDER
    assert [f for f in os.listdir(_discovery.EXT_FOLDER) if f.endswith(".py")]


def test_install_appends_after_the_users_folders_and_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = os.pathsep.join(["/theirs/one", "/theirs/two"])
    monkeypatch.setenv(_discovery.VARIABLE, theirs)
    monkeypatch.delenv(_discovery.OPT_OUT, raising=False)
    for _ in range(2):
        _discovery.install()
        assert os.environ[_discovery.VARIABLE] == f"{theirs}{os.pathsep}{_discovery.EXT_FOLDER}"


@pytest.mark.parametrize("before", [None, "/theirs"])
def test_opt_out_leaves_the_variable_alone(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setenv(_discovery.OPT_OUT, "0")
    monkeypatch.delenv(_discovery.VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(_discovery.VARIABLE, before)
    _discovery.install()
    assert os.environ.get(_discovery.VARIABLE) == before


def test_a_new_interpreter_has_the_variable_and_no_heavy_import(fresh: Workspace) -> None:
    run = python(
        fresh,
        "import os, sys\n"
        "print(os.environ['nnUNet_extTrainer'])\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'torch', 'numpy', 'nnunetv2', 'importlib_metadata'}))\n"
        "print(sorted(m for m in sys.modules if m.startswith('nnunet_semisup')))",
    ).succeeded()
    assert run.output.splitlines() == [
        _discovery.EXT_FOLDER,
        "[]",
        "['nnunet_semisup', 'nnunet_semisup._discovery']",
    ]


def test_opt_out_of_a_new_interpreter(fresh: Workspace) -> None:
    run = python(
        fresh.where(NNUNET_SEMISUP_DISCOVERY=0),
        "import os; print(os.environ.get('nnUNet_extTrainer'))",
    ).succeeded()
    assert run.output.strip() == "None"


def test_every_method_is_found_beside_the_users_own_trainer(
    fresh: Workspace, tmp_path: Path
) -> None:
    """Also in a spawned process: nnU-Net starts its distributed training and its workers so."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerMine(nnUNetTrainer):\n    pass\n"
    )
    names = ["nnUNetTrainerMine", *(method.trainer for method in METHODS)]
    script = tmp_path / "spawns.py"
    script.write_text(
        f"{LOOK_UP}\n"
        "if __name__ == '__main__':\n"
        "    import multiprocessing\n"
        f"    for name in {names}:\n"
        "        show(name)\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    child = context.Process(target=show, args=('nnUNetTrainerVQSeg',))\n"
        "    child.start(); child.join(); raise SystemExit(child.exitcode)\n"
    )
    here = fresh.where(nnUNet_extTrainer=tmp_path / "theirs")
    run = here.call(sys.executable, script).succeeded()
    *found, spawned = [
        line.split()[1:] for line in run.output.splitlines() if line.startswith("FOUND")
    ]
    assert found[0][:2] == ["nnUNetTrainerMine", "mine"]
    # The classes are the installed ones, so they are the same in every search and can be pickled.
    assert found[1:] == [
        [m.trainer, f"nnunet_semisup.trainers.{m.module}", "True"] for m in METHODS
    ]
    assert spawned == ["nnUNetTrainerVQSeg", "nnunet_semisup.trainers.vqseg", "True"]


def test_an_environment_without_the_package_only_misses_its_trainers(fresh: Workspace) -> None:
    """One that inherits the variable, say from a shell of another environment."""
    run = python(
        fresh.where(nnUNet_extTrainer=_discovery.EXT_FOLDER),
        "import sys, importlib.util\n"
        "for name in [m for m in sys.modules if m.startswith('nnunet_semisup')]:\n"
        "    del sys.modules[name]\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'nnunet_semisup' else real(n, *a)\n"
        "sys.modules['nnunet_semisup'] = None\n"
        f"{LOOK_UP}\nshow('nnUNetTrainerVQSeg')",
    )
    assert run.code != 0
    assert "RuntimeError: Could not find requested nnunet trainer nnUNetTrainerVQSeg" in run.output
