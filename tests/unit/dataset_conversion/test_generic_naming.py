"""Four digits at the end of a name: a channel or part of the case, decided once for all folders."""

import shutil

import pytest

from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.generic.files import Digits, Naming, images_in
from tests.unit.dataset_conversion.trees import texture
from tests.unit.dataset_conversion.trees_generic import (
    WHAT,
    convert,
    made,
    mask,
    names,
    scan,
    write,
)

CASES = ["p1", "p2", "p3"]
SLICE = (40, 48)
SLICES = [f"p{patient}_{number:04d}" for patient in (7, 8) for number in range(5)]
TWO = ("--label-names", "background,organ", "--channel-names", "T1,T2")


@pytest.fixture(autouse=True)
def plain(no_search):
    """Names alone are tested."""


@pytest.fixture
def tree(tmp_path):
    """A raw data set of nnU-Net with three cases of two channels."""
    root = tmp_path / "raw_data"
    for seed, case in enumerate(CASES):
        for channel in (0, 1):
            write(scan(seed + 10 * channel), root / "imagesTr" / f"{case}_000{channel}.nii.gz")
        write(mask(seed), root / "labelsTr" / f"{case}.nii.gz")
    return root


def single(root):
    """Leave one channel."""
    for path in (root / "imagesTr").glob("*_0001.nii.gz"):
        path.unlink()


@pytest.mark.parametrize("folder", ["imagesUn", "imagesTs"])
@pytest.mark.parametrize("channels", [1, 2])
def test_one_image_in_a_folder_without_labels(roots, tree, folder, channels):
    if channels == 1:
        single(tree)
    for channel in range(channels):
        write(scan(5 + channel), tree / folder / f"u0_000{channel}.nii.gz")
    more = ("--labeled", "2")
    assert convert(tree, *(TWO if channels == 2 else WHAT), *more) == 0
    assert [name for name in names(made(roots) / folder) if name[0] == "u"] == [
        f"u0_000{channel}" for channel in range(channels)
    ]


def test_further_slices_are_a_case_each(roots, tmp_path):
    root = tmp_path / "slices"
    for seed, case in enumerate(["p1_0000", "p1_0001", "p2_0000"]):
        write(texture(seed, SLICE), root / "images" / f"{case}.png")
        write(mask(seed, 1, SLICE), root / "labels" / f"{case}.png")
    for seed, case in enumerate(SLICES):
        write(texture(20 + seed, SLICE), tmp_path / "more" / f"{case}.png")
    assert convert(root, *WHAT, "--extra-unlabeled", str(tmp_path / "more")) == 0
    assert names(made(roots) / "imagesUn") == [f"{case}_0000" for case in SLICES]


def test_images_without_a_number_beside_numbered_ones(roots, tree):
    single(tree)
    write(scan(5), tree / "imagesUn" / "u0.nii.gz")
    write(scan(6), tree / "imagesUn" / "u1_0000.nii.gz")
    assert convert(tree, *WHAT) == 0
    assert names(made(roots) / "imagesUn") == ["u0_0000", "u1_0000"]


def test_labels_of_a_folder_decide_before_the_training_images(roots, tree):
    single(tree)
    for seed, case in enumerate(["t_0000", "t_0001"]):
        write(scan(5 + seed), tree / "imagesTs" / f"{case}.nii.gz")
        write(mask(5 + seed), tree / "labelsTs" / f"{case}.nii.gz")
    assert convert(tree, *WHAT, "--labeled", "2") == 0
    assert names(made(roots) / "labelsTs") == ["t_0000", "t_0001"]


OTHERS = {
    "channels as in training": (Digits.CHANNEL, ["u0_0000", "u0_0001"], {"u0": 2}),
    "no first channel anywhere": (Digits.CHANNEL, ["u_0003", "u_0004"], {"u_0003": 1, "u_0004": 1}),
    "part of the name": (Digits.NAME, ["u0_0000", "u1_0000"], {"u0_0000": 1, "u1_0000": 1}),
    "all are 0000": (Digits.ABSENT, ["u0_0000"], {"u0": 1}),
    "slices": (Digits.ABSENT, ["u0_0000", "u0_0001"], {"u0_0000": 1, "u0_0001": 1}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_folder_without_labels_follows_the_training_images(tmp_path, name):
    digits, stems, expected = OTHERS[name]
    for stem in stems:
        (tmp_path / f"{stem}.nii.gz").touch()
    findings = Findings()
    images = images_in(tmp_path, Naming(digits=digits), (), findings)
    assert {case: len(files) for case, files in images.items()} == expected
    assert findings == Findings()


def test_training_images_settle_it(tmp_path):
    for digits, stems in (
        (Digits.CHANNEL, ["p1_0000", "p2_0000"]),
        (Digits.NAME, ["p_0000", "p_0001"]),
        (Digits.ABSENT, ["p1", "p2"]),
    ):
        folder = tmp_path / digits.name
        folder.mkdir()
        for stem in stems:
            (folder / f"{stem}.nii.gz").touch()
        assert Naming().settled(folder, ()).digits is digits
        shutil.rmtree(folder)
