"""nnU-Net's fingerprint counts the ignore label; ours does not, and the plan is nnU-Net's else."""

import json
import pickle

import numpy as np
import pytest
import SimpleITK
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor as stock
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiments,
)

from nnunet_semisup import parallel
from nnunet_semisup.cli import plan_and_preprocess
from nnunet_semisup.preparation.fingerprint import (
    _readers_without,
    ignored_share,
    leaves_ignored_out,
)
from tests.helpers import make_raw_dataset, nnunet_folders, nnunet_in_process

LABELS = {"background": 0, "blob": 1, "ignore": 2}
OPTION = "--ignore-aware-fingerprint"
INTENSITIES = "foreground_intensity_properties_per_channel"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """nnU-Net's folders, and all background work in this process."""
    monkeypatch.setattr(parallel, "_in_processes", parallel._in_this_process)
    with nnunet_in_process():
        yield nnunet_folders(tmp_path, monkeypatch)


@pytest.fixture
def made(folders):
    """CT scans in which a slab has the ignore label, of 1,000 more Hounsfield units."""
    raw = make_raw_dataset(
        folders.raw, 505, "Ignored", (16, 16, 16), 2, 1, labels=LABELS, channel_name="CT"
    )
    for case in raw.labeled:
        path = str(raw.folder / "imagesTr" / f"{case}_0000.nii.gz")
        image = SimpleITK.ReadImage(path)
        label = SimpleITK.ReadImage(str(raw.folder / "labelsTr" / f"{case}.nii.gz"))
        SimpleITK.WriteImage(image + SimpleITK.Cast(label == 2, image.GetPixelID()) * 1000, path)
    return raw


def plan(*extra):
    arguments = ["-d", "505", "-np", "1", "-npfp", "1", "--no_pbar", "--no_pp", *extra]
    with pytest.raises(SystemExit) as end:
        plan_and_preprocess.main(arguments)
    return end.value.code


def content(folders, made, name="dataset_fingerprint.json"):
    return json.loads((folders.preprocessed / made.name / name).read_text(encoding="utf-8"))


def test_the_share_is_that_of_the_samples_of_nnunet():
    """nnU-Net 2.8.1 draws from every voxel above 0: 719 of 1,000 samples of this case."""
    label = np.zeros((1, 10, 10, 10), np.int8)
    label[0, :2] = 1
    label[0, 5:] = 2
    image = (label == 2).astype(np.float32)
    extractor = stock.DatasetFingerprintExtractor
    (samples,), _ = extractor.collect_foreground_intensities(label, image, num_samples=1000)
    assert samples.sum() == 719
    share = ignored_share([{0: 300, 1: 200, 2: 500}], 2)
    assert share == 500 / 700
    assert abs(share - samples.mean()) < 0.02


def test_cases_count_equally_and_those_without_labels_not_at_all():
    cases = [{0: 9, 1: 1, 3: 3}, {0: 9, 1: 100}, {0: 9}]
    assert ignored_share(cases, 3) == 0.375
    assert ignored_share([{0: 9}], 3) == 0.0


def test_planning_warns_with_the_share_and_changes_nothing(folders, made, capsys):
    assert plan() == 0
    out = capsys.readouterr().out
    assert "% of the voxels that nnU-Net takes for foreground in the fingerprint of Data" in out
    assert "--ignore-aware-fingerprint leaves them out" in out
    written = content(folders, made)
    assert written[INTENSITIES]["0"]["max"] > 1000
    extract_fingerprint_dataset(505, num_processes=1, clean=True, verbose=False)
    assert content(folders, made) == written


def test_with_the_option_it_is_that_of_labels_without_ignored_voxels(folders, made, capsys):
    assert plan(OPTION) == 0
    assert "takes for foreground" not in capsys.readouterr().out
    ours, plans = content(folders, made), content(folders, made, "nnUNetPlans.json")
    assert ours.pop("without_ignore_label") == 2
    for case in made.labeled:
        path = str(made.folder / "labelsTr" / f"{case}.nii.gz")
        label = SimpleITK.ReadImage(path)
        SimpleITK.WriteImage(label * SimpleITK.Cast(label != 2, label.GetPixelID()), path)
    extract_fingerprint_dataset(505, num_processes=1, clean=True, verbose=False)
    assert content(folders, made) == ours
    assert ours[INTENSITIES]["0"]["max"] < 10
    plan_experiments([505])
    assert content(folders, made, "nnUNetPlans.json") == plans


def test_a_fingerprint_that_counts_them_is_made_anew(folders, made, capsys):
    assert plan() == 0
    place = folders.preprocessed / made.name / "dataset_fingerprint.json"
    assert not leaves_ignored_out(place)
    assert plan(OPTION) == 0
    assert leaves_ignored_out(place)
    first = place.stat().st_mtime_ns
    assert plan(OPTION) == 0
    assert place.stat().st_mtime_ns == first
    capsys.readouterr()
    assert plan() == 0
    assert "leaves voxels with the ignore label out and is kept; --clean" in capsys.readouterr().out
    assert place.stat().st_mtime_ns == first
    assert plan("--clean") == 0
    assert not leaves_ignored_out(place)


def test_without_an_ignore_label_the_option_changes_nothing(folders, capsys):
    made = make_raw_dataset(folders.raw, 505, "Plain", (16, 16, 16), 2, 1)
    assert plan() == 0
    before = content(folders, made)
    assert plan(OPTION, "--clean") == 0
    assert content(folders, made) == before
    assert "takes for foreground" not in capsys.readouterr().out


def test_it_takes_the_place_of_another_extractor(folders, made, capsys):
    assert plan(OPTION, "-fpe", "ExperimentPlanner") == 2
    assert "are two ways to extract the fingerprint" in capsys.readouterr().err
    assert not (folders.preprocessed / made.name).exists()


def test_readers_reach_the_processes_of_nnunet(folders, made):
    """It sends them to spawned processes; its own reader comes back afterwards."""
    choose = stock.determine_reader_writer_from_dataset_json
    path = str(made.folder / "labelsTr" / "lab_000.nii.gz")
    with _readers_without(2):
        chosen = stock.determine_reader_writer_from_dataset_json(
            {"file_ending": ".nii.gz"}, verbose=False
        )
    reader = pickle.loads(pickle.dumps(chosen))()
    assert stock.determine_reader_writer_from_dataset_json is choose
    assert set(np.unique(reader.read_seg(path)[0])) == {0, 1}
