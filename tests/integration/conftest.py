"""Two planned and preprocessed data sets, and one short training of every method on them."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from nnunet_semisup.registry import METHODS
from tests.contract.conftest import EVERYTHING, one_of_each
from tests.helpers import make_raw_dataset, trial_settings
from tests.integration.workspace import (
    DATASETS,
    LABELS,
    Workspace,
    base_environment,
    hyperparameters,
    shrink_plan,
    train_in_process,
)

LANES = min(4, os.cpu_count() or 1)
"""Commands that run at a time, where they do not depend on each other."""

SPLITS = [
    {"train": ["lab_000", "lab_001", "lab_002", "lab_003"], "val": ["lab_004"]},
    {
        "train": ["lab_000", "lab_001"],
        "val": ["lab_004"],
        "unlabeled": ["lab_002", "lab_003", "lab_005"],
    },
]

DISTINCT = [m.trainer for m in one_of_each("build_network_architecture", "extend_network")]
"""One trainer for each way to build the network that predicts."""

TRAININGS = (
    *((method.trainer, "3d_fullres" if 3 in method.dims else "2d") for method in METHODS),
    ("nnUNetTrainerMeanTeacher", "2d"),
    ("nnUNetTrainerVQSeg", "2d"),
    ("nnUNetTrainerTextSemiSeg", "2d"),
)
"""Trainer and configuration of the runs that the tests share."""

BY_COMMAND = [training for training in TRAININGS if EVERYTHING or training[0] in DISTINCT]
"""The part of them that real commands train; the others are trained within the tests' process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here takes long together."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all of pytest-xdist's workers have; without them, one of the session's."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def workspace(shared: Path) -> Workspace:
    """A 3D and a 2D data set, planned and preprocessed by the package's command."""
    root = shared / "nnunet"
    workspace = Workspace({**base_environment(root), **hyperparameters()}, preloaded=True)
    with FileLock(shared / "nnunet.lock"):
        if not root.exists():
            try:
                make_datasets(workspace)
            except BaseException:
                shutil.rmtree(root, ignore_errors=True)
                raise
    return workspace


def make_datasets(workspace: Workspace) -> None:
    """Writes, plans and preprocesses both data sets."""
    make_raw_dataset(workspace.raw, 901, "Volumes", (20, 22, 24), 6, 4, labels=LABELS, num_test=2)
    make_raw_dataset(
        *(workspace.raw, 902, "Images", (40, 36), 6, 4),
        labels=LABELS,
        num_test=2,
        file_ending=".png",
    )
    with ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(lambda item: plan_and_preprocess(workspace, *item), DATASETS.items()))


def plan_and_preprocess(workspace: Workspace, configuration: str, dataset: str) -> None:
    """One command for both kinds of images, then a smaller network in the plan."""
    folder = workspace.preprocessed / dataset
    folder.mkdir(parents=True)
    (folder / "splits_final.json").write_text(json.dumps(SPLITS))
    number = dataset[len("Dataset") :][:3]
    # The planner sets the number of torch's threads to this variable, and refuses 0.
    planning = workspace.where(nnUNet_n_proc_DA="1")
    planning.run(
        *("nnUNetv2_semisup_plan_and_preprocess", "-d", number, "-c", configuration),
        *("-npfp", "1", "-np", "1", "--no_pbar"),
    ).succeeded()
    shrink_plan(folder / "nnUNetPlans.json", configuration)


@dataclass(frozen=True)
class Trainings:
    """Trainings, by trainer and configuration, and predictions with them; each made once.

    Attributes:
        workspace: with the data sets.
        shared: folder of what says that something is done.
    """

    workspace: Workspace
    shared: Path

    def fold_folder(self, trainer: str, configuration: str) -> Path:
        """Return the folder of the finished fold; fails the test if the training fails."""
        folder = self.workspace.fold_folder(trainer, configuration)
        finished = self.shared / f"{trainer}_{configuration}.finished"
        with FileLock(finished.with_suffix(".lock")):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                here = self.workspace.where(**hyperparameters(**trial_settings(trainer)))
                if (trainer, configuration) in BY_COMMAND:
                    here.train(trainer, configuration).succeeded()
                else:
                    train_in_process(here, trainer, configuration)
                finished.touch()
        return folder

    def prediction(self, trainer: str, configuration: str) -> Path:
        """Return the folder of what ``nnUNetv2_predict`` wrote, with probabilities."""
        self.fold_folder(trainer, configuration)
        folder = self.shared / f"{trainer}_{configuration}_predicted"
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                unfinished = folder.with_suffix(".part")
                shutil.rmtree(unfinished, ignore_errors=True)
                self.workspace.predict(
                    trainer, configuration, unfinished, 0, "--save_probabilities"
                ).succeeded()
                unfinished.rename(folder)
        return folder


@pytest.fixture(scope="session")
def trainings(workspace: Workspace, shared: Path) -> Trainings:
    """Give trainings and predictions, made when a test first asks for them."""
    return Trainings(workspace, shared)
