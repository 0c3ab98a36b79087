"""Prediction where this package is not installed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_semisup.registry import METHODS
from nnunet_semisup.training.checkpoint import KEY
from tests.integration.conftest import Trainings
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


@pytest.fixture
def stock(trainings: Trainings, tmp_path: Path) -> Workspace:
    """The shared results, in an environment that cannot import this package."""
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(WITHOUT_PACKAGE)
    before = trainings.workspace.environment.get("PYTHONPATH", "")
    started = replace(trainings.workspace, preloaded=False)
    workspace = started.where(
        PYTHONPATH=os.pathsep.join(p for p in (str(tmp_path / "start"), before) if p),
        NNUNET_SEMISUP_DISCOVERY=0,
    )
    python = (sys.executable, "-c")
    assert workspace.call(*python, "import nnunetv2").succeeded()
    assert "No module named" in workspace.call(*python, "import nnunet_semisup").output
    return workspace


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.trainer)
def test_trainer_named_in_the_checkpoint(trainings: Trainings, method) -> None:
    folder = trainings.fold_folder(method.trainer, "3d_fullres")
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == method.predicts_as
    if method.uses_unlabeled:
        assert checkpoint[KEY]["trainer"] == method.trainer


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_stock_nnunet_predicts_the_same(
    trainings: Trainings, stock: Workspace, tmp_path: Path, configuration: str
) -> None:
    trainer = "nnUNetTrainerMeanTeacher"
    with_package, without = trainings.prediction(trainer, configuration), tmp_path
    stock.predict(trainer, configuration, without, 0, "--save_probabilities").succeeded()
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
