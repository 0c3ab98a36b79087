"""A label file that says what its values mean is believed, and what contradicts it is refused."""

import json

import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.reading.formats import read_label
from nnunet_semisup.dataset_conversion.reading.label_names import LAYERED, named_values, plain
from nnunet_semisup.dataset_conversion.volume import UnusableFileError
from tests.unit.dataset_conversion.trees import SPACING as LA_SPACING
from tests.unit.dataset_conversion.trees import ball, read
from tests.unit.dataset_conversion.trees import convert as convert_la
from tests.unit.dataset_conversion.trees_generic import LABELED, content, convert, made
from tests.unit.dataset_conversion.trees_names import (
    LIVER_FIRST,
    SHAPE,
    SPLEEN_FIRST,
    make_named,
    mitk,
    organs,
    slicer,
    write_layers,
    write_nifti,
    write_nrrd,
)

pytestmark = pytest.mark.usefixtures("no_search")
CT = ("--channel-names", "CT")
ORGANS = (*CT, "--label-names", "background,liver,spleen")
SEG = ("--label-suffix", ".seg")


def swapped(label):
    """The label with liver and spleen exchanged."""
    return np.choose(label, [0, 2, 1]).astype(np.uint8)


@pytest.mark.parametrize("code", [0, 4, 30])
def test_a_label_table_in_a_nifti_extension_is_read_whatever_its_code(tmp_path, code):
    """TotalSegmentator 2.18.0 uses the code 0, Caret and Workbench 30. nibabel 5.4.2 does not know
    30, and its ``get_content`` raises NotImplementedError; ``content`` is the bytes."""
    path = tmp_path / "a.nii.gz"
    write_nifti(organs(0), path, {0: "???", 1: "liver", 2: "spleen"}, code)
    assert named_values(path) == {0: "???", 1: "liver", 2: "spleen"}


@pytest.mark.parametrize("keys", [slicer, mitk])
@pytest.mark.parametrize("ending", [".seg.nrrd", ".nrrd"])
def test_slicer_and_mitk_name_the_values_in_the_header_of_a_nrrd(tmp_path, keys, ending):
    path = tmp_path / f"a{ending}"
    write_nrrd(organs(0), path, keys({3: "Leber rechts", 7: "Milz"}))
    assert named_values(path) == {3: "Leber rechts", 7: "Milz"}


def test_files_without_names_and_damaged_ones_have_none(tmp_path):
    write_nrrd(organs(0), tmp_path / "a.nrrd", {})
    write_nifti(organs(0), tmp_path / "b.nii.gz", None)
    (tmp_path / "c.nii.gz").write_bytes(b"no nifti")
    (tmp_path / "d.nrrd").write_bytes(b"NRRD0004\n")
    found = [named_values(path) for path in sorted(tmp_path.iterdir())]
    assert found == [None] * 4
    assert named_values(tmp_path / "absent.nrrd") is None


def test_a_value_with_two_names_has_both(tmp_path):
    keys = slicer({1: "liver", 2: "spleen"}) | {"Segment1_LabelValue": "1"}
    write_nrrd(organs(0), tmp_path / "a.nrrd", keys)
    assert named_values(tmp_path / "a.nrrd") == {1: "liver or spleen"}


def test_upper_case_blanks_and_underscores_do_not_make_another_name():
    assert plain(" Left__Kidney") == plain("left kidney") == plain("LEFT-kidney")
    assert plain("left kidney") != plain("right kidney")


@pytest.mark.parametrize("old", [False, True], ids=["with layers stated", "before Slicer 4.11"])
def test_layers_that_do_not_overlap_are_read_as_one_label(tmp_path, old):
    label = organs(0)
    path = tmp_path / "a.seg.nrrd"
    write_layers([(label == v).astype(np.uint8) for v in (1, 2)], ["liver", "spleen"], path, old)
    volume = read_label(path)
    assert named_values(path) == {LAYERED: "liver", LAYERED + 1: "spleen"}
    assert volume.array.shape == SHAPE
    assert np.array_equal(volume.array == LAYERED, label == 1)
    assert np.array_equal(volume.array == LAYERED + 1, label == 2)


def test_layers_that_overlap_are_refused_by_the_names_of_the_segments(tmp_path):
    liver = organs(0) > 0
    path = tmp_path / "a.seg.nrrd"
    write_layers([liver.astype(np.uint8), (organs(0) == 2).astype(np.uint8)], ["a", "b"], path)
    with pytest.raises(UnusableFileError, match=r"overlap \('a' and 'b' share 72 voxels"):
        read_label(path)


def test_each_case_is_mapped_by_its_own_header(tmp_path, roots, capsys):
    """In p2 the value 1 is the spleen. The names decide, not the numbers."""
    folders = make_named(tmp_path / "data")
    assert convert(folders.root, *ORGANS, *SEG) == 0
    told = capsys.readouterr().out
    assert "warning: in 1 label files the names decide against the order of the labels: " in told
    assert ": p2 (1 'spleen' becomes 2, 2 'liver' becomes 1)." in told
    for case in LABELED:
        source = read(folders.labels / f"{case}.seg.nrrd")
        expected = swapped(source) if case == "p2" else source
        assert np.array_equal(read(made(roots) / "labelsTr" / f"{case}.nii.gz"), expected)
    report = json.loads((made(roots) / "conversion_report.json").read_text())
    assert report["cases"]["p2"]["label_names"] == {
        "1": {"name": "spleen", "written_as": 2},
        "2": {"name": "liver", "written_as": 1},
    }


def test_a_nifti_label_table_is_mapped_by_name(tmp_path, roots):
    folders = make_named(tmp_path / "data", {5: "Spleen", 9: "LIVER"}, ".nii.gz")
    assert convert(folders.root, *ORGANS) == 0
    source = read(folders.labels / "p2.nii.gz")
    written = read(made(roots) / "labelsTr" / "p2.nii.gz")
    assert np.array_equal(written == 1, source == 9)
    assert np.array_equal(written == 2, source == 5)


def test_names_of_files_are_the_labels_if_nothing_else_says_them(tmp_path, roots, capsys):
    folders = make_named(tmp_path / "data")
    assert convert(folders.root, *CT, *SEG) == 0
    assert content(roots)["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert "the labels are background, liver, spleen" in capsys.readouterr().out
    source = read(folders.labels / "p2.seg.nrrd")
    assert np.array_equal(read(made(roots) / "labelsTr" / "p2.nii.gz"), swapped(source))


def test_layered_labels_are_converted_by_name(tmp_path, roots):
    folders = make_named(tmp_path / "data")
    label = organs(1)
    layers = [(label == v).astype(np.uint8) for v in (2, 1)]
    write_layers(layers, ["spleen", "liver"], folders.labels / "p2.seg.nrrd")
    assert convert(folders.root, *ORGANS, *SEG) == 0
    assert np.array_equal(read(made(roots) / "labelsTr" / "p2.nii.gz"), label)


def test_an_unknown_name_is_refused_with_all_names_and_the_advice_works(tmp_path, roots, capsys):
    folders = make_named(tmp_path / "data", {1: "Milz", 2: "liver"})
    assert convert(folders.root, *ORGANS, *SEG) == 2
    error = capsys.readouterr().err
    assert "case p2: " in error
    assert "its header names 1 'Milz', and the labels of the data set are" in error
    assert "background, liver, spleen" in error
    assert "--label-map 'Milz:NEW'" in error
    assert convert(folders.root, *ORGANS, *SEG, "--label-map", "Milz:2") == 0
    source = read(folders.labels / "p2.seg.nrrd")
    assert np.array_equal(read(made(roots) / "labelsTr/p2.nii.gz") == 2, source == 1)


def test_names_of_values_that_do_not_occur_do_not_matter(tmp_path, roots):
    """TotalSegmentator writes the whole table of its task, whatever is in the file."""
    folders = make_named(tmp_path / "data", {**SPLEEN_FIRST, 3: "aorta", 117: "rib"}, ".nii.gz")
    assert convert(folders.root, *ORGANS) == 0


def test_a_label_map_against_a_name_is_refused(tmp_path, roots, capsys):
    folders = make_named(tmp_path / "data")
    assert convert(folders.root, *ORGANS, *SEG, "--label-map", "1:1,2:2") == 2
    error = capsys.readouterr().err
    assert "case p2: " in error
    assert "case p1: " not in error
    assert "the value 1 'spleen', which is 2 in the data set's labels, and --label-map" in error


def test_a_value_without_a_name_among_named_ones_is_refused(tmp_path, roots, capsys):
    folders = make_named(tmp_path / "data", {1: "liver"})
    assert convert(folders.root, *ORGANS, *SEG) == 2
    assert (
        "its header names 1 'liver', but not the value 2, which occurs" in capsys.readouterr().err
    )
    assert convert(folders.root, *ORGANS, *SEG, "--label-map", "1:1,2:2") == 0


def test_numbers_given_by_hand_must_not_hide_two_names_of_a_value(tmp_path, roots, capsys):
    folders = make_named(tmp_path / "data", {1: "Milz", 2: "Leber"})
    write_nrrd(organs(0), folders.labels / "p1.seg.nrrd", slicer({1: "Leber", 2: "Milz"}))
    write_nrrd(organs(2), folders.labels / "p3.seg.nrrd", slicer({1: "Leber", 2: "Milz"}))
    assert convert(folders.root, *ORGANS, *SEG, "--label-map", "1:1,2:2") == 2
    error = capsys.readouterr().err
    assert "1 is 'Leber' in p1, p3" in error
    assert "1 is 'Milz' in p2" in error
    assert "--label-map 'Leber:NEW,Milz:NEW'" in error
    assert convert(folders.root, *ORGANS, *SEG, "--label-map", "Leber:1,Milz:2") == 0


def test_regions_take_names_by_number_but_not_two_names_for_a_value(tmp_path, roots, capsys):
    labels = {
        "labels": {"background": 0, "all": [1, 2], "core": [2]},
        "regions_class_order": [1, 2],
    }
    json_file = tmp_path / "labels.json"
    json_file.write_text(json.dumps(labels))
    folders = make_named(tmp_path / "data", LIVER_FIRST)
    options = (*CT, *SEG, "--labels-json", str(json_file))
    assert convert(folders.root, *options) == 0
    write_nrrd(organs(1), folders.labels / "p2.seg.nrrd", slicer(SPLEEN_FIRST))
    assert convert(folders.root, *options, "--overwrite") == 2
    assert "give a value two names, or a name two values" in capsys.readouterr().err


def test_numbered_names_say_nothing(tmp_path, roots):
    """Slicer's own names for segments that nobody named."""
    folders = make_named(tmp_path / "data", {1: "Segment_1", 2: "Segment_2"})
    assert convert(folders.root, *ORGANS, *SEG) == 0


def test_files_that_say_nothing_beside_files_in_another_order_are_named(tmp_path, roots, capsys):
    folders = make_named(tmp_path / "data")
    write_nrrd(organs(2), folders.labels / "p3.seg.nrrd", {})
    assert convert(folders.root, *ORGANS, *SEG) == 0
    told = capsys.readouterr().out
    assert "1 cases do not say what their values mean and are read by number (p3)" in told
    assert "1 'spleen', 2 'liver'" in told


@pytest.mark.parametrize(
    "given", ["1", "liver", "liver:x", ":1", "1:1,1:2", "liver:1,LIVER:2", "9:9"]
)
def test_a_label_map_that_cannot_be_meant_is_refused(tmp_path, roots, capsys, given):
    folders = make_named(tmp_path / "data")
    assert convert(folders.root, *ORGANS, *SEG, "--label-map", given) == 2
    assert "--label-map" in capsys.readouterr().err


def test_labels_that_differ_in_nothing_that_counts_are_refused(tmp_path, roots, capsys):
    folders = make_named(tmp_path / "data")
    names = "background,liver,Li-ver,LIVER"
    assert convert(folders.root, *CT, *SEG, "--label-names", names) == 2
    assert "the labels 'liver' and 'LIVER' differ in upper case" in capsys.readouterr().err


def test_in_a_published_form_names_are_compared_and_move_nothing(download, roots, capsys):
    """LA has one label, 255 in the files. Another name for it is told, the background's is not."""
    write_nrrd(ball(0), download.label("AAAA"), slicer({255: "background"}), LA_SPACING)
    assert convert_la(download) == 2
    told = capsys.readouterr().err
    assert "case AAAA: " in told
    assert "its header names the value 255 'background', which is 0 in the data" in told
    layers = [ball(0, 1), ball(9, 1)]
    write_layers(layers, ["atrium", "wall"], download.label("AAAA"))
    assert convert_la(download) == 2
    told = capsys.readouterr().err
    assert "2 values a voxel; 1 expected: its segments lie in layers (atrium, wall)" in told
    write_nrrd(ball(0), download.label("AAAA"), slicer({255: "LA"}), LA_SPACING)
    assert convert_la(download, "--dry-run") == 0
    assert "names that no label of the data set has: AAAA (LA)" in capsys.readouterr().out
