"""Ranking of unlabeled scans by a trained model, and scans that became labeled."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.paths import nnUNet_raw

from nnunet_semisup.cli.rank import build_parser, main, rank
from nnunet_semisup.errors import UserError
from nnunet_semisup.scoring import ranking
from nnunet_semisup.scoring.voting import VotingPredictor
from tests.contract.conftest import KINDS
from tests.contract.predicting import SEQUENTIAL, contents

TRAINER = "nnUNetTrainerPseudoLabel"
SCANS = ["unl_000", "unl_001", "unl_002"]


@pytest.fixture
def two_folds(model):
    """A model whose two folds differ."""

    def make(kind):
        folder, _ = model(TRAINER, kind)
        shutil.copytree(folder / "fold_0", folder / "fold_1")
        file = folder / "fold_1" / "checkpoint_final.pth"
        checkpoint = torch.load(file, weights_only=False)
        generator = torch.Generator().manual_seed(5)
        for name, value in checkpoint["network_weights"].items():
            if "seg_layers" in name and name.endswith("weight"):
                value += 0.3 * torch.randn(value.shape, generator=generator)
        torch.save(checkpoint, file)
        return folder, KINDS[kind].number

    return make


def run(number, folder, output, *more, folds=("0", "1")):
    own = ("-d", str(number), "-m", str(folder), "-f", *folds, "-o", str(output), *SEQUENTIAL)
    rank(build_parser().parse_args([*own, *more]))
    return output


def rows(output):
    with (output / "ranking.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["labels3d", "regions3d", "labels2d"])
def test_every_unlabeled_scan_gets_its_places_and_scores(two_folds, kind, tmp_path):
    folder, number = two_folds(kind)
    output = run(number, folder, tmp_path / "ranked", "--overlays", "2")
    found = rows(output)
    assert sorted(row["case"] for row in found) == SCANS
    for order in ("stratified", "entropy", "disagreement", "foreground", "random"):
        assert sorted(row[f"place_{order}"] for row in found) == ["1", "2", "3"]
    assert [row["place_stratified"] for row in found] == ["1", "2", "3"]
    assert all(0 < float(row["entropy"]) < 1 for row in found)
    names = ["whole", "core"] if kind == "regions3d" else ["a", "b"]
    voted = [json.loads((output / "scores" / f"{c}.json").read_text()) for c in SCANS]
    for one in voted:
        assert one["votes"] == 2
        assert list(one["entropy"]) == names
    assert any(value for one in voted for value in one["disagreement"].values())
    drawn = sorted(path.stem for path in (output / "overlays").glob("*.png"))
    assert drawn == sorted(row["case"] for row in found[:2])
    maps = list((output / "uncertainty").iterdir())
    assert len(maps) == 3


def test_the_label_is_that_of_the_mean_probability(two_folds, tmp_path):
    """Each fold predicted alone by nnU-Net's own predictor, and averaged here."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder, number = two_folds("labels3d")
    output = run(number, folder, tmp_path / "ranked")
    images = Path(str(nnUNet_raw), "Dataset801_labels3d", "imagesUn")
    mean = 0.0
    for fold in (0, 1):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (fold,), "checkpoint_final.pth")
        target = tmp_path / f"alone{fold}"
        target.mkdir()
        predictor.predict_from_files_sequential(str(images), str(target), save_probabilities=True)
        mean = mean + np.load(target / "unl_000.npz")["probabilities"] / 2
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(output / "unl_000.nii.gz")))
    assert (found == mean.argmax(0)).mean() > 0.999
    unsure = SimpleITK.ReadImage(str(output / "uncertainty" / "unl_000.nii.gz"))
    expected = -(mean * np.log(mean)).sum(0) / np.log(3)
    assert np.abs(SimpleITK.GetArrayFromImage(unsure) - expected).max() < 0.02


def test_one_fold_lets_its_mirrored_images_vote(two_folds, tmp_path):
    folder, number = two_folds("labels3d")
    output = run(number, folder, tmp_path / "ranked", folds=("0",))
    assert json.loads((output / "scores" / "unl_000.json").read_text())["votes"] == 8
    alone = run(number, folder, tmp_path / "alone", "--disable_tta", folds=("0",))
    assert json.loads((alone / "scores" / "unl_000.json").read_text())["votes"] == 1
    assert all(row["disagreement"] == "" for row in rows(alone))


def test_a_ranking_goes_on_where_it_was_killed(two_folds, tmp_path):
    folder, number = two_folds("labels3d")
    output = tmp_path / "ranked"
    output.mkdir()
    (output / ".ranked_with_x.json").touch()  # of a command that was killed at its first file
    run(number, folder, output)
    before = contents(output)
    kept = (output / "unl_000.nii.gz").stat().st_mtime_ns
    (output / "scores" / "unl_001.json").unlink()
    (output / "unl_002.nii.gz").unlink()
    (output / "ranking.csv").unlink()
    run(number, folder, output)
    assert (output / "unl_000.nii.gz").stat().st_mtime_ns == kept
    assert contents(output) == before


def test_changes_since_an_earlier_round_are_scored(two_folds, tmp_path):
    folder, number = two_folds("labels3d")
    first = run(number, folder, tmp_path / "first", folds=("0",))
    assert all(row["changed_since_round_before"] == "" for row in rows(first))
    second = run(number, folder, tmp_path / "second", "--before", str(first))
    for row in rows(second):
        arrays = [
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(o / f"{row['case']}.nii.gz")))
            for o in (first, second)
        ]
        changed = np.count_nonzero(arrays[0] != arrays[1]) / max(np.count_nonzero(arrays[1]), 1)
        assert float(row["changed_since_round_before"]) == pytest.approx(changed, rel=1e-4)


def test_labels_of_validation_cases_are_not_looked_at(two_folds, monkeypatch, tmp_path):
    folder, number = two_folds("labels3d")
    looked = []
    measure = ranking.labeled_shapes
    monkeypatch.setattr(
        ranking,
        "labeled_shapes",
        lambda labels, *rest: looked.extend(labels) or measure(labels, *rest),
    )
    run(number, folder, tmp_path / "ranked", folds=("0",))
    assert sorted(path.name for path in looked) == ["lab_000.nii.gz", "lab_001.nii.gz"]


def test_predictions_of_another_model_are_refused_and_kept(two_folds, tmp_path):
    folder, number = two_folds("labels3d")
    output = run(number, folder, tmp_path / "ranked")
    before = contents(output)
    with pytest.raises(UserError, match="predictions of another model"):
        run(number, folder, output, folds=("0",))
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        run(number, folder, strange)
    assert contents(output) == before


def test_what_does_not_fit_is_told_at_once(capsys):
    wrong = ["-step_size", "3", "--overlays", "-1", "--before", "nowhere", "-part_id", "1"]
    with pytest.raises(SystemExit) as error:
        main(["-d", "801", *wrong])
    assert error.value.code == 2
    told = capsys.readouterr().err
    faults = ("-step_size 3", "-o:", "-c:", "--before", "--overlays -1", "-part_id 1")
    assert all(fault in told for fault in faults)


def contents_of(output):
    """Return the files without nnU-Net's record, which names the folder."""
    found = contents(output)
    del found["predict_from_raw_data_args.json"]
    return found


def test_parts_make_what_the_whole_keeps(two_folds, monkeypatch, tmp_path):
    folder, number = two_folds("labels3d")
    expected = contents_of(run(number, folder, tmp_path / "whole"))
    output = tmp_path / "parts"
    for part, cases in enumerate((SCANS[::2], SCANS[1::2])):
        run(number, folder, output, "-num_parts", "2", "-part_id", str(part))
        there = {path.stem for path in (output / "scores").iterdir()}
        assert there == {*SCANS[::2], *cases}
        assert not (output / "ranking.csv").exists()
    monkeypatch.setattr(
        VotingPredictor, "predict_logits_from_preprocessed_data", lambda *_: pytest.fail("again")
    )
    assert contents_of(run(number, folder, output)) == expected
    assert [path.name for path in tmp_path.glob("*.lock")] == []


def test_a_scan_that_was_replaced_is_predicted_anew(two_folds, tmp_path):
    folder, number = two_folds("labels3d")
    output = run(number, folder, tmp_path / "ranked")
    made = {case: (output / f"{case}.nii.gz").stat().st_mtime_ns for case in SCANS}
    (image,) = Path(str(nnUNet_raw)).glob(f"Dataset{number}_*/imagesUn/unl_001_0000.nii.gz")
    later = (output / "scores" / "unl_001.json").stat().st_mtime + 5
    before = image.stat()
    try:
        os.utime(image, (later, later))
        run(number, folder, output)
    finally:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = {case: (output / f"{case}.nii.gz").stat().st_mtime_ns for case in SCANS}
    assert [case for case in SCANS if again[case] != made[case]] == ["unl_001"]


def test_predictions_of_another_step_size_are_refused(two_folds, tmp_path):
    folder, number = two_folds("labels3d")
    output = run(number, folder, tmp_path / "ranked", "-step_size", "1")
    with pytest.raises(UserError, match="predictions of another model"):
        run(number, folder, output)
