import json
import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation import preprocessing
from nnunet_semisup.preparation.preprocessing import (
    check_before_preprocessing,
    preprocess_unlabeled,
)
from nnunet_semisup.preparation.raw import find_dataset
from nnunet_semisup.preparation.stamp import plans_hash
from nnunet_semisup.preparation.unlabeled_images import check_dataset
from tests.helpers import make_raw_dataset, nnunet_folders, plan_and_preprocess_labeled
from tests.unit.preparation.shared import (
    IDS,
    change_plans,
    check,
    folder_of,
    other_spacing,
    plans_of,
    run,
    stamp_of,
)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_same_image_labeled_or_unlabeled_gives_the_same_array(planned, configuration):
    for channel in range(2):
        shutil.copy(
            planned.raw.folder / "imagesTr" / f"lab_001_{channel:04d}.nii.gz",
            planned.images / f"unl_001_{channel:04d}.nii.gz",
        )
    assert run([configuration]) == {configuration: IDS}
    labeled = nnUNetDatasetBlosc2(str(planned.preprocessed / f"nnUNetPlans_{configuration}"))
    unlabeled = nnUNetDatasetBlosc2(str(folder_of(planned, configuration)))
    expected, _, _, expected_properties = labeled.load_case("lab_001")
    array, _, _, properties = unlabeled.load_case("unl_001")
    np.testing.assert_array_equal(array[:], expected[:])
    assert array.dtype == expected.dtype
    assert properties["class_locations"] == {}
    assert properties["shape_before_cropping"] == expected_properties["shape_before_cropping"]
    assert properties["spacing"] == expected_properties["spacing"]


def test_stock_data_set_class_is_inferred_and_opens_every_case(planned):
    run()
    folder = str(folder_of(planned))
    dataset = infer_dataset_class(folder)(folder)
    assert sorted(dataset.identifiers) == IDS
    for identifier in IDS:
        data, seg, _, properties = dataset.load_case(identifier)
        assert data.shape == (2, 16, 20, 18)
        assert seg.shape == (1, 16, 20, 18)
        assert not np.any(seg[:] > 0)
        assert properties["class_locations"] == {}


def test_default_configurations_skip_what_the_plan_lacks(planned, capsys):
    result = preprocess_unlabeled(501, num_processes=[0, 0, 0], show_progress=False)
    assert result == {"2d": IDS, "3d_fullres": IDS}
    assert "3d_lowres is not in nnUNetPlans.json; skipped" in capsys.readouterr().out
    assert check(planned, "2d") == check(planned) == IDS


@pytest.mark.parametrize("given", [["3d_fulres"], ["3d_fullres", "3d_fulres"], ["3d_lowres"]])
def test_unknown_configurations_are_refused(planned, given):
    before = planned.snapshot()
    with pytest.raises(UserError) as caught:
        run(given)
    message = "nnUNetPlans.json has no configuration {}. Possible configurations: 2d, 3d_fullres"
    assert message.format(given[-1]) in str(caught.value)
    assert planned.snapshot() == before


def test_nothing_but_the_folder_and_its_stamp_is_added(planned):
    before = {p.name for p in planned.preprocessed.iterdir()}
    raw_before = sorted(planned.raw.folder.rglob("*"))
    run()
    added = {p.name for p in planned.preprocessed.iterdir()} - before
    assert added == {folder_of(planned).name, stamp_of(planned).name}
    assert sorted(planned.raw.folder.rglob("*")) == raw_before


def test_the_checks_alone_write_nothing(planned):
    before = planned.snapshot()
    work = check_before_preprocessing(501, ["3d_fullres"], num_processes=[0], show_progress=False)
    assert [case.identifier for case in work.cases] == IDS
    assert planned.snapshot() == before


def test_changed_plan_is_refused_in_training_and_made_anew(planned, preprocessed_ids, capsys):
    run(["2d", "3d_fullres"])
    preprocessed_ids.clear()
    change_plans(planned, other_spacing)
    with pytest.raises(UserError) as caught:
        check(planned)
    for part in ("nnUNetPlans", "3d_fullres", "nnUNetv2_semisup_preprocess -d 501"):
        assert part in str(caught.value)
    assert check(planned, "2d") == IDS
    (folder_of(planned) / "left_over.pkl").write_bytes(b"")
    run(["2d", "3d_fullres"])
    assert preprocessed_ids == IDS
    assert "the plan changed" in capsys.readouterr().out
    assert check(planned) == IDS
    array = nnUNetDatasetBlosc2(str(folder_of(planned))).load_case("unl_000")[0]
    assert array.shape == (2, 16, 10, 9)
    assert len(list(folder_of(planned).iterdir())) == 9


def test_changed_plan_with_bad_images_keeps_the_old_folder(planned):
    run()
    change_plans(planned, other_spacing)
    (planned.images / "unl_001_0001.nii.gz").unlink()
    before = planned.snapshot()
    with pytest.raises(UserError, match="unl_001: channel 1 is missing"):
        run()
    assert planned.snapshot() == before


def test_hash_follows_what_preprocessing_uses(planned):
    plans = plans_of(planned).plans
    reference = plans_hash(PlansManager(plans), "3d_fullres")

    def changed(change):
        other = deepcopy(plans)
        change(other, other["configurations"]["3d_fullres"])
        return plans_hash(PlansManager(other), "3d_fullres")

    for key, value in (("batch_size", 7), ("patch_size", [8, 8, 8]), ("batch_dice", None)):
        assert changed(lambda _, c, k=key, v=value: c.update({k: v})) == reference
    different = [
        changed(lambda _, c: c.update(spacing=[1, 1, 1])),
        changed(lambda _, c: c.update(normalization_schemes=["NoNormalization"] * 2)),
        changed(lambda _, c: c.update(use_mask_for_norm=[True, True])),
        changed(lambda _, c: c["resampling_fn_data_kwargs"].update(order=1)),
        changed(lambda _, c: c.update(preprocessor_name="Other")),
        changed(lambda _, c: c.update(key_of_a_custom_preprocessor=1)),
        changed(lambda p, _: p.update(transpose_forward=[1, 0, 2])),
        changed(lambda p, _: p.update(image_reader_writer="NibabelIO")),
        changed(lambda p, _: p["foreground_intensity_properties_per_channel"]["0"].update(mean=-1)),
    ]
    assert len({reference, *different}) == 10


def test_inherited_configuration_shares_the_folder(planned, preprocessed_ids):
    run()
    change_plans(
        planned,
        lambda plans: plans["configurations"].update(
            larger={"inherits_from": "3d_fullres", "batch_size": 5}
        ),
    )
    assert check(planned, "larger") == IDS
    preprocessed_ids.clear()
    run(["larger"])
    assert preprocessed_ids == []


def add_cascade(plans):
    plans["configurations"]["3d_cascade_fullres"] = {
        "inherits_from": "3d_fullres",
        "previous_stage": "3d_lowres",
    }
    plans["configurations"]["second_stage"] = {"inherits_from": "3d_cascade_fullres"}


@pytest.mark.parametrize("name", ["3d_cascade_fullres", "second_stage"])
def test_cascade_is_refused_by_name(planned, name):
    change_plans(planned, add_cascade)
    before = planned.snapshot()
    with pytest.raises(UserError, match=f"^{name} cannot be used.*2d.*3d_fullres"):
        run(["3d_fullres", name])
    assert planned.snapshot() == before


def test_missing_plan_and_configurations_tell_what_there_is(planned):
    with pytest.raises(UserError, match=r"Other\.json does not exist.*nnUNetPlans"):
        run(plans_identifier="Other")
    with pytest.raises(UserError, match="Possible configurations: 2d, 3d_fullres"):
        run(["3d_lowres", "fancy"])
    with pytest.raises(UserError, match="2 numbers of processes for 3 configurations"):
        preprocess_unlabeled(501, num_processes=[1, 2])


@pytest.mark.parametrize(
    ("plans", "remedy"),
    [
        ("Other", "-d 501 -pl PLANNER (nnUNetPlannerResEncM makes nnUNetResEncUNetMPlans), or"),
        ("nnUNetResEncUNetLPlans", "-d 501 -pl nnUNetPlannerResEncL, or name other plans"),
    ],
)
def test_missing_plan_says_how_to_make_it_and_lists_plans_alone(planned, plans, remedy):
    run()
    with pytest.raises(UserError) as caught:
        run(plans_identifier=plans)
    assert "(plans of Dataset501_Blobs: nnUNetPlans)" in str(caught.value)
    assert f"nnUNetv2_semisup_plan_and_preprocess {remedy}" in str(caught.value)


def test_never_preprocessed_is_no_error(planned):
    assert check(planned) == []


def test_folder_of_unknown_origin_is_not_touched(planned):
    folder_of(planned).mkdir()
    (folder_of(planned) / "mine.pkl").write_bytes(b"")
    before = planned.snapshot()
    with pytest.raises(UserError, match="is not touched"):
        run()
    with pytest.raises(UserError, match="origin is unknown"):
        check(planned)
    assert planned.snapshot() == before


def test_stamp_without_its_folder_is_not_taken_for_no_unlabeled_cases(planned):
    run()
    shutil.rmtree(folder_of(planned))
    with pytest.raises(UserError, match="0 of 3 cases are there"):
        check(planned)
    run()
    assert check(planned) == IDS


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 99}'])
def test_foreign_stamp_is_refused(planned, content):
    stamp_of(planned).write_text(content)
    with pytest.raises(UserError, match="is not a record"):
        check(planned)
    with pytest.raises(UserError, match="is not a record"):
        run()


def test_key_of_the_splits_alone_needs_no_preprocessing(planned, capsys):
    shutil.rmtree(planned.images)
    splits = [{"train": ["lab_000"], "val": ["lab_001"], "unlabeled": ["lab_002"]}]
    (planned.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    before = planned.snapshot()
    assert run() == {}
    assert "has no images in imagesUn" in capsys.readouterr().out
    assert planned.snapshot() == before


def test_natural_images(tmp_path, monkeypatch):
    folders = nnunet_folders(tmp_path, monkeypatch)
    made = make_raw_dataset(folders.raw, 503, "Flat", (24, 28), 3, 2, file_ending=".png")
    plan_and_preprocess_labeled(503, [])
    result = preprocess_unlabeled(503, ["2d"], num_processes=[0], show_progress=False)
    assert result == {"2d": ["unl_000", "unl_001"]}
    folder = folders.preprocessed / made.name / "nnUNetPlans_2d_unlabeled"
    data, _, _, properties = nnUNetDatasetBlosc2(str(folder)).load_case("unl_001")
    assert data.shape == (1, 1, 24, 28)
    assert properties["class_locations"] == {}


def test_check_passed_on_counts_for_the_reader_that_it_was_made_with(planned, monkeypatch):
    """Another reader, which a planner may choose, may refuse what the first one took."""
    checked = check_dataset(find_dataset(501), show_progress=False)
    again = []

    def check(folders, *arguments):
        again.append(folders.name)
        return check_dataset(folders, *arguments)

    monkeypatch.setattr(preprocessing, "check_dataset", check)
    assert run(checked=checked) == {"3d_fullres": IDS}
    assert again == []
    assert run(checked=replace(checked, reader="NibabelIO")) == {"3d_fullres": IDS}
    assert again == [planned.raw.name]
