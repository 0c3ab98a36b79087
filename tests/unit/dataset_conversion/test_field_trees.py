"""Trees and files as people have them: converted if right, else named as what they are."""

import unicodedata

import numpy as np
import pytest
import SimpleITK
import tifffile
from pydicom import dcmread

from nnunet_semisup.dataset_conversion.checking.raw_dataset import verify_dataset
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.inputs import find_inputs
from nnunet_semisup.headers.tif_size import size_in_metadata
from nnunet_semisup.preparation.raw import find_dataset
from nnunet_semisup.preparation.sources import DamagedFileError, read_source
from tests.unit.dataset_conversion.content_faults import link_to_nothing
from tests.unit.dataset_conversion.layout_faults import (
    GLOBS,
    SERIES,
    make_masks,
    make_series,
)
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_generic import (
    LABELED,
    SHAPE,
    UNLABELED,
    WHAT,
    convert,
    made,
    mask,
    names,
    scan,
    write,
)

pytestmark = pytest.mark.usefixtures("no_search")
CT = ("--label-names", "background,organ", "--channel-names", "CT")
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Jörg Ł 1.2") for form in ("NFC", "NFD"))


def verify_raw(monkeypatch):
    place = "nnunet_semisup.dataset_conversion.checking.raw_dataset._faults_by_nnunet"
    monkeypatch.setattr(place, lambda *_: [])
    return verify_dataset(find_dataset(501)).findings


class TestNames:
    """macOS stores ü as u and two dots (Unicode NFD), other systems as one letter (NFC)."""

    def test_image_and_label_match_whichever_way_letters_are_stored(self, roots, folders):
        folders.image("p1").rename(folders.images / f"{COMPOSED}.nii.gz")
        folders.label("p1").rename(folders.labels / f"{DECOMPOSED}.nii.gz")
        (folders.root / "list.txt").write_text(f"{DECOMPOSED}\np2\n", encoding="utf-8")
        listed = ("--labeled-list", str(folders.root / "list.txt"))
        assert convert(folders.root, *WHAT, *listed) == 0
        written = {path.name for path in (made(roots) / "labelsTr").iterdir()}
        assert written == {f"{COMPOSED}.nii.gz", "p2.nii.gz"}

    def test_raw_data_set_with_both_ways_is_told_what_differs(self, roots, folders, monkeypatch):
        folders.image("p1").rename(folders.images / f"{COMPOSED}.nii.gz")
        folders.label("p1").rename(folders.labels / f"{COMPOSED}.nii.gz")
        assert convert(folders.root, *WHAT) == 0
        labels = made(roots) / "labelsTr"
        (labels / f"{COMPOSED}.nii.gz").rename(labels / f"{DECOMPOSED}.nii.gz")
        (fault,) = verify_raw(monkeypatch).faults
        assert "look alike in name and differ in how a letter with an accent is stored" in fault

    def test_evaluation_says_that_the_names_look_alike(self, tmp_path):
        write(mask(0), tmp_path / f"truth/{COMPOSED}.nii.gz")
        write(mask(0), tmp_path / f"predicted/{DECOMPOSED}.nii.gz")
        with pytest.raises(UserError, match="are there under names that look alike"):
            find_inputs(tmp_path / "truth", tmp_path / "predicted")


def test_evaluation_names_a_reference_that_is_a_link_to_nothing(tmp_path):
    for case in ("p1", "p2"):
        write(mask(0), tmp_path / f"truth/{case}.nii.gz")
        write(mask(0), tmp_path / f"predicted/{case}.nii.gz")
    link_to_nothing(tmp_path / "truth/p1.nii.gz")
    pairs = find_inputs(tmp_path / "truth", tmp_path / "predicted").pairs
    assert [pair.name for pair in pairs] == ["p1", "p2"]
    with pytest.raises(DamagedFileError, match="is a link to"):
        read_source(pairs[0].reference)


class TestOutliers:
    def test_ct_with_an_offset_is_named(self, roots, folders, capsys, monkeypatch):
        for number, case in enumerate(LABELED + UNLABELED):
            offset = 1024 if case in ("p2", "p5") else 0
            write((scan(number).astype(np.int16) - 600 + offset), folders.image(case))
        assert convert(folders.root, *CT) == 0
        words = "the CT of 2 cases has no value below 0, while others go down to -600: p2, p5."
        assert words in capsys.readouterr().out
        warning, few = verify_raw(monkeypatch).warnings
        assert few.startswith("3 labeled cases and no splits_final.json")
        assert words in warning

    def test_mask_with_object_and_background_exchanged_is_named(
        self, roots, folders, capsys, monkeypatch
    ):
        write(1 - mask(1), folders.label("p2"))
        assert convert(folders.root, *WHAT) == 0
        words = "the labels of 1 case are mostly foreground, where it is"
        assert words in capsys.readouterr().out
        warning, few = verify_raw(monkeypatch).warnings
        assert few.startswith("3 labeled cases and no splits_final.json")
        assert words in warning
        assert "(median): p2. Look at them" in warning


class TestSlicer:
    """3D Slicer saves a .seg.nrrd cut to its segments if asked to, and one voxel if it has none."""

    @pytest.fixture
    def segmentations(self, folders):
        for number, case in enumerate(LABELED):
            image = SimpleITK.ReadImage(str(folders.image(case)))
            image.SetOrigin((5.0, -7.0, 3.0))
            image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
            SimpleITK.WriteImage(image, str(folders.image(case)))
            whole = SimpleITK.GetImageFromArray(mask(number))
            whole.CopyInformation(image)
            cut = whole[2:14, 3:12, 1:8]
            cut.SetMetaData("Segment0_Name", "organ")
            cut.SetMetaData("Segment0_LabelValue", "1")
            SimpleITK.WriteImage(cut, str(folders.labels / f"{case}.seg.nrrd"))
            folders.label(case).unlink()
        return folders

    def test_cut_segmentation_fills_the_grid_of_its_image(self, roots, segmentations, capsys):
        assert convert(segmentations.root, *WHAT, "--label-suffix", ".seg") == 0
        assert "saved cut to its segments; the rest is background" in capsys.readouterr().out
        for number, case in enumerate(LABELED):
            expected = np.zeros(SHAPE, np.uint8)
            expected[1:8, 3:12, 2:14] = mask(number)[1:8, 3:12, 2:14]
            assert np.array_equal(read(made(roots) / f"labelsTr/{case}.nii.gz"), expected)

    def test_segmentation_of_another_scan_is_refused(self, roots, segmentations, capsys):
        path = segmentations.labels / "p1.seg.nrrd"
        image = SimpleITK.ReadImage(str(path))
        image.SetOrigin((5.3, -7.0, 3.0))
        SimpleITK.WriteImage(image, str(path))
        assert convert(segmentations.root, *WHAT, "--label-suffix", ".seg") == 2
        assert "p1.seg.nrrd: image and label differ in size" in capsys.readouterr().err

    def test_segmentation_without_segments_is_empty(self, roots, segmentations, capsys):
        one = SimpleITK.GetImageFromArray(np.zeros((1, 1, 1), np.uint8))
        SimpleITK.WriteImage(one, str(segmentations.labels / "p1.seg.nrrd"))
        assert convert(segmentations.root, *WHAT, "--label-suffix", ".seg") == 2
        assert "p1.seg.nrrd: the label has no foreground" in capsys.readouterr().err


class TestTrees:
    def test_time_points_of_patients_are_named_by_both_folders(self, roots, tmp_path, capsys):
        root = tmp_path / "data"
        for number in range(6):
            place = root / f"pat{number // 2}/tp{number % 2}"
            write(scan(number), place / "ct.nii.gz")
            if number < 4:
                write(mask(number), place / "seg.nii.gz")
        globs = ("--image-glob", "ct.nii.gz", "--label-glob", "seg.nii.gz")
        regex = ("--group-regex", "^(.+)_[^_]+$")
        assert convert(root, *WHAT, *globs, *regex) == 0
        assert "--group-regex '^(.+)_[^_]+$' keeps what is of one" in capsys.readouterr().out
        assert names(made(roots) / "labelsTr") == ["pat0_tp0", "pat0_tp1", "pat1_tp0", "pat1_tp1"]
        assert names(made(roots) / "imagesUn") == ["pat2_tp0_0000", "pat2_tp1_0000"]

    def test_folders_of_images_and_one_folder_of_labels(self, roots, folders):
        for case in LABELED + UNLABELED:
            for series in ("arterial", "venous"):
                path = folders.images / case / series / "vol.nii.gz"
                path.parent.mkdir(parents=True)
                path.write_bytes(folders.image(case).read_bytes())
            folders.image(case).unlink()
        given = ("--images", "images", "--labels", "labels", "--image-glob", "venous/vol.nii.gz")
        assert convert(folders.root, *WHAT, *given) == 0
        assert names(made(roots) / "labelsTr") == LABELED

    def test_suggested_image_is_the_original_not_what_was_made_of_it(self, roots, tmp_path, capsys):
        for number in range(2):
            for name in ("ax_t1_Eq_1", "ax_t1a", "ax_t1", "ax_t1_ROI1"):
                write(scan(number), tmp_path / f"data/pat{number}/{name}.nii.gz")
        write(mask(0), tmp_path / "data/pat0/seg.nii.gz")
        assert convert(tmp_path / "data", *WHAT) == 2
        assert (
            "--image-glob 'ax_t1.nii.gz' (or 'ax_t1a.nii.gz', 'ax_t1_Eq_1.nii.gz') --label-glob "
            "'ax_t1_ROI1.nii.gz' (or 'seg.nii.gz')"
        ) in capsys.readouterr().err

    def test_negative_value_is_mapped(self, roots, folders):
        label = mask(0).astype(np.int16)
        label[0] = -1
        write(label, folders.label("p1"))
        assert convert(folders.root, *WHAT, "--label-map", "1:1,-1:0") == 0
        assert np.array_equal(np.unique(read(made(roots) / "labelsTr/p1.nii.gz")), [0, 1])


class TestTiff:
    """What tifffile 2026.3.3 writes of OME's and ImageJ's metadata."""

    def test_voxel_size_of_metadata_is_in_the_advice(self, roots, tmp_path, capsys):
        root = tmp_path / "data"
        size = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 1.0}
        for number in range(3):
            for folder, array in (("images", scan(number)), ("labels", mask(number))):
                path = root / folder / f"p{number}.ome.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                if folder == "images" or number < 2:
                    tifffile.imwrite(path, array, metadata={"axes": "ZYX", **size})
        assert convert(root, *WHAT) == 2
        told = '{"spacing": [0.001, 0.00025, 0.0002]}'
        assert f"write p0.ome.json with {told}" in capsys.readouterr().err
        for path in root.rglob("*.tif"):
            path.with_suffix(".json").write_text(told)
        assert convert(root, *WHAT) == 0
        image = SimpleITK.ReadImage(str(made(roots) / "imagesTr/p0.ome_0000.nii.gz"))
        assert image.GetSpacing() == pytest.approx((0.0002, 0.00025, 0.001))

    def test_imagej_writes_resolution_and_spacing(self, tmp_path):
        content = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, scan(0), imagej=True, resolution=(5, 4), metadata=content)
        assert size_in_metadata(path) == pytest.approx((0.002, 0.00025, 0.0002))

    def test_file_that_does_not_say_its_size(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", scan(0))
        assert size_in_metadata(tmp_path / "a.tif") is None

    @pytest.mark.parametrize(
        ("axes", "words"), [("CYX", "channels of one picture"), ("TYX", "points in time")]
    )
    @pytest.mark.parametrize("imagej", [False, True])
    def test_pages_that_are_no_slices_are_refused(
        self, roots, tmp_path, capsys, axes, words, imagej
    ):
        root = tmp_path / "data"
        for number in range(3):
            path = root / f"images/p{number}.{'' if imagej else 'ome.'}tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, scan(number), imagej=imagej, metadata={"axes": axes})
        write(mask(0, 1, SHAPE[1:]), root / "labels/p0.png")
        options = () if imagej else ("--image-suffix", ".ome")
        assert convert(root, *WHAT, *options) == 2
        assert f"has 10 pages that are {words} by its metadata" in capsys.readouterr().err


def test_slices_without_voxel_size_are_one_line_a_folder(roots, tmp_path, capsys):
    made_series = make_series(tmp_path / "data")
    for path in (made_series.root / "scans/P2").iterdir():
        content = dcmread(path)
        del content.PixelSpacing
        content.save_as(path)
    assert convert(made_series.root, *SERIES) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "PixelSpacing" in line]
    assert len(lines) == 1
    assert "and 5 more files in that folder: PixelSpacing is not in the header" in lines[0]
    assert "Download" not in lines[0]


@pytest.mark.parametrize("name", ["1-006.dcm", "1-006"])
def test_last_slice_that_is_a_link_to_nothing_is_not_passed_over(roots, tmp_path, capsys, name):
    folder = make_series(tmp_path / "data", labels=False).root / "scans/P2"
    (folder / "1-006.dcm").rename(folder / name)
    link_to_nothing(folder / name)
    assert convert(tmp_path / "data", *SERIES[:2], *WHAT) == 2
    assert f"{name}: is a link to ../.git/annex/objects/MD5E-s12" in capsys.readouterr().err


def test_damaged_mask_of_a_structure_is_named(roots, tmp_path, capsys):
    root = make_masks(tmp_path / "data").root
    (root / "p1/segmentations/liver.nii.gz").write_bytes(b"")
    assert convert(root, *GLOBS) == 2
    assert "liver.nii.gz: the file is empty (0 bytes)" in capsys.readouterr().err
