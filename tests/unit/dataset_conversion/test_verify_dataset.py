"""Every fault of a raw data set is named, with those of unlabeled and test images."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from nnunet_semisup.cli.verify import main
from nnunet_semisup.dataset_conversion import verify_dataset as module
from nnunet_semisup.dataset_conversion.pictures import picture_geometry, write_picture
from nnunet_semisup.dataset_conversion.volume import Volume
from tests.helpers import make_raw_dataset, nnunet_folders, write_image
from tests.unit.dataset_conversion.trees import snapshot

SHAPE = (8, 16, 14)
CHANNELS = ("lab_000_0000.nii.gz", "lab_000_0001.nii.gz")


def noise(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def nnunet_is_content(request, monkeypatch):
    """nnU-Net's own check starts processes, which takes seconds; one test keeps it."""
    if "with_nnunet" not in request.node.name:
        monkeypatch.setattr(module, "_faults_by_nnunet", lambda *_: [])


@pytest.fixture
def roots(tmp_path, monkeypatch):
    return nnunet_folders(tmp_path, monkeypatch)


def make_raw(root):
    """Two channels; three labeled, two unlabeled and one test case."""
    folder = make_raw_dataset(root, 501, "Blobs", SHAPE, 3, 2, 2, num_test=1).folder
    for number, path in enumerate(sorted(folder.glob("images*/*"))):
        write_image(path, noise(number))
    return folder


@pytest.fixture
def made(roots):
    return make_raw(roots.raw)


def verify(*extra):
    with pytest.raises(SystemExit) as end:
        main(["501", "-np", "1", *extra])
    return end.value.code


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def volume(path, array=None, spacing=(1.0, 1.0, 1.0), direction=None):
    image = SimpleITK.GetImageFromArray(noise() if array is None else array)
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def not_finite(path):
    array = noise(9)
    array[1, 2, 3] = np.inf
    volume(path, array)


def label(path, values, shape=SHAPE):
    array = np.zeros(shape, np.uint8)
    for number, value in enumerate(values):
        array[2, 3, number] = value
    volume(path, array)


def drop_labels(made):
    edit(made / "dataset.json", lambda c: c["labels"].update(extra=5))


FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
FAULTS = {
    "truncated unlabeled": (
        lambda d: truncate(d / "imagesUn" / "unl_000_0000.nii.gz"),
        "case unl_000: ",
        "damaged or not a NIfTI file",
    ),
    "empty file": (
        lambda d: (d / "imagesTs" / "tst_000_0001.nii.gz").write_bytes(b""),
        "case tst_000: ",
        "the file is empty (0 bytes)",
    ),
    "infinite": (
        lambda d: not_finite(d / "imagesUn" / "unl_001_0000.nii.gz"),
        "case unl_001: ",
        "1 voxels are NaN or Inf",
    ),
    "constant": (
        lambda d: volume(d / "imagesTr" / CHANNELS[0], np.zeros(SHAPE, np.float32)),
        "every voxel has the value 0",
    ),
    "channel missing": (
        lambda d: (d / "imagesUn" / "unl_000_0001.nii.gz").unlink(),
        "imagesUn: case unl_000: channel 1 is missing (expected unl_000_0001.nii.gz)",
    ),
    "channel too many": (
        lambda d: volume(d / "imagesTs" / "tst_000_0002.nii.gz"),
        "imagesTs: case tst_000: unexpected channel 2",
    ),
    "channels differ": (
        lambda d: volume(d / "imagesUn" / "unl_000_0001.nii.gz", spacing=(1, 1, 2)),
        "unl_000_0001.nii.gz: differs from the first channel in spacing",
    ),
    "label size": (
        lambda d: label(d / "labelsTr" / "lab_001.nii.gz", [1], (8, 16, 15)),
        "image and label differ in size (14, 16, 8) and (15, 16, 8)",
    ),
    "label direction": (
        lambda d: volume(
            d / "labelsTs" / "tst_000.nii.gz", np.ones(SHAPE, np.uint8), (1, 1, 1), FLIPPED
        ),
        "image and label differ in direction",
    ),
    "label value": (
        lambda d: label(d / "labelsTr" / "lab_001.nii.gz", [1, 2]),
        "the label has the values 0, 1, 2; only 0, 1 are expected",
    ),
    "label value in a test case": (
        lambda d: label(d / "labelsTs" / "tst_000.nii.gz", [7]),
        "case tst_000: ",
        "the label has the values 0, 7; only 0, 1 are expected",
    ),
    "label fraction": (
        lambda d: volume(d / "labelsTr" / "lab_001.nii.gz", noise()),
        "values that are not whole numbers",
    ),
    "label empty": (
        lambda d: label(d / "labelsTr" / "lab_002.nii.gz", []),
        "the label has no foreground; --allow-empty accepts that",
    ),
    "label missing": (
        lambda d: (d / "labelsTr" / "lab_002.nii.gz").unlink(),
        "case lab_002: is labeled but has no label file",
    ),
    "test label missing": (
        lambda d: (d / "labelsTs" / "tst_000.nii.gz").rename(d / "labelsTs" / "tst_1.nii.gz"),
        "case tst_000: is test but has no label file",
        "case tst_1: ",
        "has no image in imagesTs",
    ),
    "image missing": (
        lambda d: [(d / "imagesTr" / name).unlink() for name in CHANNELS],
        "has no image in imagesTr",
        "numTraining is 3, imagesTr has 2 cases",
    ),
    "hidden label without image": (
        lambda d: shutil.copytree(d / "labelsTr", d / "labelsUn"),
        "lab_000.nii.gz has no image in imagesUn",
    ),
    "id in two folders": (
        lambda d: shutil.copytree(d / "imagesTr", d / "imagesUn", dirs_exist_ok=True),
        "case lab_000: the id is also used in imagesTr; ids must differ",
        "hold the same image, voxel for voxel; remove one of them",
    ),
    "id in training and test": (
        lambda d: shutil.copytree(d / "imagesTr", d / "imagesTs", dirs_exist_ok=True),
        "case lab_000: the id is used in imagesTr and in imagesTs",
    ),
    "copy under another name": (
        lambda d: shutil.copy(d / "imagesTr" / CHANNELS[0], d / "imagesUn/unl_000_0000.nii.gz"),
        "lab_000 (labeled) and unl_000 (unlabeled) hold the same image, voxel for voxel",
    ),
    "no channel number": (
        lambda d: volume(d / "imagesUn" / "scan.nii.gz"),
        "imagesUn: scan.nii.gz: has no channel number",
    ),
    "wrong ending": (
        lambda d: volume(d / "imagesTr" / "x_0000.nrrd"),
        "imagesTr: x_0000.nrrd: wrong file ending",
    ),
    "wrong ending of a label": (
        lambda d: volume(d / "labelsTr" / "x.nrrd"),
        "labelsTr: x.nrrd: wrong file ending; the data set's is .nii.gz",
    ),
    "two dimensions": (
        lambda d: volume(d / "imagesUn" / "unl_000_0000.nii.gz", noise()[0], (1, 1)),
        "has 2 dimensions; 3 are expected",
    ),
    "unit": (
        lambda d: [
            volume(d / "imagesUn" / f"unl_000_000{i}.nii.gz", noise(i + 50), (0.1,) * 3)
            for i in (0, 1)
        ],
        "case unl_000: has the spacing (0.1, 0.1, 0.1), about 10 times smaller on all axes",
    ),
    "number of cases": (
        lambda d: edit(d / "dataset.json", lambda c: c.update(numTraining=5)),
        "numTraining is 5, imagesTr has 3 cases",
    ),
    "gap in the labels": (drop_labels, "the label values are [0, 1, 5]; they must be 0, 1, 2 ..."),
    "no background": (
        lambda d: edit(d / "dataset.json", lambda c: c["labels"].pop("background")),
        "the labels are not usable: Background label not declared",
    ),
    "ignore label in between": (
        lambda d: edit(d / "dataset.json", lambda c: c["labels"].update(ignore=1, other=2)),
        "If you use the ignore label it must have the highest label value",
    ),
    "regions without order": (
        lambda d: edit(d / "dataset.json", lambda c: c["labels"].update(all=[1, 2])),
        "define regions_class_order",
    ),
    "ending without reader": (
        lambda d: edit(d / "dataset.json", lambda c: c.update(file_ending=".jpg")),
        "nnU-Net reads no files that end in '.jpg'",
    ),
    "key missing": (
        lambda d: edit(d / "dataset.json", lambda c: c.pop("numTraining")),
        "the key 'numTraining' is missing",
    ),
    "no json": (
        lambda d: (d / "dataset.json").write_text("{"),
        "cannot be read",
    ),
    "no training image": (
        lambda d: shutil.rmtree(d / "imagesTr"),
        "imagesTr has no <case>_0000.nii.gz",
    ),
}


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
        "fold 0: 'train' names cases not in imagesTr: ['other']",
    ),
    "in both": (
        [{"train": ["lab_000"], "val": ["lab_000"]}],
        "fold 0: in 'train' and in 'val': ['lab_000']",
    ),
    "nothing to train": ([{"train": [], "val": ["lab_000"]}], "fold 0: 'train' is empty"),
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
    assert "is not as it should be: 3 faults." in captured.err
    for case in ("unl_000", "tst_000", "lab_002"):
        assert f"- case {case}: " in captured.err
    assert captured.out.splitlines()[-1] == (
        "Dataset501_Blobs: 3 labeled, 2 unlabeled, 1 test cases checked, 3 faults, 0 warnings"
    )


def test_good_data_set_passes_with_nnunet(made, capsys):
    assert verify() == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == (
        "Dataset501_Blobs: 3 labeled, 2 unlabeled, 1 test cases checked, 0 faults, 0 warnings"
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
