"""Evaluation of folders: pairing, labels, regions, ignore label, summary, refused input."""

from __future__ import annotations

import math
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from skimage import io

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.metrics import compute_metrics
from nnunet_semisup.evaluation.report import format_report, report_dict, statistic, worst_case

from .conftest import SPACING_ZYX

HEART = {"background": 0, "heart": 1}


def run(folders, **options):
    return evaluate_folders(folders.reference, folders.prediction, **options)


def test_metrics_use_the_spacing_of_the_header(folders, cube):
    folders.dataset_json(HEART)
    shifted = np.roll(cube, 1, axis=0)
    folders.case("a", cube, shifted)
    (case,) = run(folders).cases
    expected = compute_metrics(shifted == 1, cube == 1, SPACING_ZYX)
    assert case.spacing == pytest.approx(SPACING_ZYX)
    assert case.classes["heart"].values == pytest.approx(expected.values)
    assert case.classes["heart"].values["HD95"] == pytest.approx(3.0)


def test_a_reference_that_names_its_values_otherwise_is_refused(folders, cube):
    """The value 1 is the liver in ``dataset.json`` and the spleen in the reference's own table."""
    folders.dataset_json({"background": 0, "liver": 1, "spleen": 2})
    folders.case("a", cube, cube)
    (path,) = folders.reference.glob("a*")
    image = nibabel.load(path)
    table = b'<LabelTable><Label Key="1">Spleen</Label></LabelTable>'
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, table))
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    with pytest.raises(UserError, match="names the value 1 'Spleen', which is 2 in the data set"):
        run(folders)


def test_summary_leaves_undefined_cases_out_and_counts_them(folders, cube):
    folders.dataset_json({**HEART, "tumor": 2, "nowhere": 3})
    half, empty = cube.copy(), np.zeros_like(cube)
    half[2] = 0
    with_tumor = cube.copy()
    with_tumor[7, 7, 7] = 2
    folders.case("perfect", cube, cube)
    folders.case("half", cube, half)
    folders.case("missed", cube, empty)
    folders.case("nothing", empty, empty)
    folders.case("invented", cube, with_tumor)
    evaluation = run(folders)
    summary = report_dict(evaluation)["summary"]
    dice = [1.0, 2 * 18 / (27 + 18), 0.0, 1.0]
    heart = summary["classes"]["heart"]
    assert heart["Dice"]["mean"] == pytest.approx(np.mean(dice))
    assert heart["Dice"]["std"] == pytest.approx(np.std(dice, ddof=1))
    assert heart["Dice"]["count"] == 4
    assert heart["case_counts"] == {
        "both_present": 3,
        "prediction_empty": 1,
        "reference_empty": 0,
        "both_empty": 1,
    }
    assert heart["worst_case"]["case"] == "missed"
    assert heart["worst_case"]["HD95"] == pytest.approx(8 * math.hypot(*SPACING_ZYX))
    assert summary["classes"]["tumor"]["Dice"] == {"mean": 0.0, "std": None, "count": 1}
    assert summary["classes"]["nowhere"]["Dice"] == {"mean": None, "std": None, "count": 0}
    assert summary["classes"]["nowhere"]["worst_case"] is None
    means = [np.mean(dice), 0.0]
    assert summary["over_classes"]["Dice"]["mean"] == pytest.approx(np.mean(means))
    assert summary["over_classes"]["Dice"]["std"] == pytest.approx(np.std(means, ddof=1))
    assert summary["over_classes"]["Dice"]["count"] == 2
    text = format_report(evaluation)
    assert "missed (0.0000)" in text
    assert "1 of 3 classes occur in no case" in text


def test_predicting_nothing_scores_worse_than_any_attempt(folders, cube):
    folders.dataset_json(HEART)
    corner, empty = np.zeros_like(cube), np.zeros_like(cube)
    corner[7, 7, 7] = 1
    folders.case("corner", cube, corner)
    folders.case("empty", cube, empty)
    corner_case, empty_case = run(folders).cases
    worse, better = empty_case.classes["heart"].values, corner_case.classes["heart"].values
    assert worse["Dice"] <= better["Dice"]
    assert all(worse[m] > better[m] for m in ("HD95", "ASD", "ASD_directed"))
    assert worst_case(run(folders).cases, "heart").name == "empty"


def test_regions_are_unions_of_labels(folders, cube):
    folders.dataset_json(
        {"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2]
    )
    prediction = cube.copy()
    prediction[3, 3, 3] = 2
    folders.case("a", cube, prediction)
    (case,) = run(folders).cases
    assert case.classes["whole"].values["Dice"] == 1.0
    assert case.classes["core"].status == "reference_empty"
    assert case.undeclared_values == ()


def test_ignored_voxels_belong_to_no_mask(folders, cube):
    folders.dataset_json({**HEART, "ignore": 2})
    reference, prediction = cube.copy(), cube.copy()
    reference[4] = 2
    prediction[4:] = 1
    prediction[5:] = 0
    folders.case("a", reference, prediction)
    (case,) = run(folders).cases
    assert list(case.classes) == ["heart"]
    assert case.classes["heart"].values["Dice"] == 1.0
    assert case.classes["heart"].values["HD95"] == 0.0
    assert case.ignored_voxels == 64


def test_classes_are_found_without_a_dataset_json(folders, cube):
    other = cube * 3
    folders.case("a", cube, cube)
    folders.case("b", other, other)
    evaluation = run(folders)
    assert [c.name for c in evaluation.classes] == ["1", "3"]
    assert [c.classes["3"].status for c in evaluation.cases] == ["both_empty", "both_present"]
    assert any("no dataset.json" in warning for warning in evaluation.warnings)


def test_dataset_json_is_found_beside_the_references_and_disagreement_is_told(folders, cube):
    folders.case("a", cube, cube)
    folders.dataset_json({"background": 0, "atrium": 1}, folders.reference.parent)
    assert [c.name for c in run(folders).classes] == ["atrium"]
    folders.dataset_json(HEART)
    evaluation = run(folders)
    assert [c.name for c in evaluation.classes] == ["heart"]
    assert any("other labels" in warning for warning in evaluation.warnings)
    given = folders.dataset_json({"background": 0, "mine": 1}, folders.images)
    assert [c.name for c in run(folders, dataset_json=given).classes] == ["mine"]


def test_several_processes_give_the_same_results(folders, cube):
    folders.dataset_json(HEART)
    for shift in range(3):
        folders.case(f"case{shift}", cube, np.roll(cube, shift, axis=1))
    assert run(folders, num_processes=2).cases == run(folders).cases


def test_2d_volumes_use_two_spacings(folders):
    folders.dataset_json(HEART)
    reference = np.zeros((8, 8), np.uint8)
    reference[2:4, 2:4] = 1
    folders.case("a", reference, np.roll(reference, 2, axis=0), spacing=(2.0, 1.0))
    (case,) = run(folders).cases
    assert (case.shape, case.spacing) == ((8, 8), (2.0, 1.0))
    values = case.classes["heart"].values
    assert values["HD95"] == pytest.approx(4.0)
    assert values["ASD"] == pytest.approx((4.0 + 2.0) / 2)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_truncated_label_maps_are_refused_though_their_reader_fills_them_up(folders, cube, ending):
    dataset_json = folders.dataset_json(HEART, file_ending=ending)
    paths = [folder / f"cut{ending}" for folder in (folders.reference, folders.prediction)]
    for path in paths:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(cube), str(path))
    for path in paths:
        complete = path.read_bytes()
        path.write_bytes(complete[:-20])
        with pytest.raises(UserError, match=f"cut{ending}' is not usable: is truncated"):
            run(folders, dataset_json=dataset_json)
        path.write_bytes(complete)
    assert run(folders, dataset_json=dataset_json).cases[0].classes["heart"].values["Dice"] == 1


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_natural_images_have_spacing_one(folders, ending):
    folders.dataset_json(HEART, file_ending=ending)
    reference = np.zeros((9, 9), np.uint8)
    reference[4, 4] = 1
    for folder, labels in (
        (folders.reference, reference),
        (folders.prediction, np.roll(reference, 3, axis=1)),
    ):
        io.imsave(folder / f"a{ending}", labels, check_contrast=False)
    evaluation = run(folders)
    assert evaluation.cases[0].spacing == (1.0, 1.0)
    assert evaluation.cases[0].classes["heart"].values["HD95"] == pytest.approx(3.0)
    assert report_dict(evaluation)["distance_unit"] == "pixel"


def test_tiff_volumes_take_their_spacing_from_the_file_beside(folders, cube):
    folders.dataset_json(HEART, file_ending=".tif")
    for folder, labels in ((folders.reference, cube), (folders.prediction, np.roll(cube, 1, 0))):
        Tiff3DIO().write_seg(labels, str(folder / "a.tif"), {"spacing": [4.0, 1.0, 1.0]})
    (case,) = run(folders).cases
    assert case.spacing == (4.0, 1.0, 1.0)
    assert case.classes["heart"].values["HD95"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("removed", "spacing", "warning"),
    [
        (("reference",), 4.0, "that of the prediction was taken: a"),
        (("prediction",), 4.0, "that of the reference was taken: a"),
        (("reference", "prediction"), 1.0, "1 was taken: a"),
    ],
)
def test_tiff_volumes_without_the_file_beside(folders, cube, removed, spacing, warning):
    """nnU-Net's gt_segmentations have none, its predictions have."""
    folders.dataset_json(HEART, file_ending=".tif")
    for folder in (folders.reference, folders.prediction):
        Tiff3DIO().write_seg(cube, str(folder / "a.tif"), {"spacing": [4.0, 1.0, 1.0]})
    for role in removed:
        (getattr(folders, role) / "a.json").unlink()
    evaluation = run(folders)
    assert evaluation.cases[0].spacing == (spacing, 1.0, 1.0)
    (told,) = evaluation.warnings
    assert told.startswith("no JSON file with the spacing beside")
    assert told.endswith(warning)


def test_suspicious_input_is_told(folders, cube):
    folders.dataset_json(HEART)
    folders.case("a", cube, cube * 7)
    folders.write(folders.prediction, "extra", cube)
    folders.write(folders.reference, "b", cube)
    folders.write(folders.prediction, "b", cube, origin=(5.0, 0.0, 0.0))
    warnings = "\n".join(run(folders).warnings)
    assert "no reference: extra" in warnings
    assert (
        "no class of the dataset.json count as background in the predictions of: a (7)" in warnings
    )
    assert "compared by index: b" in warnings


def test_every_missing_prediction_is_listed_or_left_out_on_request(folders, cube):
    folders.dataset_json(HEART)
    folders.case("here", cube, cube)
    for name in ("gone1", "gone2"):
        folders.write(folders.reference, name, cube)
    with pytest.raises(UserError, match=r"(?s)2 of 3 .*gone1.*gone2.*--chill"):
        run(folders)
    evaluation = run(folders, allow_missing=True)
    assert [case.name for case in evaluation.cases] == ["here"]
    assert report_dict(evaluation)["missing_predictions"] == ["gone1", "gone2"]
    assert "gone1, gone2" in format_report(evaluation)


def test_every_unusable_case_is_listed(folders, cube):
    folders.dataset_json(HEART)
    folders.case("fine", cube, cube)
    folders.case("broken", cube, cube)
    (folders.prediction / "broken.nii.gz").write_bytes(b"not an image")
    folders.write(folders.reference, "size", cube)
    folders.write(folders.prediction, "size", cube[:4])
    folders.write(folders.reference, "spacing", cube)
    folders.write(folders.prediction, "spacing", cube, spacing=(1.0, 1.0, 1.0))
    folders.write(folders.reference, "scores", cube * np.float32(0.5))
    folders.write(folders.prediction, "scores", cube)
    with pytest.raises(UserError) as error:
        run(folders)
    message = str(error.value)
    assert "4 of 5 cases" in message
    assert "broken: prediction" in message
    assert "size: reference has size (8, 8, 8), prediction (4, 8, 8)" in message
    assert (
        "spacing: reference has spacing (3.0, 1.0, 0.5) mm, prediction (1.0, 1.0, 1.0)" in message
    )
    assert "scores: reference" in message
    assert "fine" not in message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "heart": "1"}, "heart: '1'"),
        ({"background": 0, "heart": -1}, "heart: -1"),
        ({"background": 0}, "no class"),
        (["heart"], "has no 'labels'"),
    ],
)
def test_unusable_dataset_json_is_refused(folders, cube, labels, message):
    folders.case("a", cube, cube)
    folders.dataset_json(labels)
    with pytest.raises(UserError, match=message):
        run(folders)


def test_folders_without_label_files_are_refused(folders, cube):
    with pytest.raises(UserError, match="--dataset-json"):
        run(folders)
    folders.dataset_json(HEART, file_ending=".nrrd")
    folders.case("a", cube, cube)
    with pytest.raises(UserError, match=r"\.nrrd"):
        run(folders)
    with pytest.raises(UserError, match=r"the reference folder '.*typo' does not exist\. Check"):
        evaluate_folders(folders.reference / "typo", folders.prediction)
    with pytest.raises(UserError, match="is given as references and as predictions"):
        evaluate_folders(folders.reference, folders.prediction.parent / "out/../labelsTs")


def test_statistic_of_nothing_and_of_one_value():
    assert statistic([math.nan]).count == 0
    assert math.isnan(statistic([math.nan]).mean)
    assert statistic([2.0, math.nan]).mean == 2.0
    assert math.isnan(statistic([2.0]).std)


def test_nifti_that_itk_refuses_is_read_as_nnunet_reads_it(folders, cube):
    """Axes that are not orthogonal: nnU-Net falls back to its reader for nibabel."""
    folders.dataset_json(HEART)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.3
    for folder in (folders.reference, folders.prediction):
        nibabel.save(nibabel.Nifti1Image(cube, affine), folder / "a.nii.gz")
    evaluation = evaluate_folders(folders.reference, folders.prediction)
    assert evaluation.inputs.reader is NibabelIO
    assert evaluation.cases[0].classes["heart"].values["Dice"] == 1


def test_a_dataset_json_that_is_not_used_may_be_of_another_kind(folders, cube):
    folders.dataset_json(HEART)
    folders.dataset_json({"0": "background", "1": "heart"}, folder=folders.reference.parent)
    folders.case("a", cube, cube)
    evaluation = evaluate_folders(folders.reference, folders.prediction)
    assert any("is of no use" in warning for warning in evaluation.warnings)


def test_the_dataset_json_beside_a_linked_folder_is_found(folders, cube, tmp_path):
    folders.case("a", cube, cube)
    raw = tmp_path / "Dataset501_X"
    raw.mkdir()
    folders.dataset_json(HEART, folder=raw)
    (raw / "labelsTr").symlink_to(folders.reference, target_is_directory=True)
    evaluation = evaluate_folders(raw / "labelsTr", folders.prediction)
    assert [c.name for c in evaluation.classes] == ["heart"]
    shutil.move(raw / "dataset.json", folders.reference.parent / "dataset.json")
    evaluation = evaluate_folders(raw / "labelsTr", folders.prediction)
    assert [c.name for c in evaluation.classes] == ["heart"], "beside the link's target"
