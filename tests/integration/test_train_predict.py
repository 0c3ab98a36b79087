"""The stock commands train every method and predict from what it saved."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.registry import find_method
from tests.integration.conftest import BY_COMMAND, TRAININGS, Trainings
from tests.integration.workspace import DATASETS, IMAGES, LABELS, SHORT, VOLUMES, Workspace

ENDING = {"3d_fullres": ".nii.gz", "2d": ".png"}
EVERY_RUN = ("checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "debug.json")
SEMISUPERVISED = ("semisup_config.json", "semisup_terms.csv", "semisup_progress.png")
VQSEG = ("semisup_codebook.png", "semisup_code_maps.png")


def expected_files(trainer: str) -> set[str]:
    """Files of a fold that training with ``trainer`` must leave."""
    names = set(EVERY_RUN)
    if find_method(trainer).uses_unlabeled:
        names.update(SEMISUPERVISED)
    if trainer == "nnUNetTrainerVQSeg":
        names.update(VQSEG)
    return names


@pytest.mark.parametrize(("trainer", "configuration"), TRAININGS)
def test_training_writes_its_files(trainings: Trainings, trainer: str, configuration: str) -> None:
    folder = trainings.fold_folder(trainer, configuration)
    names = {f.name for f in folder.iterdir()}
    assert expected_files(trainer) <= names
    assert "checkpoint_latest.pth" not in names
    assert not [n for n in names if n.endswith(".tmp") or n.startswith(".")]
    assert (folder / "validation" / "summary.json").is_file()
    assert all(f.stat().st_size > 0 for f in folder.iterdir())


@pytest.mark.parametrize(
    ("trainer", "configuration"), [t for t in TRAININGS if find_method(t[0]).uses_unlabeled]
)
def test_what_was_used_is_recorded(trainings: Trainings, trainer: str, configuration: str) -> None:
    folder = trainings.fold_folder(trainer, configuration)
    recorded = json.loads((folder / "semisup_config.json").read_text(encoding="utf-8"))
    assert recorded["trainer"] == trainer
    assert recorded["unlabeled_cases"] == [f"unl_{i:03d}" for i in range(4)]
    assert {**recorded["hyperparameters"], **SHORT, "seed": 7} == recorded["hyperparameters"]
    header, *rows = (folder / "semisup_terms.csv").read_text(encoding="utf-8").splitlines()
    terms = {re.sub(r"_[123]$", "", name) for name in header.split(",")}
    assert {"epoch", "loss"} <= terms
    assert ({"supervised", "consistency"} <= terms) == find_method(trainer).labels_alone
    assert [row.split(",")[0] for row in rows] == [str(e) for e in range(SHORT["num_epochs"])]


@pytest.mark.parametrize(("trainer", "configuration"), BY_COMMAND)
def test_stock_prediction(trainings: Trainings, trainer: str, configuration: str) -> None:
    predicted = trainings.prediction(trainer, configuration)
    check_segmentations(trainings.workspace, configuration, predicted)


def test_stock_prediction_from_a_model_folder(trainings: Trainings, tmp_path: Path) -> None:
    trainer, configuration = "nnUNetTrainerVQSeg", "3d_fullres"
    trainings.fold_folder(trainer, configuration)
    workspace = trainings.workspace
    workspace.run(
        *("nnUNetv2_predict_from_modelfolder", "-i", workspace.raw / VOLUMES / "imagesTs"),
        *("-o", tmp_path, "-m", workspace.model_folder(trainer, configuration), "-f", "0"),
        *("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta"),
    ).succeeded()
    check_segmentations(workspace, configuration, tmp_path)


def check_segmentations(workspace: Workspace, configuration: str, folder: Path) -> None:
    """One segmentation a test image, with its geometry and known labels only."""
    ending = ENDING[configuration]
    images = sorted((workspace.raw / DATASETS[configuration] / "imagesTs").glob(f"*_0000{ending}"))
    assert len(images) == 2
    for image_file in images:
        image = SimpleITK.ReadImage(str(image_file))
        predicted = SimpleITK.ReadImage(str(folder / image_file.name.replace("_0000", "")))
        assert predicted.GetSize() == image.GetSize()
        assert predicted.GetSpacing() == image.GetSpacing()
        assert set(np.unique(SimpleITK.GetArrayFromImage(predicted))) <= set(LABELS.values())


def test_a_fold_may_name_labeled_cases_as_unlabeled(workspace: Workspace, tmp_path: Path) -> None:
    """Their masks and properties are not even needed, nor is imagesUn."""
    preprocessed = tmp_path / "preprocessed"
    shutil.copytree(workspace.preprocessed / VOLUMES, preprocessed / VOLUMES)
    identifier = "nnUNetPlans_3d_fullres"
    shutil.rmtree(preprocessed / VOLUMES / f"{identifier}_unlabeled")
    (preprocessed / VOLUMES / f"{identifier}_unlabeled.json").unlink()
    for case in ("lab_002", "lab_003", "lab_005"):
        (preprocessed / VOLUMES / identifier / f"{case}_seg.b2nd").unlink()
        (preprocessed / VOLUMES / identifier / f"{case}.pkl").unlink()
    here = workspace.where(
        nnUNet_preprocessed=preprocessed, nnUNet_results=tmp_path / "r", nnUNet_raw=tmp_path / "raw"
    )
    trainer = "nnUNetTrainerMeanTeacher"
    here.train(trainer, "3d_fullres", 1).succeeded()
    recorded = json.loads(
        (here.fold_folder(trainer, fold=1) / "semisup_config.json").read_text(encoding="utf-8")
    )
    assert recorded["unlabeled_cases"] == ["lab_002", "lab_003", "lab_005"]


def test_no_unlabeled_case_at_all_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    preprocessed = tmp_path / "preprocessed"
    shutil.copytree(workspace.preprocessed / IMAGES, preprocessed / IMAGES)
    shutil.rmtree(preprocessed / IMAGES / "nnUNetPlans_2d_unlabeled")
    (preprocessed / IMAGES / "nnUNetPlans_2d_unlabeled.json").unlink()
    here = workspace.where(nnUNet_preprocessed=preprocessed, nnUNet_results=tmp_path / "results")
    run = here.train("nnUNetTrainerMeanTeacher", "2d")
    assert run.code == 2
    assert "Traceback" not in run.output
    assert "imagesUn" in run.output
    assert "nnUNetv2_semisup_preprocess" in run.output
    assert not (tmp_path / "results").exists()
