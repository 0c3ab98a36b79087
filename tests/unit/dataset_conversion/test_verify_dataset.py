"""Every fault of a raw data set is named, with those of unlabeled and test images."""

import json
import shutil
from itertools import combinations

import numpy as np
import pytest
import tifffile
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
)
from PIL import Image

from nnunet_semisup.cli.verify import main
from nnunet_semisup.dataset_conversion.checking import raw_dataset as module
from nnunet_semisup.dataset_conversion.reading.pictures import picture_geometry
from nnunet_semisup.dataset_conversion.volume import Volume
from nnunet_semisup.dataset_conversion.writing.volume_files import write_picture
from tests.helpers import make_raw_dataset, nnunet_folders, nnunet_in_process
from tests.unit.dataset_conversion.trees import snapshot
from tests.unit.dataset_conversion.verify_faults import (
    CHANNELS,
    FAULTS,
    SHAPE,
    edit,
    label,
    make_raw,
    named_label,
    noise,
    not_finite,
    truncate,
)


@pytest.fixture(autouse=True)
def nnunet_is_content(request, monkeypatch):
    """nnU-Net's own check starts processes, which takes seconds; one test keeps it."""
    if "with_nnunet" not in request.node.name:
        monkeypatch.setattr(module, "_faults_by_nnunet", lambda *_: [])


@pytest.fixture
def roots(tmp_path, monkeypatch):
    return nnunet_folders(tmp_path, monkeypatch)


@pytest.fixture
def made(roots):
    return make_raw(roots.raw)


def verify(*extra):
    with pytest.raises(SystemExit) as end:
        main(["501", "-np", "1", *extra])
    return end.value.code


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_nothing_is_changed(roots, made, capsys, name):
    spoil, *messages = FAULTS[name]
    spoil(made)
    before = snapshot(roots.raw.parent)
    assert verify() == 2
    error = capsys.readouterr().err
    for message in messages:
        assert message in error
    assert snapshot(roots.raw.parent) == before


SPLITS = {
    "unknown case": (
        [{"train": ["lab_000", "other"], "val": ["lab_001"]}],
        "fold 0: 'train' names cases not in imagesTr: other",
    ),
    "in both": (
        [{"train": ["lab_000"], "val": ["lab_000"]}],
        "fold 0: in 'train' and in 'val': lab_000",
    ),
    "nothing to train": ([{"train": [], "val": ["lab_000"]}], "fold 0: 'train' is empty"),
    "nothing to validate": (
        [{"train": ["lab_000"], "val": []}],
        "fold 0: 'val' is empty; nnU-Net validates after every epoch",
    ),
    "no list of cases": ([{"train": "lab_000", "val": ["lab_001"]}], "lists of case ids (strings)"),
    "unlabeled key": (
        [{"train": ["lab_000"], "val": [], "unlabeled": ["who"]}],
        "case who: unknown, no such case",
    ),
    "no list": ({"train": []}, "must be a list with one object per fold"),
}


@pytest.mark.parametrize("place", ["raw", "preprocessed"])
@pytest.mark.parametrize("name", SPLITS)
def test_fault_of_the_splits_is_named(roots, made, capsys, name, place):
    content, message = SPLITS[name]
    folder = getattr(roots, place) / made.name
    folder.mkdir(exist_ok=True)
    (folder / "splits_final.json").write_text(json.dumps(content))
    assert verify() == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(folder / "splits_final.json") in error


def test_all_faults_come_at_once(made, capsys):
    truncate(made / "imagesUn" / "unl_000_0000.nii.gz")
    not_finite(made / "imagesTs" / "tst_000_0000.nii.gz")
    label(made / "labelsTr" / "lab_002.nii.gz", [])
    assert verify() == 2
    captured = capsys.readouterr()
    assert " has 3 faults." in captured.err
    for case in ("unl_000", "tst_000", "lab_002"):
        assert f"- case {case}: " in captured.err
    assert captured.out.splitlines()[-1] == (
        "Dataset501_Blobs: 3 labeled, 2 unlabeled, 1 test cases checked, 3 faults, 1 warning"
    )


def test_names_in_labels_are_compared_with_those_of_the_data_set(made, capsys):
    """In upper case it is the same name; another one may be the same in another language."""
    named_label(made / "labelsTr" / "lab_001.nii.gz", {0: "???", 1: "BLOB", 2: "unused"})
    named_label(made / "labelsTr" / "lab_002.nii.gz", {1: "Klecks"})
    assert verify() == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "names" in line]
    assert told == [
        "warning: 1 label files have names that no label of the data set has: lab_002 (Klecks). "
        "Check that they mean the same"
    ]


def test_good_data_set_passes_with_nnunet(made, capsys):
    split = [{"train": ["lab_000", "lab_001"], "val": ["lab_002"]}]
    (made / "splits_final.json").write_text(json.dumps(split))
    assert verify() == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == (
        "Dataset501_Blobs: 2 labeled, 1 validation, 2 unlabeled, 1 test cases checked, 0 faults, "
        "0 warnings"
    )
    assert any("verify_dataset_integrity Done" in line for line in out)


def test_what_nnunet_finds_is_a_fault(made, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(
        "nnunetv2.experiment_planning.verify_dataset_integrity.verify_dataset_integrity",
        lambda *_: (_ for _ in ()).throw(AssertionError("something else")),
    )
    assert module._faults_by_nnunet(made, 1) == [
        "nnU-Net's verify_dataset_integrity: something else"
    ]


def test_junk_is_a_warning(made, capsys):
    for folder, name in (("imagesUn", "._unl_000_0000.nii.gz"), ("labelsTr", ".DS_Store")):
        (made / folder / name).write_bytes(b"junk")
    assert verify() == 0
    out = capsys.readouterr().out
    assert "warning: ignored in imagesUn: ._unl_000_0000.nii.gz" in out
    assert "warning: ignored in labelsTr: .DS_Store" in out


def test_announced_number_of_unlabeled_cases_is_compared(made, capsys):
    edit(made / "dataset.json", lambda c: c.update(semisup={"num_unlabeled": 7}))
    assert verify() == 0
    assert "announces 7 unlabeled cases, imagesUn has 2" in capsys.readouterr().out


def test_declared_label_that_no_mask_has_is_a_warning(made, capsys):
    edit(made / "dataset.json", lambda c: c["labels"].update(tumor=2, ignore=3))
    assert verify() == 0
    out = capsys.readouterr().out
    text = "no training label contains tumor (value 2); check the labels in dataset.json"
    assert f"warning: {text}" in out
    assert out.count("no training label contains") == 1
    label(made / "labelsTr" / "lab_001.nii.gz", [1, 2])
    assert verify() == 0
    assert "no training label contains" not in capsys.readouterr().out


def test_no_unlabeled_case_is_a_warning(made, capsys):
    shutil.rmtree(made / "imagesUn")
    assert verify() == 0
    out = capsys.readouterr().out
    assert f"warning: there is no unlabeled case: put images into {made / 'imagesUn'}" in out
    assert "0 faults, 2 warnings" in out
    fold = {"train": ["lab_000"], "val": ["lab_001"], "unlabeled": ["lab_002"]}
    (made / "splits_final.json").write_text(json.dumps([fold]))
    assert verify() == 0
    assert "no unlabeled case" not in capsys.readouterr().out


@pytest.mark.parametrize("number", [10, 11])
def test_images_that_look_alike_get_a_line_each_unless_many(made, capsys, monkeypatch, number):
    pairs = [(i, j, 0.92 + i / 100) for i, j in combinations(range(6), 2)][:number]
    place = "nnunet_semisup.dataset_conversion.checking.all_cases.near_duplicates"
    monkeypatch.setattr(place, lambda *_: pairs)
    assert verify() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "same scan" in line]
    if number == 10:
        assert len(lines) == 10
        assert lines[0] == (
            "warning: lab_000 (labeled) and lab_001 (labeled) look like the same scan "
            "(correlation 0.92 after alignment); compare them"
        )
    else:
        (line,) = lines
        assert line.startswith(
            "warning: 11 pairs of cases look like the same scan (correlation 0.92 to 0.94 after "
            "alignment); compare them: lab_002 and unl_000 (0.94), "
        )
        assert line.count(" and ") == 11


def test_one_label_for_two_images_is_a_warning(made, capsys):
    shutil.copy(made / "labelsTr" / "lab_000.nii.gz", made / "labelsTs" / "tst_000.nii.gz")
    assert verify() == 0
    assert (
        "warning: lab_000 (labeled) and tst_000 (test) hold the same label, voxel for voxel; "
        "compare their images"
    ) in capsys.readouterr().out


def test_test_images_need_no_labels(made):
    shutil.rmtree(made / "labelsTs")
    assert verify() == 0


def test_empty_label_on_request_or_as_converted(made):
    label(made / "labelsTr" / "lab_002.nii.gz", [])
    assert verify() == 2
    assert verify("--allow-empty") == 0
    report = {"settings": {"allow_empty": True}}
    (made / "conversion_report.json").write_text(json.dumps(report))
    assert verify() == 0


def test_a_plan_that_only_trains_without_deep_supervision_is_a_warning(roots, made, capsys):
    """nnU-Net plans two stages for scans as small as these; other files are passed by."""
    with nnunet_in_process():
        extract_fingerprints([501], num_processes=1, verbose=False, show_progress_bar=False)
        plan_experiments([501])
    for content in ("{}", "[]", '{"configurations": {"2d": 3}}'):
        (roots.preprocessed / made.name / "mine.json").write_text(content)
        capsys.readouterr()
        assert verify() == 0
        out = capsys.readouterr().out
        assert "warning: nnUNetPlans, 3d_fullres: the network has 2 stage(s) and one output" in out
        assert "enable_deep_supervision=False" in out


def test_ignore_label_and_regions_are_known(made, capsys):
    edit(
        made / "dataset.json",
        lambda c: c.update(
            labels={"background": 0, "all": [1, 2], "core": 2, "ignore": 3},
            regions_class_order=[1, 2],
        ),
    )
    label(made / "labelsTr" / "lab_001.nii.gz", [1, 2, 3])
    assert verify() == 0
    label(made / "labelsTr" / "lab_001.nii.gz", [1, 4])
    assert verify() == 2
    assert "only 0, 1, 2, 3 are expected" in capsys.readouterr().err


def test_entries_of_dataset_json_are_followed(made, tmp_path, capsys):
    store = tmp_path / "store"
    (made / "imagesTr").rename(store)
    entries = {
        f"lab_00{i}": {
            "images": [str(store / f"lab_00{i}_000{c}.nii.gz") for c in (0, 1)],
            "label": f"labelsTr/lab_00{i}.nii.gz",
        }
        for i in range(3)
    }
    edit(made / "dataset.json", lambda c: c.update(dataset=entries))
    assert verify() == 0
    truncate(store / CHANNELS[0])
    (store / "lab_001_0000.nii.gz").unlink()
    assert verify() == 2
    error = capsys.readouterr().err
    assert "case lab_000: " in error
    assert "lab_001_0000.nii.gz in dataset.json is not there" in error


def colour(seed, shape=(20, 24, 3)):
    return (noise(seed, shape) * 255).astype(np.uint8)


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(Volume(array, picture_geometry(array)), path)


@pytest.fixture(params=[".png", ".tif", ".bmp"])
def pictures(request, roots):
    """Colour pictures of three channels in one file."""
    folder = roots.raw / "Dataset501_Photos"
    mask = np.zeros((20, 24), np.uint8)
    for seed, case in enumerate(("lab_0", "lab_1")):
        mask[3 : 9 + seed] = 1
        picture(folder / "imagesTr" / f"{case}_0000{request.param}", colour(seed))
        picture(folder / "labelsTr" / f"{case}{request.param}", mask)
    picture(folder / "imagesUn" / f"unl_0_0000{request.param}", colour(5))
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "vessel": 1},
        "numTraining": 2,
        "file_ending": request.param,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder, request.param


def test_colour_pictures(pictures, capsys):
    folder, ending = pictures
    assert verify() == 0
    picture(folder / "imagesUn" / f"unl_0_0000{ending}", colour(5)[..., 0])
    assert verify() == 2
    assert "has 1 values a voxel; 3 expected" in capsys.readouterr().err


def test_damaged_picture(pictures, capsys):
    folder, ending = pictures
    truncate(folder / "imagesUn" / f"unl_0_0000{ending}")
    assert verify() == 2
    assert "damaged or not a picture" in capsys.readouterr().err


@pytest.mark.parametrize("pictures", [".png"], indirect=True)
def test_palette_in_a_label_is_refused(pictures, capsys):
    folder, _ = pictures
    mask = Image.fromarray(np.eye(20, 24, dtype=np.uint8), "P")
    mask.putpalette([0, 0, 0, 255, 0, 0])
    mask.save(folder / "labelsTr" / "lab_0.png")
    assert verify() == 2
    assert "lab_0.png: has 3 values a voxel; 1 expected" in capsys.readouterr().err


def test_tif_stacks_and_their_voxel_size(roots, capsys):
    folder = make_raw_dataset(roots.raw, 501, "Stacks", SHAPE, 0, 0).folder
    edit(folder / "dataset.json", lambda c: c.update(file_ending=".tif", numTraining=2))
    mask = np.zeros(SHAPE, np.uint8)
    for name in ("imagesTr/a", "imagesTr/b", "imagesUn/c", "labelsTr/a", "labelsTr/b"):
        path = folder / f"{name}{'_0000' if 'images' in name else ''}.tif"
        path.parent.mkdir(exist_ok=True)
        mask[4, 5:7] = 1
        mask[ord(name[-1]) % 8, 2] = 1
        data = noise(ord(name[-1])) if "images" in name else mask
        tifffile.imwrite(path, data, photometric="minisblack")
        (folder / f"{name}.json").write_text('{"spacing": [2.0, 1.0, 1.0]}')
    assert verify() == 0
    (folder / "imagesUn" / "c.json").unlink()
    assert verify() == 2
    assert "a tif stack holds no voxel size; write c.json beside it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["501", "-np", "0"], "-np 0 is not possible"),
        (["777"], "777"),
    ],
)
def test_arguments_that_cannot_be_met(roots, made, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_too_few_cases_for_nnunets_folds_are_told(roots, capsys):
    """Training would refuse fold 0 after everything was preprocessed."""
    raw = make_raw_dataset(roots.raw, 501, "Few", (20, 20, 20), 4, 1).folder
    warning = "4 labeled cases and no splits_final.json: nnU-Net splits 5 or more"
    assert verify() == 0
    assert warning in capsys.readouterr().out
    split = [{"train": ["lab_000"], "val": ["lab_001"]}]
    (raw / "splits_final.json").write_text(json.dumps(split))
    assert verify() == 0
    assert warning not in capsys.readouterr().out
