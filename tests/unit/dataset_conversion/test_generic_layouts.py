"""Layouts that people have: Decathlon in four dimensions, one mask a structure, BIDS, prefixes."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.generic.layouts import suggestion
from tests.unit.dataset_conversion.layout_faults import (
    GLOBS,
    channels,
    make_bids,
    make_decathlon,
    make_masks,
    organs,
    save_nifti,
    side_by_side,
    with_prefixes,
)
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_common import report_of
from tests.unit.dataset_conversion.trees_dicom import write_series
from tests.unit.dataset_conversion.trees_generic import (
    LABELED,
    WHAT,
    content,
    convert,
    made,
    make_folders,
    mask,
    names,
    scan,
    write,
)

pytestmark = pytest.mark.usefixtures("no_search")
AFFINE = np.array([[-0.7, 0, 0, 5], [0, 0, 1.5, -3], [0, -0.8, 0, 7], [0, 0, 0, 1]])


def test_channels_in_a_fourth_dimension_are_split(roots, tmp_path):
    root = make_decathlon(tmp_path / "data", {"0": "T2", "1": "ADC"}, affine=AFFINE).root
    assert convert(root, "--extra-unlabeled", "imagesTs") == 0
    assert content(roots)["channel_names"] == {"0": "T2", "1": "ADC"}
    for number in range(5):
        folder = made(roots) / ("imagesTr" if number < 3 else "imagesUn")
        for channel in (0, 1):
            written = nibabel.load(folder / f"p_{number}_000{channel}.nii.gz")
            assert written.get_data_dtype() == np.int16
            np.testing.assert_array_equal(written.dataobj, channels(number)[..., channel])
            np.testing.assert_allclose(written.affine, AFFINE, atol=1e-5)
    assert not (made(roots) / "imagesTs").exists()
    image = report_of(made(roots))["cases"]["p_0"]["images"][1]
    assert image["source"] == f"{root}/imagesTr/p_0.nii.gz/channel 1 of 2"


def test_channels_of_test_cases_are_split_as_well(roots, tmp_path):
    root = make_decathlon(tmp_path / "data", {"0": "T2", "1": "ADC"}, affine=AFFINE).root
    assert convert(root, "--labeled", "2") == 0
    assert len(names(made(roots) / "imagesTs")) == 4
    assert names(made(roots) / "imagesUn") == ["p_2_0000", "p_2_0001"]


@pytest.mark.parametrize(
    ("modality", "options", "message"),
    [
        ({"0": "MR"}, (), "p_0.nii.gz has a fourth dimension of 2 volumes. If these are channels"),
        ({"0": "A", "1": "B"}, ("--channel-names", "A,B,C"), "give --channel-names with 2 names"),
    ],
)
def test_fourth_dimension_that_nothing_explains(
    roots, tmp_path, capsys, modality, options, message
):
    root = make_decathlon(tmp_path / "data", modality).root
    assert convert(root, "--labeled", "2", *options) == 2
    assert message in capsys.readouterr().err
    assert convert(root, "--labeled", "2", "--channel-names", "T2,ADC") == 0


def test_case_with_other_channels_is_named(roots, tmp_path, capsys):
    root = make_decathlon(tmp_path / "data", {"0": "T2", "1": "ADC"}, (2, 3, 2, 2, 2)).root
    save_nifti(channels(4)[..., 0], root / "imagesTs/p_4.nii.gz")
    assert convert(root, "--labeled", "2") == 2
    error = capsys.readouterr().err
    assert "p_1.nii.gz/channel 0 of 2: the file has 3 volumes in a fourth dimension" in error
    assert "p_4.nii.gz/channel 0 of 2: the file has 1 volumes in a fourth dimension" in error


@pytest.mark.parametrize("glob", ["segmentations/*", "segmentations/*.nii.gz"])
def test_one_mask_a_structure(roots, tmp_path, glob):
    root = make_masks(tmp_path / "data").root
    assert convert(root, *GLOBS[:3], glob, *GLOBS[4:]) == 0
    assert content(roots)["labels"] == {"background": 0, "kidney_left": 1, "liver": 2, "spleen": 3}
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p5_0000"]
    for number, case in enumerate(LABELED):
        written = read(made(roots) / f"labelsTr/{case}.nii.gz")
        np.testing.assert_array_equal(written, organs(number))


def test_names_choose_masks_and_their_values(roots, tmp_path):
    root = make_masks(tmp_path / "data").root
    assert convert(root, *GLOBS, "--label-names", "background,spleen,Kidney left") == 0
    expected = np.array([0, 2, 0, 1])[organs(0)]
    np.testing.assert_array_equal(read(made(roots) / "labelsTr/p1.nii.gz"), expected)


def test_several_masks_may_be_one_label(roots, tmp_path):
    root = make_masks(tmp_path / "data").root
    names_ = ("--label-names", "background,organ", "--label-map", "liver:1,spleen:1")
    assert convert(root, *GLOBS, *names_) == 0
    expected = np.array([0, 0, 1, 1])[organs(0)]
    np.testing.assert_array_equal(read(made(roots) / "labelsTr/p1.nii.gz"), expected)


def test_masks_may_make_regions(roots, tmp_path, capsys):
    root = make_masks(tmp_path / "data").root
    labels = {"background": 0, "both": [1, 2], "core": [2]}
    text = json.dumps({"labels": labels, "regions_class_order": [1, 2]})
    (root / "labels.json").write_text(text)
    regions = (*GLOBS, "--labels-json", str(root / "labels.json"))
    assert convert(root, *regions) == 2
    assert "--label-map 'MASK:VALUE,...'" in capsys.readouterr().err
    assert convert(root, *regions, "--label-map", "liver:1,spleen:2") == 0
    expected = np.array([0, 0, 1, 2])[organs(0)]
    np.testing.assert_array_equal(read(made(roots) / "labelsTr/p1.nii.gz"), expected)


def test_masks_in_a_folder_of_labels(roots, tmp_path):
    root = make_masks(tmp_path / "data", "images/{}.nii.gz", "labels/{}").root
    assert convert(root, "--channel-names", "CT") == 0
    np.testing.assert_array_equal(read(made(roots) / "labelsTr/p2.nii.gz"), organs(1))


def test_masks_that_overlap_are_named_or_have_an_order(roots, tmp_path, capsys):
    root = make_masks(tmp_path / "data").root
    write((organs(0) > 1).astype(np.uint8) * 255, root / "p1/segmentations/spleen.nii.gz")
    assert convert(root, *GLOBS) == 2
    error = capsys.readouterr().err
    assert f"liver and spleen share {(organs(0) == 2).sum()} voxels" in error
    assert "give --overlap last" in error
    assert convert(root, *GLOBS, "--overlap", "last") == 0
    expected = np.array([0, 1, 3, 3])[organs(0)]
    np.testing.assert_array_equal(read(made(roots) / "labelsTr/p1.nii.gz"), expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "there is no mask of spleen, only of kidney_left, liver."),
        (lambda path: write(organs(0), path), "spleen.nii.gz has the values 0, 1, 2, 3; the mask"),
        (lambda path: write(mask(0), path, (1, 1, 3)), "spleen.nii.gz has another grid than"),
    ],
)
def test_masks_that_cannot_be_one_label(roots, tmp_path, capsys, spoil, message):
    root = make_masks(tmp_path / "data").root
    spoil(root / "p1/segmentations/spleen.nii.gz")
    assert convert(root, *GLOBS) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Download" not in error


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("*_T1w.nii.gz", "*_seg.nii.gz"),
        ("anat/*_T1w.nii.gz,anat/*_T2w.nii.gz", "manual/*/anat/*_seg*"),
    ],
)
def test_bids(roots, tmp_path, images, labels):
    root = make_bids(tmp_path / "data").root
    channel_names = ",".join(["T1", "T2"][: images.count(",") + 1])
    options = ("--image-glob", images, "--label-glob", labels, "--channel-names", channel_names)
    assert convert(root, *options, "--label-names", "background,organ") == 0
    assert names(made(roots) / "labelsTr") == ["sub-00", "sub-01", "sub-02"]
    assert {name[:6] for name in names(made(roots) / "imagesUn")} == {"sub-03", "sub-04"}
    np.testing.assert_array_equal(read(made(roots) / "imagesTr/sub-01_0000.nii.gz"), scan(1))
    np.testing.assert_array_equal(read(made(roots) / "labelsTr/sub-01.nii.gz"), mask(1))


def test_bids_sessions_are_cases(roots, tmp_path, capsys):
    root = make_bids(
        tmp_path / "data", "derivatives/manual/{0}/{1}_label-a_mask.nii.gz", "ses-1"
    ).root
    again = root / "sub-00/ses-2/anat/sub-00_ses-2_T1w.nii.gz"
    write(scan(50), again)
    options = ("--image-glob", "*_T1w.nii.gz", "--label-glob", "*_mask.nii.gz", *WHAT)
    assert convert(root, *options) == 0
    assert names(made(roots) / "labelsTr") == ["sub-00_ses-1", "sub-01_ses-1", "sub-02_ses-1"]
    assert "--group-regex '^(sub-[^_]+)' keeps those of a subject" in capsys.readouterr().out


def test_bids_with_two_runs_is_refused_by_name(roots, tmp_path, capsys):
    root = make_bids(tmp_path / "data").root
    write(scan(50), root / "sub-00/anat/sub-00_run-2_T1w.nii.gz")
    options = ("--image-glob", "*_T1w.nii.gz", "--label-glob", "*_seg*", *WHAT)
    assert convert(root, *options) == 2
    error = capsys.readouterr().err
    assert "case sub-00: must have one file like '*_T1w.nii.gz', it has: " in error
    assert "Make --image-glob narrower" in error
    assert convert(root, "--image-glob", "sub-??_T1w.nii.gz", *options[2:]) == 0


SUGGESTIONS = {
    "BIDS": (
        make_bids,
        ("*_T1w.nii.gz", "*_seg.nii.gz", " (or '*_T2w.nii.gz')"),
        ("sub-00/anat/sub-00_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz"),
        WHAT,
    ),
    "TotalSegmentator": (
        make_masks,
        ("ct.nii.gz", "segmentations/*", ""),
        ("p1/ct.nii.gz", "p2/ct.nii.gz"),
        WHAT[2:],
    ),
    "deeper, with the case in names": (
        lambda root: make_masks(root, "{0}/scan/{0}_ct.nii.gz", "{0}/masks"),
        ("scan/*_ct.nii.gz", "masks/*", ""),
        ("p1/scan/p1_ct.nii.gz", "p2/scan/p2_ct.nii.gz"),
        WHAT[2:],
    ),
}


@pytest.mark.parametrize("name", SUGGESTIONS)
def test_layout_is_suggested_and_the_suggestion_works(roots, tmp_path, capsys, name):
    make, (image, label, others), (first, second), options = SUGGESTIONS[name]
    root = make(tmp_path / "data").root
    assert convert(root, *options) == 2
    assert (
        f"--image-glob '{image}'{others} --label-glob '{label}' would take {root / first} and "
        f"{root / second}."
    ) in capsys.readouterr().err
    assert convert(root, *options, "--image-glob", image, "--label-glob", label) == 0


def test_folders_of_other_names_are_suggested(roots, tmp_path, capsys):
    folders = make_folders(tmp_path / "data")
    folders.images.rename(folders.root / "pictures")
    folders.labels.rename(folders.root / "drawn_masks")
    assert convert(folders.root, *WHAT) == 2
    two = [folders.root / "pictures" / f"{case}.nii.gz" for case in LABELED[:2]]
    assert f"--images pictures --labels drawn_masks would take {two[0]} and {two[1]}." in (
        capsys.readouterr().err
    )
    assert convert(folders.root, *WHAT, "--images", "pictures", "--labels", "drawn_masks") == 0


def test_files_that_fit_no_layout_are_shown(tmp_path):
    assert suggestion(tmp_path) == ""
    for name in ("a/b/one.nii.gz", "c/two.nii.gz"):
        write(scan(0), tmp_path / name)
    assert suggestion(tmp_path) == (
        f" The nearest files are {tmp_path}/a/b/one.nii.gz and {tmp_path}/c/two.nii.gz."
    )


def test_text_before_the_case(roots, tmp_path, capsys):
    """LiTS names its files volume-0.nii and segmentation-0.nii."""
    folders = make_folders(tmp_path / "data")
    with_prefixes(folders)
    assert convert(folders.root, *WHAT) == 2
    told = "which --image-prefix volume- --label-prefix segmentation- makes equal"
    assert told in capsys.readouterr().err
    prefixes = ("--image-prefix", "volume-", "--label-prefix", "segmentation-")
    assert convert(folders.root, *WHAT, *prefixes) == 0
    assert names(made(roots) / "labelsTr") == LABELED


@pytest.mark.parametrize("prefixes", [True, False])
def test_images_and_labels_side_by_side(roots, tmp_path, prefixes):
    folders = make_folders(tmp_path / "data")
    options = ["--images", ".", "--labels", ".", "--label-suffix", "_seg"]
    if prefixes:
        with_prefixes(folders)
        options[-2:] = ["--label-prefix", "segmentation-", "--image-prefix", "volume-"]
        options.extend(["--label-suffix", "_seg"])
    side_by_side(folders)
    assert convert(folders.root, *WHAT, *options) == 0
    assert names(made(roots) / "labelsTr") == LABELED
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p5_0000"]


def test_folder_has_one_use(roots, tmp_path, capsys):
    folders = make_folders(tmp_path / "data")
    for option in ("--images", "--test"):
        options = (*WHAT, "--images", "images", option, "images", "--extra-unlabeled", "images")
        assert convert(folders.root, *options) == 2
        assert f"both mean {folders.images}; a folder has one use." in capsys.readouterr().err
    shutil.copytree(folders.images, folders.root / "more")
    for number, path in enumerate(sorted((folders.root / "more").iterdir())):
        write(scan(30 + number), path.with_name(f"q{number}.nii.gz"))
        path.unlink()
    twice = ("--extra-unlabeled", "more", "--extra-unlabeled", str(folders.root / "more"))
    assert convert(folders.root, *WHAT, *twice) == 0
    assert len(names(made(roots) / "imagesUn")) == 7


def test_file_is_not_its_own_double(roots, tmp_path, capsys):
    """A link in a folder of unlabeled scans to one that is labeled."""
    folders = make_folders(tmp_path / "data")
    (folders.root / "more").mkdir()
    (folders.root / "more/p1.nii.gz").symlink_to(folders.image("p1"))
    assert convert(folders.root, *WHAT, "--extra-unlabeled", "more") == 2
    error = capsys.readouterr().err
    assert "is named by --extra-unlabeled, but it is used already; a file has one use" in error
    assert "remove one" not in error


def test_unlabeled_series_inside_of_the_folder_of_images(roots, tmp_path):
    root = tmp_path / "data"
    for number in range(5):
        image = np.random.default_rng(number).integers(-900, 900, (6, 20, 24)).astype(np.int16)
        place = f"scans/P{number}" if number < 3 else f"scans/unlabeled/P{number}"
        write_series(root / place, image, f"P{number}")
        if number < 2:
            write(mask(number, shape=(6, 20, 24)), root / f"masks/P{number}.nii.gz", (0.7, 0.8, 1))
    options = ("--images", "scans", "--labels", "masks", "--extra-unlabeled", "scans/unlabeled")
    assert convert(root, *options, *WHAT) == 0
    assert names(made(roots) / "imagesUn") == ["P2_0000", "P3_0000", "P4_0000"]
