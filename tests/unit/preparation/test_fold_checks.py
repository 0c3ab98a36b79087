"""Folds and plans with which nnU-Net would fail after its first steps are refused by name."""

import json
import shutil

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.fold_checks import check_fold
from tests.unit.preparation.shared import change_plans, plans_of

GOOD = {"train": ["lab_000", "lab_001"], "val": ["lab_002"]}


def write_splits(planned, *folds):
    (planned.preprocessed / "splits_final.json").write_text(json.dumps(folds))


def check(planned, fold=0, configuration="3d_fullres", **options):
    plans = plans_of(planned)
    check_fold(planned.preprocessed, plans, configuration, fold, ".nii.gz", **options)


def message(planned, *arguments, **options):
    before = planned.snapshot()
    with pytest.raises(UserError) as caught:
        check(planned, *arguments, **options)
    assert planned.snapshot() == before
    return str(caught.value)


def labeled(planned, configuration="3d_fullres"):
    return planned.preprocessed / f"nnUNetPlans_{configuration}"


SPLITS = {
    "empty val": (
        {"train": ["lab_000"], "val": []},
        "'val' is empty; nnU-Net validates after every epoch, so name at least one labeled case",
    ),
    "empty train": ({"train": [], "val": ["lab_000"]}, "'train' is empty; name the labeled cases"),
    "unknown case": (
        {"train": ["lab_000", "lab_009"], "val": ["lab_001"]},
        "'train' names cases without all preprocessed files in ",
    ),
    "unknown validation case": (
        {"train": ["lab_000"], "val": ["lab_008"]},
        "'val' names cases without all preprocessed files in ",
    ),
    "in both": (
        {"train": ["lab_000", "lab_001"], "val": ["lab_001"]},
        "in 'train' and in 'val': lab_001; name each case in one of the two",
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_fold_that_cannot_be_trained_is_refused(planned, name):
    fold, expected = SPLITS[name]
    write_splits(planned, GOOD, fold)
    check(planned, 0)
    text = message(planned, 1)
    assert f"{planned.preprocessed / 'splits_final.json'}, fold 1: {expected}" in text
    assert "Dataset501_Blobs, 3d_fullres, fold 1 cannot be trained; nothing was written" in text


def test_all_faults_come_at_once(planned):
    write_splits(planned, {"train": ["lab_000", "lab_007"], "val": []})
    text = message(planned)
    assert "lab_007" in text
    assert "'val' is empty" in text
    assert text.count("nnUNetv2_preprocess") == 1


@pytest.mark.parametrize("suffix", [".b2nd", "_seg.b2nd", ".pkl"])
def test_a_case_of_which_a_file_is_missing_is_named(planned, suffix):
    """nnU-Net 2.8.1 counts a case by its image alone and opens the rest in a worker process."""
    write_splits(planned, GOOD)
    (labeled(planned) / f"lab_001{suffix}").unlink()
    text = message(planned)
    assert f"'train' names cases without all preprocessed files in {labeled(planned)}" in text
    assert "lab_001" in text
    command = "run nnUNetv2_preprocess -d 501 -plans_name nnUNetPlans -c 3d_fullres"
    assert f"lab_001; {command}, or take them out" in text
    check(planned, 0, "2d")


def test_a_fold_of_all_cases_needs_all_files(planned):
    check(planned, "all")
    (labeled(planned) / "lab_001.pkl").unlink()
    assert "cases without all preprocessed files" in message(planned, "all")


def test_nothing_preprocessed(planned):
    write_splits(planned, GOOD)
    shutil.rmtree(labeled(planned))
    assert f"{labeled(planned)} has no preprocessed labeled case" in message(planned)


def test_a_validation_case_needs_the_label_that_it_is_scored_with(planned):
    """nnU-Net opens it when the training is over."""
    write_splits(planned, GOOD)
    labels = planned.preprocessed / "gt_segmentations"
    (labels / "lab_000.nii.gz").unlink()
    check(planned)
    (labels / "lab_002.nii.gz").unlink()
    text = message(planned)
    assert f"{labels} lacks labels of validation cases" in text
    assert text.count("lab_002") == 1


def test_fewer_labeled_cases_than_folds(planned):
    """scikit-learn's KFold, with which nnU-Net makes five folds, refuses three cases."""
    text = message(planned)
    assert "splits_final.json has no fold 0: nnU-Net's folds need 5 labeled cases, and 3" in text
    assert "train the fold all" in text
    check(planned, "all")


def test_a_fold_that_the_file_lacks_is_drawn_from_all_cases(planned):
    """nnU-Net takes four fifths of them, rounded down, to train: of one case, none."""
    write_splits(planned, GOOD)
    check(planned, 7)
    for case in ("lab_001", "lab_002"):
        for path in labeled(planned).glob(f"{case}*"):
            path.unlink()
    assert "no fold 7: nnU-Net's folds need 2 labeled cases, and 1 are" in message(planned, 7)


def test_there_is_no_negative_fold(planned):
    assert "there is no fold -1; give a number from 0, or all" in message(planned, -1)


@pytest.mark.parametrize("ignore", [False, True], ids=["", "ignore label"])
def test_training_cases_without_any_foreground(planned, ignore):
    """With an ignore label nnU-Net also records what is annotated, under a key with -1."""
    write_splits(planned, GOOD)
    places = {1: [], 2: [], **({(-1, 0, 1, 2): [[0, 1, 1, 1]]} if ignore else {})}
    for case in GOOD["train"]:
        check(planned)
        path = str(labeled(planned) / f"{case}.pkl")
        write_pickle({**load_pickle(path), "class_locations": places}, path)
    assert "none of the 2 labeled cases has foreground in its label" in message(planned)


def with_stages(number):
    """Plans of a network with this many stages."""

    def change(plans):
        kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        kwargs["strides"] = kwargs["strides"][:number]

    return change


def test_a_plan_with_a_single_output(planned):
    """Its weight under deep supervision is 0/0 in nnU-Net 2.8.1, the loss NaN at once."""
    write_splits(planned, GOOD)
    change_plans(planned, with_stages(2))
    text = message(planned)
    assert "nnUNetPlans, 3d_fullres: the network has 2 stage(s) and one output (patch " in text
    assert 'Train without deep supervision: nnUNet_semisup_set="enable_deep_supervision=F' in text
    assert "nnUNetTrainerURPC, which compares outputs, cannot" in text
    check(planned, deep_supervision=False)


def test_a_network_of_another_kind_is_left_to_its_trainer(planned):
    """nnU-Net gives its architecture what the plan has, for example no strides."""
    write_splits(planned, GOOD)

    def change(plans):
        architecture = plans["configurations"]["3d_fullres"]["architecture"]
        architecture["arch_kwargs"] = {"patch_embed_size": [8, 8, 8]}

    change_plans(planned, change)
    check(planned)


def test_a_plan_without_a_decoder(planned):
    write_splits(planned, GOOD)
    change_plans(planned, with_stages(1))
    assert "1 stage(s) and no decoder" in message(planned)
