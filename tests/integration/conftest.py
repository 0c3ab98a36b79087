"""Two planned and preprocessed data sets, and one short training of every method on them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from nnunet_semisup.registry import METHODS
from tests.helpers import WITHOUT_DOWNLOADS, make_raw_dataset
from tests.integration.workspace import (
    DATASETS,
    LABELS,
    Run,
    Workspace,
    base_environment,
    hyperparameters,
    shrink_plan,
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

TRAININGS = (
    *((method.trainer, "3d_fullres") for method in METHODS),
    ("nnUNetTrainerMeanTeacher", "2d"),
    ("nnUNetTrainerVQSeg", "2d"),
    ("nnUNetTrainerTextSemiSeg", "2d"),
)
"""Trainer and configuration of the runs that the tests share."""


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
    """Finished or running trainings, by trainer and configuration, and predictions with them."""

    workspace: Workspace
    shared: Path
    runs: dict[tuple[str, str], Future[Run]]

    def fold_folder(self, trainer: str, configuration: str) -> Path:
        """Folder of the finished fold; fails the test if the command failed."""
        self.runs[trainer, configuration].result().succeeded()
        return self.workspace.fold_folder(trainer, configuration)

    def prediction(self, trainer: str, configuration: str) -> Path:
        """Folder of what ``nnUNetv2_predict`` wrote, with probabilities; run once."""
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
def trainings(workspace: Workspace, shared: Path) -> Iterator[Trainings]:
    """Every method trained once with ``nnUNetv2_train``, several at a time."""

    def train(trainer: str, configuration: str) -> Run:
        finished = shared / f"{trainer}_{configuration}.json"
        with FileLock(finished.with_suffix(".lock")):
            if not finished.exists():
                settings = hyperparameters(**WITHOUT_DOWNLOADS.get(trainer, {}))
                run = workspace.where(**settings).train(trainer, configuration)
                finished.write_text(json.dumps(asdict(run)), encoding="utf-8")
            return Run(**json.loads(finished.read_text(encoding="utf-8")))

    with ThreadPoolExecutor(LANES) as lanes:
        runs = {key: lanes.submit(train, *key) for key in TRAININGS}
        yield Trainings(workspace, shared, runs)
        lanes.shutdown(cancel_futures=True)
