"""Which unlabeled cases a training gets, and when it gets none."""

import json
import shutil

import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.fold_cases import find_unlabeled, unused_note
from tests.unit.preparation.shared import IDS, folder_of, plans_of, run, stamp_of

COMMAND = "nnUNetv2_semisup_preprocess -d 501 -c 3d_fullres"


def find(planned):
    return find_unlabeled(str(planned.preprocessed), plans_of(planned), "3d_fullres", 0).folders


def notes(planned):
    plans = plans_of(planned)
    found = find_unlabeled(str(planned.preprocessed), plans, "3d_fullres", 0)
    return unused_note(found.unused, plans, "3d_fullres")


def remove_images(planned, *identifiers):
    for identifier in identifiers:
        for path in planned.images.glob(f"{identifier}_*"):
            path.unlink()


def list_in_fold(planned, identifier):
    fold = {"train": ["lab_000"], "val": ["lab_001"], "unlabeled": [identifier]}
    (planned.preprocessed / "splits_final.json").write_text(json.dumps([fold]))


def test_training_tells_images_not_preprocessed_from_none_at_all(planned, monkeypatch):
    plans = plans_of(planned)

    def message():
        with pytest.raises(UserError) as caught:
            find_unlabeled(str(planned.preprocessed), plans, "3d_fullres", 0)
        return str(caught.value)

    assert message().endswith(
        "imagesUn holds 3 cases that are not preprocessed for 3d_fullres. Run: "
        "nnUNetv2_semisup_preprocess -d 501 -c 3d_fullres"
    )
    plans.plans["plans_name"] = "coarse"
    assert message().endswith("-d 501 -c 3d_fullres -plans_name coarse")
    shutil.rmtree(planned.images)
    assert "in one of two ways" in message()
    monkeypatch.delenv("nnUNet_raw")
    assert "in one of two ways" in message()


def test_images_not_preprocessed_are_missed_beside_a_fold_that_lists_others(planned):
    train = [{"train": ["lab_000"], "val": ["lab_001"], "unlabeled": ["lab_002"]}]
    (planned.preprocessed / "splits_final.json").write_text(json.dumps(train))
    arguments = (str(planned.preprocessed), plans_of(planned), "3d_fullres", 0)
    with pytest.raises(
        UserError, match=r"not preprocessed for .*, fold 0\. imagesUn holds 3 cases"
    ):
        find_unlabeled(*arguments)
    run()
    assert sorted(find_unlabeled(*arguments).folders) == ["lab_002", *IDS]
    shutil.rmtree(planned.images)
    shutil.rmtree(folder_of(planned))
    stamp_of(planned).unlink()
    assert sorted(find_unlabeled(*arguments).folders) == ["lab_002"]


def test_a_case_that_is_labeled_by_now_is_refused(planned):
    """Its image would be seen in training even where it is one of the fold's validation cases."""
    run()
    labeled = planned.preprocessed / "nnUNetPlans_3d_fullres"
    for path in list(labeled.glob("lab_002*")):
        shutil.copy(path, labeled / path.name.replace("lab_002", "unl_001"))
    with pytest.raises(UserError, match=r"as labeled and as unlabeled ones \(unl_001\)") as caught:
        find(planned)
    assert str(caught.value).endswith(f"run: {COMMAND}")
    remove_images(planned, "unl_001")
    run()
    assert sorted(find(planned)) == ["unl_000", "unl_002"]


def test_images_that_were_taken_away_are_not_used(planned):
    run()
    remove_images(planned, "unl_000", "unl_002")
    with pytest.raises(UserError, match=r"no longer in imagesUn \(unl_000, unl_002\)") as caught:
        find(planned)
    assert str(caught.value).endswith(COMMAND)
    run()
    assert sorted(find(planned)) == ["unl_001"]


def test_preprocessed_images_are_used_without_the_raw_data(planned, monkeypatch):
    run()
    shutil.rmtree(planned.raw.folder)
    assert sorted(find(planned)) == IDS
    assert notes(planned) is None
    monkeypatch.delenv("nnUNet_raw")
    assert sorted(find(planned)) == IDS


def test_new_images_are_told(planned):
    run()
    assert notes(planned) is None
    for number in range(12):
        for channel in range(2):
            old = planned.images / f"unl_000_{channel:04d}.nii.gz"
            shutil.copy(old, planned.images / f"new_{number:02d}_{channel:04d}.nii.gz")
    note = notes(planned)
    assert "not used (new_00, new_01, " in note
    assert "new_09 and 2 more). To use them: " in note
    assert note.endswith(COMMAND)


def test_emptied_imagesun_does_not_leave_its_cases_in_the_training(planned):
    """Neither is anything deleted: the images may be gone for want of space."""
    run()
    list_in_fold(planned, "lab_002")
    remove_images(planned, *IDS)
    before = planned.snapshot()
    with pytest.raises(UserError, match="has no image, but 3 unlabeled cases are") as caught:
        run()
    assert planned.snapshot() == before
    assert str(stamp_of(planned)) in str(caught.value)
    assert str(folder_of(planned)) in str(caught.value)
    shutil.rmtree(folder_of(planned))
    stamp_of(planned).unlink()
    assert run() == {}
    assert sorted(find(planned)) == ["lab_002"]
