"""The commands on files that say one thing and are read as another: options, notes and messages."""

import json

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from nnunet_semisup.cli import evaluate as evaluate_command
from nnunet_semisup.dataset_conversion.checking import raw_dataset as verify_dataset
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import evaluate_folders, evaluate_inputs
from nnunet_semisup.evaluation.inputs import find_inputs
from nnunet_semisup.preparation.raw import DatasetFolders
from nnunet_semisup.preparation.unlabeled_images import check_dataset
from tests.formats.rows_nifti import affine, write
from tests.formats.rows_pictures import write_png, write_tif
from tests.formats.standard import read_nifti
from tests.helpers import nnunet_folders
from tests.unit.dataset_conversion.trees_generic import (
    WHAT,
    convert,
    made,
    make_folders,
    mask,
    scan,
)

CONTRADICTING = {"sform": affine(), "pixdim": (1, 1, 1)}
MICRON = {"sform": affine() * 1000, "pixdim": (2000, 2500, 3000), "unit": 3}
SHEAR = np.array([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]])


@pytest.fixture
def roots(tmp_path, monkeypatch):
    place = "nnunet_semisup.dataset_conversion.checking.all_cases.near_duplicates"
    monkeypatch.setattr(place, lambda *_: [])
    monkeypatch.setattr(verify_dataset, "_faults_by_nnunet", lambda *_: [])
    folders = nnunet_folders(tmp_path, monkeypatch)
    return {"raw": folders.raw}


@pytest.mark.parametrize("link", ["copy", "hardlink"])
def test_convert_takes_the_affine_if_told_so(roots, tmp_path, capsys, link):
    """nibabel's set_sform leaves pixdim, which SimpleITK 2.5.7 and nibabel's zooms believe.

    Files that need no repair are copied or linked all the same.
    """
    tree = make_folders(tmp_path / "data")
    for seed, case in ((0, "p1"), (3, "p4")):
        write(tree.image(case), scan(seed).astype(np.int16), **CONTRADICTING)
    write(tree.label("p1"), mask(0).astype(np.uint8), **CONTRADICTING)
    assert convert(tree.root, *WHAT) == 2
    error = capsys.readouterr().err
    assert error.count("the voxel size of its sform is (2, 2.5, 3) mm, that of its pixdim") == 3
    assert "--trust-affine" in error
    assert "Download" not in error
    assert convert(tree.root, *WHAT, "--trust-affine", "--link", link) == 0
    for name in ("imagesTr/p1_0000", "labelsTr/p1", "imagesUn/p4_0000"):
        found = read_nifti(made(roots) / f"{name}.nii.gz")
        np.testing.assert_allclose(found.spacing, (2, 2.5, 3))
    kept = made(roots) / "imagesUn" / "p5_0000.nii.gz"
    assert kept.read_bytes() == tree.image("p5").read_bytes()
    assert kept.samefile(tree.image("p5")) == (link == "hardlink")
    report = json.loads((made(roots) / "conversion_report.json").read_text())
    assert sum("is that of its sform" in text for text in report["warnings"]) == 3


def test_rotated_grey_photograph_is_not_blamed_on_channels(roots, tmp_path, capsys):
    folder = tmp_path / "data"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    exif = Image.Exif()
    exif[274] = 6
    for number in range(3):
        picture = Image.fromarray(scan(number, (40, 48)))
        options = {"exif": exif} if number == 0 else {}
        picture.save(folder / "images" / f"p{number}.jpg", **options)
    Image.fromarray(mask(0, 1, (40, 48))).save(folder / "labels" / "p1.png")
    assert convert(folder, *WHAT) == 2
    error = capsys.readouterr().err
    assert "1 fault, nothing" in error
    assert "p0.jpg: is stored rotated (EXIF orientation 6)" in error


def test_pictures_are_written_as_they_are_shown(roots, tmp_path):
    """Only what nnU-Net would read otherwise is written anew; the other pictures are copied."""
    folder = tmp_path / "data"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    pictures = [scan(number, (40, 48)) for number in range(3)]
    for number, picture in enumerate(pictures):
        kind = {"photometric": "miniswhite"} if number == 2 else {}
        stored = 255 - picture if number == 2 else picture
        write_tif(folder / "images" / f"p{number}.tif", stored, **kind)
    label = mask(0, 1, (40, 48)).astype(bool)
    write_tif(folder / "labels" / "p1.tif", ~label, photometric="miniswhite")
    assert convert(folder, *WHAT) == 0
    for number, name in ((0, "imagesUn"), (1, "imagesTr"), (2, "imagesUn")):
        written = made(roots) / name / f"p{number}_0000.tif"
        with Image.open(written) as picture:
            np.testing.assert_array_equal(np.asarray(picture), pictures[number])
        source = folder / "images" / f"p{number}.tif"
        assert (written.read_bytes() == source.read_bytes()) == (number != 2)
    with Image.open(made(roots) / "labelsTr" / "p1.tif") as picture:
        np.testing.assert_array_equal(np.asarray(picture), label)


def raw(folder, unlabeled, labeled=None, **content):
    """A raw data set of one labeled and one unlabeled case, with fields of their headers."""
    labeled = {"sform": affine()} if labeled is None else labeled
    for name in ("imagesTr", "labelsTr", "imagesUn"):
        (folder / name).mkdir(parents=True)
    write(folder / "imagesTr" / "a_0000.nii.gz", scan(0).astype(np.int16), **labeled)
    write(folder / "labelsTr" / "a.nii.gz", mask(0).astype(np.uint8), **labeled)
    write(folder / "imagesUn" / "b_0000.nii.gz", scan(1).astype(np.int16), **unlabeled)
    known = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}}
    known |= {"numTraining": 1, "file_ending": ".nii.gz", **content}
    (folder / "dataset.json").write_text(json.dumps(known))
    return DatasetFolders(folder.name, folder, folder.parent / "preprocessed")


def judged(folders):
    """Whether verification and planning accept a data set, and what they say."""
    verified = verify_dataset.verify_dataset(folders).findings.faults
    try:
        check_dataset(folders, show_progress=False)
    except UserError as error:
        return not verified, False, "\n".join([*verified, str(error)])
    return not verified, True, "\n".join(verified)


def test_metres_beside_millimetres_are_one_size_for_every_command(roots, tmp_path):
    """SimpleITK 2.5.7 scales by xyzt_units, so nnU-Net reads both alike."""
    metres = {"sform": affine() / 1000, "pixdim": (0.002, 0.0025, 0.003), "unit": 1}
    assert judged(raw(tmp_path / "Dataset501_X", metres)) == (True, True, "")


@pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient"])
def test_units_are_one_for_a_reader_that_knows_none(roots, tmp_path, reader):
    content = {"overwrite_image_reader_writer": reader}
    mixed = judged(raw(tmp_path / "mixed", MICRON, **content))
    assert mixed[:2] == (False, False)
    assert mixed[2].count("declares its spacing in micrometre, the training images in mm") == 2
    assert judged(raw(tmp_path / "equal", MICRON, MICRON, **content)) == (True, True, "")


def test_planning_looks_at_labeled_cases_too(roots, tmp_path):
    """nnU-Net takes the target spacing and the patch from their headers."""
    folders = raw(tmp_path / "Dataset501_X", {"sform": affine()}, CONTRADICTING)
    verified, planned, text = judged(folders)
    assert (verified, planned) == (False, False)
    assert "imagesTr/a_0000.nii.gz: the voxel size of its sform" in text
    assert "labelsTr/a.nii.gz: the voxel size of its sform" in text


def evaluated(tmp_path, reference, prediction, **content):
    """The one case of two boxes, one voxel apart along x."""
    box = np.zeros((6, 7, 8), np.uint8)
    box[1:4, 1:4, 1:4] = 1
    for name, stored, fields in (
        ("reference", box, reference), ("prediction", np.roll(box, 1, axis=2), prediction),
    ):  # fmt: skip
        (tmp_path / name).mkdir(exist_ok=True)
        write(tmp_path / name / "a.nii.gz", stored, **fields)
    known = {"labels": {"background": 0, "box": 1}, "file_ending": ".nii.gz", **content}
    (tmp_path / "prediction" / "dataset.json").write_text(json.dumps(known))
    return evaluate_folders(tmp_path / "reference", tmp_path / "prediction").cases[0]


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        (MICRON, {"overwrite_image_reader_writer": "NibabelIO"}),
        (MICRON, {"overwrite_image_reader_writer": "NibabelIOWithReorient"}),
        ({**MICRON, "sform": (affine() + SHEAR) * 1000,
          "pixdim": (2000, np.hypot(2500, 500), 3000)}, {}),
    ],
    ids=["named", "reoriented", "sheared"],
)  # fmt: skip
def test_micrometres_are_evaluated_in_mm_by_nibabel(tmp_path, fields, content):
    """nibabel 5.4.2 gives the numbers of the header: 2000 for 2 mm."""
    case = evaluated(tmp_path, fields, fields, **content)
    assert case.spacing[2] == pytest.approx(2)
    assert case.classes["box"].values["HD95"] == pytest.approx(2)


def test_prediction_of_nibabels_reader_has_the_unit_of_its_image(tmp_path):
    """NibabelIO of nnU-Net 2.8.1 writes the numbers of the image's affine, and no unit."""
    reader = {"overwrite_image_reader_writer": "NibabelIO"}
    evaluated(tmp_path, MICRON, MICRON, **reader)
    path = tmp_path / "prediction" / "a.nii.gz"
    labels, properties = NibabelIO().read_seg(str(path))
    NibabelIO().write_seg(labels[0], str(path), properties)
    assert int(nibabel.load(path).header["xyzt_units"]) == 0
    case = evaluate_folders(tmp_path / "reference", tmp_path / "prediction").cases[0]
    assert case.classes["box"].values["HD95"] == pytest.approx(2)
    assert case.placement_differs is False


@pytest.mark.parametrize(
    "reader", [None, "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"]
)
def test_evaluate_takes_the_affine_if_told_so(tmp_path, capsys, reader):
    """Through pixdim the distance would be 1 mm, half of what the affine says.

    The axes are stored as y, x, z, which some readers turn.
    """
    turned = affine()[:, [1, 0, 2]]
    fields = {"sform": turned, "pixdim": (1, 1, 1)}
    content = {} if reader is None else {"overwrite_image_reader_writer": reader}
    with pytest.raises(UserError, match="--trust-affine"):
        evaluated(tmp_path, fields, fields, **content)
    command = [str(tmp_path / "reference"), str(tmp_path / "prediction"), "-np", "1"]
    with pytest.raises(SystemExit) as end:
        evaluate_command.main([*command, "--trust-affine"])
    assert end.value.code in (0, None)
    text = (tmp_path / "prediction" / "semisup_evaluation.json").read_text()
    assert json.loads(text)["cases"]["a"]["classes"]["box"]["HD95"] == pytest.approx(2.5)


def test_prediction_of_simpleitk_for_a_denied_voxel_size(tmp_path):
    """SimpleITKIO of nnU-Net 2.8.1 writes the 1 mm that it read; the affine is the reference's."""
    with pytest.raises(UserError, match="--trust-affine"):
        evaluated(tmp_path, CONTRADICTING, CONTRADICTING)
    path = tmp_path / "prediction" / "a.nii.gz"
    labels, properties = SimpleITKIO().read_seg(str(path))
    SimpleITKIO().write_seg(labels[0], str(path), properties)
    assert read_nifti(path).spacing == (1, 1, 1)
    folders = (tmp_path / "reference", tmp_path / "prediction")
    inputs = find_inputs(*folders, trust_affine=True)
    case = evaluate_inputs(inputs).cases[0]
    assert case.classes["box"].values["HD95"] == pytest.approx(2)
    assert case.placement_differs is False


def test_png_that_loses_bits_is_named(tmp_path, roots, capsys):
    """Pillow 13.0, and so scikit-image and nnU-Net, gives the upper 8 of 16 bits."""
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(3):
        colours = np.random.default_rng(number).integers(0, 1 << 16, (20, 24, 3))
        write_png(tmp_path / "data" / "images" / f"p{number}.png", colours.astype(np.uint16), 16)
    label = np.stack([mask(0, 1, (20, 24))] * 3, axis=-1)
    write_png(tmp_path / "data" / "labels" / "p1.png", label, 16)
    assert convert(tmp_path / "data", "--label-names", "background,organ") == 2
    assert capsys.readouterr().err.count("is a PNG with 16 bits a colour, of which nnU-Net's") == 4
