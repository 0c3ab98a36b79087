"""One rule for one fact: planning and preprocessing refuse and accept what ``verify`` does."""

import shutil

import blosc2
import numpy as np
import pytest
import SimpleITK

from nnunet_semisup import parallel
from nnunet_semisup.cli import plan_and_preprocess, preprocess, verify
from nnunet_semisup.dataset_conversion.checking import raw_dataset as verify_dataset
from tests.helpers import make_raw_dataset, nnunet_folders, nnunet_in_process, write_image

SHAPE = (16, 14, 12)
CHANNELS, EMPTY = "--allow-constant-channels", "--allow-empty"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A raw data set of two channels, and all background work in this process."""
    folders = nnunet_folders(tmp_path, monkeypatch)
    monkeypatch.setattr(parallel, "_in_processes", parallel._in_this_process)
    monkeypatch.setattr(verify_dataset, "_faults_by_nnunet", lambda *_: [])
    made = make_raw_dataset(folders.raw, 504, "Rules", SHAPE, 3, 2, num_channels=2)
    with nnunet_in_process():
        yield made.folder


def code(command, *arguments):
    with pytest.raises(SystemExit) as end:
        command.main(list(arguments))
    return end.value.code


def plan(*extra, configurations=("--no_pp",)):
    return code(
        plan_and_preprocess,
        *("-d", "504", "-np", "1", "-npfp", "1", "--no_pbar"),
        *configurations,
        *extra,
    )


def fill(*names, value=0.0):
    """Replaces images by a single value."""

    def change(folder):
        for name in names:
            write_image(folder / name, np.full(SHAPE, value))

    return change


def empty_labels(*cases):
    def change(folder):
        for case in cases:
            write_image(folder / f"labelsTr/{case}.nii.gz", np.zeros(SHAPE, np.uint8))

    return change


def resize(name, dtype):
    """An image or label with one slice more."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (SHAPE[0] + 1, *SHAPE[1:])).astype(dtype)
    return lambda folder: write_image(folder / name, values)


def shift(name, voxels):
    """The origin of an image, whose voxels have edges of 1 mm."""

    def change(folder):
        image = SimpleITK.ReadImage(str(folder / name))
        image.SetOrigin((voxels, 0.0, 0.0))
        SimpleITK.WriteImage(image, str(folder / name))

    return change


UNL, LAB = "imagesUn/unl_001_000{}.nii.gz", "imagesTr/lab_001_000{}.nii.gz"
FACTS = {
    "zeros for a channel of an unlabeled scan": (fill(UNL.format(1)), CHANNELS),
    "a constant for a channel of a labeled scan": (fill(LAB.format(0), value=-7.0), CHANNELS),
    "an unlabeled scan that shows nothing": (fill(UNL.format(0), UNL.format(1)), None),
    "a labeled scan that shows nothing": (fill(LAB.format(0), LAB.format(1)), None),
    "an empty label": (empty_labels("lab_000"), EMPTY),
    "no label with foreground": (empty_labels("lab_000", "lab_001", "lab_002"), None),
    "a label of another size": (resize("labelsTr/lab_000.nii.gz", np.uint8), None),
    "channels of different sizes, unlabeled": (resize(UNL.format(1), np.float32), None),
    "channels of different sizes, labeled": (resize(LAB.format(1), np.float32), None),
    "channels half a voxel apart": (shift(UNL.format(1), 0.5), None),
    "channels a twentieth of a voxel apart": (shift(UNL.format(1), 0.05), ""),
}


@pytest.mark.parametrize("name", FACTS)
def test_commands_agree(made, name):
    """``option`` is what accepts the fact: nothing does, or nothing is needed."""
    spoil, option = FACTS[name]
    spoil(made)
    expected = 0 if option == "" else 2
    assert (code(verify, "504", "-np", "1"), plan()) == (expected, expected)
    extra = [option] if option else [CHANNELS, EMPTY]
    expected = 2 if option is None else 0
    assert (code(verify, "504", "-np", "1", *extra), plan(*extra)) == (expected, expected)


def test_a_channel_that_a_scan_lacks_is_preprocessed(made, tmp_path, capsys):
    """nnU-Net 2.8.1 normalises it to zeros: it divides by 1e-8 where the deviation is smaller."""
    fill(UNL.format(1))(made)
    preprocessed = tmp_path / "preprocessed" / made.name
    full = ("-c", "3d_fullres")
    assert plan(configurations=full) == 2
    error = capsys.readouterr().err
    assert "case unl_001: unl_001_0001.nii.gz: every voxel has the value 0; --allow-con" in error
    assert not preprocessed.exists()
    assert plan(CHANNELS, configurations=full) == 0
    assert "warning: case unl_001: unl_001_0001.nii.gz: every voxel" in capsys.readouterr().out
    folder = preprocessed / "nnUNetPlans_3d_fullres_unlabeled"
    image = blosc2.open(str(folder / "unl_001.b2nd"), mode="r")[:]
    assert image.shape[0] == 2
    assert image[0].std() > 0.5
    assert not image[1].any()
    shutil.rmtree(folder)
    (preprocessed / "nnUNetPlans_3d_fullres_unlabeled.json").unlink()
    arguments = ("-d", "504", *full, "-np", "0", "--no_pbar")
    assert code(preprocess, *arguments) == 2
    assert code(preprocess, *arguments, CHANNELS) == 0
    assert (folder / "unl_001.b2nd").is_file()


def test_scans_that_lack_one_sequence_are_no_copies_of_each_other(made, capsys):
    """Their first channels are equal voxel for voxel; the first that shows anything decides."""
    fill(LAB.format(0), UNL.format(0), UNL.format(0).replace("unl_001", "unl_000"))(made)
    assert code(verify, "504", "-np", "1", CHANNELS) == 0
    assert "hold the same image" not in capsys.readouterr().out
    shutil.copy(made / LAB.format(1), made / UNL.format(1))
    assert code(verify, "504", "-np", "1", CHANNELS) == 2
    text = "lab_001 (labeled) and unl_001 (unlabeled) hold the same image, voxel for voxel"
    assert text in capsys.readouterr().err


def test_what_a_conversion_accepted_needs_no_option_again(made):
    fill(UNL.format(1))(made)
    empty_labels("lab_000")(made)
    settings = '{"settings": {"allow_constant_channels": true, "allow_empty": true}}'
    (made / "conversion_report.json").write_text(settings)
    assert (code(verify, "504", "-np", "1"), plan()) == (0, 0)


def test_faults_of_labeled_and_unlabeled_cases_come_at_once(made, capsys):
    fill(UNL.format(1))(made)
    empty_labels("lab_000")(made)
    assert plan() == 2
    error = capsys.readouterr().err
    assert "case unl_001: " in error
    assert "case lab_000: " in error
    assert error.count("nothing was written") == 2
