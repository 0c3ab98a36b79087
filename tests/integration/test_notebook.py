"""The notebook of the demo runs from its first cell to its last, in small."""

from __future__ import annotations

import json
import re

import nbclient
import nbformat
import pytest

from nnunet_semisup.demo.settings import Settings
from tests.integration.workspace import TIMEOUT, base_environment
from tests.project import ROOT

NOTEBOOK = ROOT / "notebooks" / "demo.ipynb"
SMALL = """
from pathlib import Path
FOLDER = Path("small")
LABELED, UNLABELED, TEST = 2, 3, 2
STEPS, STEPS_PER_EPOCH = 2, 2
"""


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def parameters(notebook):
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    return cell


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after a run of all cells, and its folder."""
    root, notebook = tmp_path_factory.mktemp("notebook"), read()
    parameters(notebook).source = SMALL
    run = nbclient.NotebookClient(
        notebook, timeout=3 * TIMEOUT, resources={"metadata": {"path": root}}
    )
    variables = base_environment(root / "elsewhere")
    run.execute(env={**variables, "nnUNet_n_proc_DA": "1"})
    return notebook, root


def output_of(notebook, command):
    """Return what the cell that has a command printed."""
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and command in c.source)
    return "".join(output.get("text", "") for output in cell.outputs)


def test_trainings_and_comparison_are_shown(executed):
    notebook, _ = executed
    assert output_of(notebook, "write_phantom").count("imagesUn 3\n") == 1
    assert output_of(notebook, "nnUNetv2_train").count("Training done.") == 2
    assert "nnUNetTrainerPseudoLabel" in output_of(notebook, "nnUNetv2_semisup_compare")
    pictures = [o for c in notebook.cells for o in c.get("outputs", ()) if "image/png" in str(o)]
    assert len(pictures) == 2


def test_everything_lies_in_one_folder(executed):
    _, root = executed
    assert [path.name for path in root.iterdir()] == ["small"]
    found = (root / "small" / "nnUNet_results").glob("predictions/*/semisup_evaluation.json")
    assert len([json.loads(path.read_text("utf-8")) for path in found]) == 2


def test_a_command_that_fails_ends_the_run(tmp_path):
    notebook = read()
    (cell,) = (c for c in notebook.cells if "nnUNetv2_semisup_plan" in c.source)
    notebook.cells = [cell]
    run = nbclient.NotebookClient(notebook, resources={"metadata": {"path": tmp_path}})
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="not found"):
        run.execute(env={**base_environment(tmp_path), **path})


def test_it_is_stored_without_what_a_run_leaves():
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs or cell.execution_count] == []


def test_its_settings_are_those_of_the_demo():
    values = {}
    exec(compile(parameters(read()).source, str(NOTEBOOK), "exec"), values)
    settings, counts = Settings(), Settings().counts
    assert (values["STEPS"], values["STEPS_PER_EPOCH"]) == (
        settings.steps,
        settings.steps_per_epoch,
    )
    given = values["LABELED"], values["UNLABELED"], values["TEST"]
    assert given == (counts.labeled, counts.unlabeled, counts.test)
    trained = re.findall(r"nnUNetv2_train .* -tr (\w+)", NOTEBOOK.read_text("utf-8"))
    assert trained == list(settings.trainers)
