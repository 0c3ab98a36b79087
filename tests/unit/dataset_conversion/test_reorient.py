"""Scans in another order of axes are named, and turned without resampling where that is asked."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.cli.verify import main as verify_main
from nnunet_semisup.dataset_conversion.checking import raw_dataset as module
from tests.unit.dataset_conversion.trees import convert as convert_la
from tests.unit.dataset_conversion.trees_generic import LABELED, UNLABELED, WHAT, convert, made
from tests.unit.dataset_conversion.verify_faults import edit

pytestmark = pytest.mark.usefixtures("no_search")
TURNED = {"p2": "PIR", "p4": "RAS"}


def turn(path, code):
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), code)
    SimpleITK.WriteImage(image, str(path))


@pytest.fixture
def turned(folders):
    """A labeled case, image and label, and an unlabeled case with other axes than the rest."""
    for case, code in TURNED.items():
        turn(folders.image(case), code)
    turn(folders.label("p2"), TURNED["p2"])
    return folders


def in_space(path):
    """The voxels in one order and the affine of that, from which the order on disk is gone."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(image.dataobj), image.affine


def axes(path):
    return "".join(nibabel.aff2axcodes(nibabel.load(path).affine))


def verify(monkeypatch, identifier):
    monkeypatch.setattr(module, "_faults_by_nnunet", lambda *_: [])
    with pytest.raises(SystemExit) as end:
        verify_main([str(identifier), "-np", "1"])
    return end.value.code


def test_cases_with_other_axes_are_named_and_written_as_they_are(roots, turned, capsys):
    assert convert(turned.root, *WHAT) == 0
    told = capsys.readouterr().out
    assert "warning: the axes of 2 of 5 cases are in another orientation" in told
    assert "(LPS): imagesTr: p2 (PIR); imagesUn: p4 (RAS)." in told
    assert "--reorient brings all to one order, without resampling" in told
    assert axes(made(roots) / "imagesUn/p4_0000.nii.gz") == "RAS"


def test_scans_and_labels_are_turned_and_lose_nothing(roots, turned, capsys):
    assert convert(turned.root, *WHAT, "--reorient") == 0
    told = capsys.readouterr().out
    assert "orientation" not in told
    assert "2 cases turned to the axes of the others, LPS; scans to predict must have them" in told
    pairs = [(turned.image(c), f"imagesTr/{c}_0000.nii.gz") for c in LABELED]
    pairs += [(turned.image(c), f"imagesUn/{c}_0000.nii.gz") for c in UNLABELED]
    pairs += [(turned.label(c), f"labelsTr/{c}.nii.gz") for c in LABELED]
    for source, name in pairs:
        written = made(roots) / name
        assert axes(written) == "LPS"
        voxels, affine = in_space(source)
        found, place = in_space(written)
        assert np.array_equal(found, voxels)
        assert np.allclose(place, affine, atol=1e-5)
    report = json.loads((made(roots) / "conversion_report.json").read_text())
    assert report["reoriented"] == {"axes": "LPS", "cases": TURNED}
    assert report["cases"]["p4"]["turned_to"] == "LPS"
    assert "turned_to" not in report["cases"]["p1"]


def test_oblique_scans_keep_their_angle(roots, folders):
    """Turned by 20 degrees about z and stored in another order: only the order changes."""
    c, s = np.cos(0.35), np.sin(0.35)
    for path in (*folders.images.iterdir(), *folders.labels.iterdir()):
        image = SimpleITK.ReadImage(str(path))
        image.SetDirection((c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))
        SimpleITK.WriteImage(image, str(path))
    turn(folders.image("p4"), "SRA")
    assert convert(folders.root, *WHAT, "--reorient") == 0
    written = SimpleITK.ReadImage(str(made(roots) / "imagesUn/p4_0000.nii.gz"))
    assert np.allclose(written.GetDirection(), (c, -s, 0, s, c, 0, 0, 0, 1), atol=1e-5)


def test_the_same_command_again_changes_nothing(roots, turned, capsys):
    assert convert(turned.root, *WHAT, "--reorient") == 0
    first = (made(roots) / "imagesUn/p4_0000.nii.gz").read_bytes()
    assert convert(turned.root, *WHAT, "--reorient", "--overwrite") == 0
    assert (made(roots) / "imagesUn/p4_0000.nii.gz").read_bytes() == first


def test_verify_names_the_cases_and_both_ways_out_work(roots, turned, capsys, monkeypatch):
    assert convert(turned.root, *WHAT) == 0
    capsys.readouterr()
    assert verify(monkeypatch, 501) == 0
    told = capsys.readouterr().out
    assert "imagesTr: p2 (PIR); imagesUn: p4 (RAS). nnU-Net ignores the direction" in told
    assert convert(made(roots), "--reorient", dataset_id=502) == 0
    reader = '"overwrite_image_reader_writer": "SimpleITKIOWithReorient"'
    assert reader in told
    edit(made(roots) / "dataset.json", lambda c: c.update(json.loads(f"{{{reader}}}")))
    capsys.readouterr()
    assert [verify(monkeypatch, number) for number in (501, 502)] == [0, 0]
    assert "orientation" not in capsys.readouterr().out


def test_every_data_set_can_be_turned(roots, download, capsys):
    turn(download.image("CCCC"), "RAS")
    assert convert_la(download, "--reorient") == 0
    folder = roots["raw"] / "Dataset501_LA2018"
    assert {axes(path) for path in folder.glob("images*/*")} == {"LPS"}
