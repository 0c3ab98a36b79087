"""What a number would hide is refused or told: values, endings, ignore labels, tiny spacings."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import evaluate_folders

HEART = {"background": 0, "heart": 1}


def run(folders, **options):
    return evaluate_folders(folders.reference, folders.prediction, **options)


def test_references_with_undeclared_values_are_refused_with_the_values(folders, cube):
    """nnU-Net 2.8.1 counts them as background, so that a structure of theirs is no fault."""
    dataset_json = folders.dataset_json({**HEART, "ignore": 2})
    folders.case("fine", cube, cube)
    more = cube.copy()
    more[0, 0, :3] = (2, 3, 9)
    folders.case("a", more, cube)
    folders.case("b", cube * 4, cube)
    with pytest.raises(UserError) as error:
        run(folders)
    message = str(error.value)
    assert "2 of 3 cases" in message
    assert f"a: reference has values that '{dataset_json}' does not declare: 3, 9\n" in message
    assert f"b: reference has values that '{dataset_json}' does not declare: 4\n" in message
    assert "fine" not in message
    given = folders.dataset_json({**HEART, "ignore": 2, "x": 3, "y": 4, "z": 9}, folders.images)
    assert len(run(folders, dataset_json=given).cases) == 3, "its advice helps"


def test_predictions_with_the_ignore_label_are_told(folders, cube):
    """It is no class: where the reference is not ignored, such a voxel counts as background."""
    folders.dataset_json({**HEART, "ignore": 2})
    folders.case("a", cube, cube * 2)
    evaluation = run(folders)
    assert evaluation.cases[0].classes["heart"].status == "prediction_empty"
    (warning,) = evaluation.warnings
    assert warning.endswith("count as background in the predictions of: a (2)")


def test_references_of_another_ending_are_told(folders, cube):
    """They would be left out without a word, where no prediction has their name either."""
    folders.dataset_json(HEART)
    folders.case("a", cube, cube)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(cube), str(folders.reference / "b.nii"))
    for ending in (".NRRD", ".nii", ".png", ".json"):
        (folders.reference / f"a{ending}").write_bytes(b"beside")
    (warning,) = run(folders).warnings
    assert warning.startswith("1 files of")
    assert warning.endswith("do not end with '.nii.gz' and are left out: b.nii")


def test_exchanged_folders_are_told(folders, cube):
    """``missed`` and ``invented`` would be exchanged, too, and ``ASD_directed`` another number."""
    folders.dataset_json(HEART)
    folders.case("a", cube, cube)
    (folders.prediction / "predict_from_raw_data_args.json").write_text("{}")
    assert run(folders).warnings == ()
    (warning,) = evaluate_folders(folders.prediction, folders.reference).warnings
    assert "give the references first" in warning


def test_predictions_that_an_earlier_run_left_are_told(folders, cube):
    """``nnUNetv2_predict`` (2.8.1) into a folder keeps what another model predicted there."""
    folders.dataset_json(HEART)
    folders.case("old", cube, cube)
    folders.case("new", cube, cube)
    record = folders.prediction / "predict_from_raw_data_args.json"
    record.write_text(json.dumps({"overwrite": True, "num_parts": 1}))
    assert run(folders).warnings == ()
    hour_ago = record.stat().st_mtime - 3600
    os.utime(folders.prediction / "old.nii.gz", (hour_ago, hour_ago))
    (warning,) = run(folders).warnings
    assert warning.endswith("perhaps of another model: old")
    for on_purpose in ({"overwrite": False, "num_parts": 1}, {"overwrite": True, "num_parts": 2}):
        record.write_text(json.dumps(on_purpose))
        assert run(folders).warnings == ()


def test_another_ignore_label_of_another_dataset_json_is_told(folders, cube):
    folders.case("a", cube, cube)
    folders.dataset_json({**HEART, "ignore": 2})
    folders.dataset_json({"heart": 1, "background": 0, "ignore": 2}, folders.reference)
    assert run(folders).warnings == ()
    folders.dataset_json(HEART, folders.reference)
    (warning,) = run(folders).warnings
    assert "declares other labels" in warning


@pytest.mark.parametrize("factor", [1.0, 1e-4])
def test_spacings_and_places_of_microscopy_are_told_apart(folders, cube, factor):
    """Voxels below a micrometre, in mm: an absolute tolerance would take any two for equal."""
    folders.dataset_json(HEART)
    spacing = np.array([4.0, 1.0, 1.0]) * factor
    folders.write(folders.reference, "a", cube, spacing)
    folders.write(folders.prediction, "a", cube, spacing, origin=(2.0 * factor, 0, 0))
    (warning,) = run(folders).warnings
    assert "compared by index: a" in warning
    folders.write(folders.prediction, "a", cube, spacing * [1, 2, 1])
    with pytest.raises(UserError, match="a: reference has spacing"):
        run(folders)
