"""The validation of a fold has scores of the fold's cases, or says whose they are."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import evaluate_folders

NAME = "Dataset501_Heart"
SPLIT = [{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c", "d"], "val": ["a", "b"]}]


class Training:
    """References of four cases, and the folder of a training's fold with predictions."""

    def __init__(self, folders, monkeypatch, fold="0"):
        self.folders = folders
        root = folders.reference.parent
        self.preprocessed = root / "preprocessed" / NAME
        self.preprocessed.mkdir(parents=True)
        self.trainer = root / "results" / NAME / "nnUNetTrainerPseudoLabel__nnUNetPlans__3d_fullres"
        self.validation = self.trainer / f"fold_{fold}" / "validation"
        self.validation.mkdir(parents=True)
        monkeypatch.setenv("nnUNet_preprocessed", str(self.preprocessed.parent))
        folders.dataset_json({"background": 0, "heart": 1}, folders.reference)
        self.split(SPLIT)
        self.cube = np.zeros((8, 8, 8), np.uint8)
        self.cube[2:5, 2:5, 2:5] = 1
        for case in "abcd":
            folders.write(folders.reference, case, self.cube)

    def split(self, folds, folder=None):
        ((folder or self.preprocessed) / "splits_final.json").write_text(json.dumps(folds))

    def predict(self, *cases):
        for case in cases:
            self.folders.write(self.validation, case, self.cube)

    def evaluate(self, **options):
        return evaluate_folders(self.folders.reference, self.validation, **options)


@pytest.fixture
def training(folders, monkeypatch):
    return Training(folders, monkeypatch)


@pytest.mark.parametrize("chill", [False, True])
def test_predictions_of_cases_that_are_not_in_val_are_refused_by_name(training, chill):
    """nnU-Net 2.8.1 leaves an earlier split's predictions there; its summary.json counts them."""
    training.predict("a", "c", "d", "gone")
    training.folders.write(training.folders.reference, "gone", training.cube)
    with pytest.raises(UserError) as error:
        training.evaluate(allow_missing=chill)
    message = str(error.value)
    assert f"'{training.validation}' has predictions of cases that are not in 'val'" in message
    assert "- a (in train)\n  - gone\n" in message
    assert "- c" not in message
    assert str(training.preprocessed / "splits_final.json") in message
    for case in ("a", "gone"):
        (training.validation / f"{case}.nii.gz").unlink()
    assert [case.name for case in training.evaluate().cases] == ["c", "d"], "its advice helps"


def test_only_the_cases_of_val_are_expected(training):
    """So that ``--chill`` is not needed, and does not hide a case that was not predicted."""
    training.predict("c", "d")
    evaluation = training.evaluate()
    assert evaluation.inputs.missing_predictions == ()
    assert evaluation.warnings == ()
    (training.validation / "d.nii.gz").unlink()
    with pytest.raises(UserError, match=r"1 of 2 references have no prediction(?s:.*)d\.nii\.gz"):
        training.evaluate()
    assert training.evaluate(allow_missing=True).inputs.missing_predictions == ("d",)


def test_the_plans_beside_the_fold_name_the_data_set(training, tmp_path):
    """A training that was moved, or belongs to a data set that was renamed."""
    training.predict("c", "d")
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(training.trainer, moved)
    (moved / "plans.json").write_text(json.dumps({"dataset_name": NAME}))
    training.validation = moved / "fold_0" / "validation"
    assert training.evaluate().inputs.missing_predictions == ()
    (moved / "plans.json").write_text("{}")
    training.split(SPLIT, tmp_path)
    assert training.evaluate().inputs.missing_predictions == (), "beside the references"


def test_the_split_that_nnunet_reads_counts_before_one_beside_the_references(training, tmp_path):
    training.predict("c", "d")
    training.split(SPLIT[::-1], tmp_path)
    assert training.evaluate().warnings == ()
    # References that lie in another nnUNet_preprocessed than today's.
    folders = training.folders
    folders.reference = folders.reference.rename(tmp_path / "gt_segmentations")
    with pytest.raises(UserError, match=r"(?s)not in 'val'.*- c \(in train\)"):
        training.evaluate()


def test_a_split_that_cannot_be_known_is_said_so(training):
    training.predict("c")
    training.split(SPLIT[:0])
    (warning,) = training.evaluate(allow_missing=True).warnings
    assert "has no fold 0: whether fold_0 was trained on these cases is not known" in warning
    (training.preprocessed / "splits_final.json").unlink()
    (warning,) = training.evaluate(allow_missing=True).warnings
    assert warning.startswith("no splits_final.json found")


def test_scores_of_training_cases_are_called_that(folders, monkeypatch):
    training = Training(folders, monkeypatch, fold="all")
    training.predict(*"abcd")
    (warning,) = training.evaluate().warnings
    assert warning.startswith("fold_all: this network was trained on all cases")
    other = training.trainer / "fold_0" / "validation"
    shutil.copytree(training.validation, other)
    training.validation = other
    training.split([{"train": ["a", "b"], "val": ["b", "c", "d", "a"]}])
    (warning,) = training.evaluate().warnings
    assert warning.endswith("so that these are scores of training cases: a, b")


def test_other_folders_of_predictions_have_no_fold(training):
    """Of a test set, or what a new run has set aside."""
    training.predict(*"abcd")
    for name in ("validation_previous", "test"):
        training.validation = training.validation.rename(training.validation.with_name(name))
        evaluation = training.evaluate()
        assert len(evaluation.cases) == 4
        assert evaluation.warnings == ()


def test_labels_that_the_training_had_are_compared_with_todays(training):
    """A data set whose labels were renamed after the training."""
    training.predict("c", "d")
    training.folders.dataset_json({"background": 0, "liver": 1}, training.trainer)
    evaluation = training.evaluate()
    assert [c.name for c in evaluation.classes] == ["liver"]
    (warning,) = evaluation.warnings
    assert "declares other labels" in warning
