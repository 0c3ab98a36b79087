"""Prediction where this package is not installed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_semisup.registry import find_method
from nnunet_semisup.training.checkpoint import KEY
from tests.integration.conftest import BY_COMMAND, Trainings
from tests.integration.workspace import Workspace

# Run at the start of Python, after the package's own start-up file: as if it were not installed.
WITHOUT_PACKAGE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nnunet_semisup":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

for name in [n for n in sys.modules if n.partition(".")[0] == "nnunet_semisup"]:
    del sys.modules[name]
sys.meta_path.insert(0, Refuse())
"""


# nnUNetv2_predict, once for each argument of the script, in one process.
PREDICT = """
import sys
from nnunetv2.inference.predict_from_raw_data import predict_entry_point

for line in sys.argv[1:]:
    sys.argv = ["nnUNetv2_predict", *line.split("|")]
    predict_entry_point()
"""

PREDICTED = (
    ("nnUNetTrainerMeanTeacher", "3d_fullres"),
    ("nnUNetTrainerMeanTeacher", "2d"),
    ("nnUNetTrainerCPS", "3d_fullres"),
    ("nnUNetTrainerMCNet", "3d_fullres"),
)
"""Models whose network in training has other parts than the one that predicts, among them."""


@pytest.fixture(scope="module")
def stock(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Give the shared results, in an environment that cannot import this package."""
    start = tmp_path_factory.mktemp("start")
    (start / "sitecustomize.py").write_text(WITHOUT_PACKAGE)
    before = trainings.workspace.environment.get("PYTHONPATH", "")
    started = replace(trainings.workspace, preloaded=False)
    workspace = started.where(
        PYTHONPATH=os.pathsep.join(p for p in (str(start), before) if p),
        NNUNET_SEMISUP_DISCOVERY=0,
    )
    python = (sys.executable, "-c")
    assert workspace.call(*python, "import nnunetv2").succeeded()
    assert "No module named" in workspace.call(*python, "import nnunet_semisup").output
    return workspace


@pytest.fixture(scope="module")
def predicted(
    trainings: Trainings, stock: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give a folder with what stock nnU-Net predicts with each model."""
    root = tmp_path_factory.mktemp("predicted")
    lines = []
    for trainer, configuration in PREDICTED:
        trainings.fold_folder(trainer, configuration)
        output = root / f"{trainer}_{configuration}"
        arguments = stock.predict_arguments(trainer, configuration, output)
        lines.append("|".join((*arguments, "--save_probabilities")))
    stock.call(sys.executable, "-c", PREDICT, *lines).succeeded()
    return root


@pytest.mark.parametrize(("trainer", "configuration"), BY_COMMAND)
def test_trainer_named_in_the_checkpoint(
    trainings: Trainings, trainer: str, configuration: str
) -> None:
    method = find_method(trainer)
    folder = trainings.fold_folder(trainer, configuration)
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == method.predicts_as
    assert checkpoint[KEY]["trainer"] == trainer


@pytest.mark.parametrize(("trainer", "configuration"), PREDICTED)
def test_stock_nnunet_predicts_the_same(
    trainings: Trainings, predicted: Path, trainer: str, configuration: str
) -> None:
    with_package = trainings.prediction(trainer, configuration)
    without = predicted / f"{trainer}_{configuration}"
    cases = sorted(f.name for f in without.glob("*.npz"))
    assert cases == ["tst_000.npz", "tst_001.npz"]
    for case in cases:
        one, other = np.load(with_package / case), np.load(without / case)
        assert one["probabilities"].std() > 0
        assert np.array_equal(one["probabilities"], other["probabilities"])


def test_a_method_with_its_own_network_is_refused_by_name(
    trainings: Trainings, stock: Workspace, tmp_path: Path
) -> None:
    trainer = "nnUNetTrainerVQSeg"
    trainings.fold_folder(trainer, "3d_fullres")
    run = stock.predict(trainer, "3d_fullres", tmp_path / "out")
    assert run.code != 0
    assert f"Could not find requested nnunet trainer {trainer}" in run.output
    assert not list((tmp_path / "out").glob("*.nii.gz"))
