import json

import pytest

from tests.unit.dataset_conversion.trees import texture
from tests.unit.dataset_conversion.trees_generic import convert, make_folders, mask, scan, write

SLICE = (40, 48)
PNG = {
    "train-label": ["a_1", "a_2"],
    "train-unlabel": ["b_1", "b_2"],
    "val": ["c_1"],
    "test": ["d_1"],
}


@pytest.fixture
def png(tmp_path):
    """The tree of VQ-Seg: slices as pictures, masks everywhere."""
    root = tmp_path / "png"
    seed = 0
    for folder, cases in PNG.items():
        for case in cases:
            seed += 1
            write(texture(seed, SLICE), root / folder / "image" / f"{case}.png")
            write(mask(seed, 255, SLICE), root / folder / "mask" / f"{case}.png")
    return root


def run(root, *extra):
    return convert(root, *extra, command="lc")


def made(roots):
    return roots["raw"] / "Dataset501_LC"


def names(folder):
    return sorted(path.name.split(".")[0] for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def scans(tmp_path):
    root = tmp_path / "scans"
    for seed in range(10):
        write(scan(seed), root / "images" / f"s{seed}.nii.gz")
        write(mask(seed), root / "masks" / f"s{seed}.nii.gz")
    return root


def test_png_tree(roots, png, capsys):
    assert run(png, "--label-map", "255:1") == 0
    out = capsys.readouterr().out
    assert "NOT comparable" in out
    assert "there are 6 cases; the paper names 828" in out
    assert names(made(roots) / "imagesTr") == ["a_1_0000", "a_2_0000", "c_1_0000"]
    assert names(made(roots) / "imagesUn") == ["b_1_0000", "b_2_0000"]
    assert names(made(roots) / "labelsTs") == ["d_1"]
    assert not (made(roots) / "labelsUn").exists()
    content = json.loads((made(roots) / "dataset.json").read_text(encoding="utf-8"))
    assert content["channel_names"] == {"0": "zscore"}, "8-bit pictures are not Hounsfield units"
    assert content["labels"] == {"background": 0, "carcinoma": 1}
    assert "assumed" in content["description"]
    splits = json.loads((made(roots) / "splits_final.json").read_text(encoding="utf-8"))
    assert splits == [{"train": ["a_1", "a_2"], "val": ["c_1"]}]


def test_numbered_slices_are_a_case_each_in_every_folder(roots, png, tmp_path):
    """Only the folders with masks tell that the numbers are no channels."""
    for folder, cases in PNG.items():
        for kind in ("image", "mask"):
            for case in cases:
                path = png / folder / kind / f"{case}.png"
                path.rename(path.with_name(f"{case[0]}_{int(case[2]) - 1:04d}.png"))
    for number in range(3):
        write(texture(9 + number, SLICE), tmp_path / "more" / f"z_{number:04d}.png")
        write(texture(19 + number, SLICE), tmp_path / "more" / f"y_{number:04d}.png")
    more = ("--extra-unlabeled", str(tmp_path / "more"))
    assert run(png, "--label-map", "255:1", *more) == 0
    further = [f"{patient}_{number:04d}_0000" for patient in "yz" for number in range(3)]
    assert names(made(roots) / "imagesUn") == ["b_0000_0000", "b_0001_0000", *further]
    assert names(made(roots) / "imagesTs") == ["d_0000_0000"]


def test_further_slices_without_a_mask(roots, png, tmp_path):
    write(texture(9, SLICE), tmp_path / "more" / "z_1.png")
    more = ("--extra-unlabeled", str(tmp_path / "more"))
    assert run(png, "--label-map", "255:1", *more) == 0
    assert "z_1_0000" in names(made(roots) / "imagesUn")


def test_hidden_masks_are_read_on_request_only(roots, png):
    for path in (png / "train-unlabel" / "mask").iterdir():
        path.write_bytes(b"not a mask")
    assert run(png, "--label-map", "255:1") == 0
    assert run(png, "--label-map", "255:1", "--keep-hidden-labels", "--overwrite") == 2


def test_slices_of_a_patient_stay_in_one_folder(roots, png, capsys):
    for kind in ("image", "mask"):
        (png / "train-label" / kind / "a_2.png").rename(png / "test" / kind / "a_2.png")
    assert run(png, "--label-map", "255:1") == 2
    assert "a is in train-label and test" in capsys.readouterr().err
    assert run(png, "--label-map", "255:1", "--group-regex", ".+") == 0


def test_values_of_masks_must_be_said(roots, png, capsys):
    assert run(png) == 2
    assert "--label-map 255:1" in capsys.readouterr().err


def test_split_must_be_said(roots, scans, capsys):
    assert run(scans) == 2
    assert "no split of LC is published" in capsys.readouterr().err


def test_seeded_split_is_by_patient(roots, scans, capsys):
    extra = ("--split", "seed:42", "--labeled", "2", "--group-regex", "s(.)")
    assert run(scans, *extra) == 0
    count = {f: len(names(made(roots) / f)) for f in ("imagesTr", "imagesUn", "imagesTs")}
    assert count == {"imagesTr": 3, "imagesUn": 5, "imagesTs": 2}
    first = json.loads((made(roots) / "dataset.json").read_text(encoding="utf-8"))
    assert first["channel_names"] == {"0": "CT"}
    assert run(scans, *extra, "--overwrite") == 0
    assert json.loads((made(roots) / "dataset.json").read_text(encoding="utf-8")) == first
    assert run(scans, "--split", "seed:43", "--labeled", "2", "--overwrite") == 0
    other = json.loads((made(roots) / "dataset.json").read_text(encoding="utf-8"))
    assert other["semisup"]["labeled_order"] != first["semisup"]["labeled_order"]


def test_user_s_split(roots, tmp_path):
    root = make_folders(tmp_path / "data").root
    split = {"labeled": ["p1"], "unlabeled": ["p4", "p5"], "validation": ["p2"], "test": ["p3"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert run(root, "--split", str(tmp_path / "split.json")) == 0
    assert names(made(roots) / "labelsTs") == ["p3"]


def test_case_folders_by_their_usual_names(roots, tmp_path):
    root = tmp_path / "cases"
    for seed in range(4):
        write(scan(seed), root / f"s{seed}" / ("ct.nii.gz" if seed else "image.nrrd"))
        write(mask(seed), root / f"s{seed}" / ("mask.nii.gz" if seed else "seg.nrrd"))
    assert run(root, "--split", "seed:1", "--labeled", "1") == 0
    assert len(names(made(roots) / "imagesUn")) == 1
