"""Rounds from the first label to the last model, killed and stopped; with a stand-in."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.cli.rounds import main
from nnunet_semisup.dataset_conversion.checking.raw_dataset import verify_dataset
from nnunet_semisup.preparation.raw import DatasetFolders
from nnunet_semisup.rounds.commands import StepFailedError
from nnunet_semisup.rounds.course import run_rounds
from nnunet_semisup.rounds.design import Layout, read_design
from nnunet_semisup.rounds.report import verdict
from nnunet_semisup.rounds.results import Round, Validation, read_rounds, status
from tests.helpers import nnunet_folders
from tests.unit.rounds.shared import files, planned, stand_in


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two rounds made at one go, and the user's folders before them."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, stand_in():
        folders = nnunet_folders(root, patch)
        layout = planned(root, folders, fine_tune=4)
        before = {name: files(getattr(folders, name)) for name in ("raw", "preprocessed")}
        model = run_rounds(layout)
        after = {name: files(getattr(folders, name)) for name in ("raw", "preprocessed")}
    return layout, model, before, after


def read(path):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def test_the_users_data_set_is_only_read(whole):
    layout, _, before, after = whole
    assert after == before
    assert read_design(layout).rounds == 2


def test_images_are_links_and_labels_have_marks(whole):
    layout = whole[0]
    design = read_design(layout)
    round_ = layout.round(design, 2)
    report = json.loads((round_.raw / "conversion_report.json").read_text())
    kept = [c for c, one in report["cases"].items() if one["label"]["origin"] == "predicted"]
    assert len(kept) == 3  # of 5 the worst 30 % were dropped, rounded up
    assert sorted(report["dropped"]) == sorted({f"unl_00{i}" for i in range(5)} - set(kept))
    for case in kept:
        name = f"{case}_0000.nii.gz"
        source = design.raw_folder / "imagesUn" / name
        assert os.path.samefile(round_.raw / "imagesTr" / name, source)
        label = read(round_.raw / "labelsTr" / f"{case}.nii.gz")
        predicted = read(round_.labels / f"{case}.nii.gz")
        unsure = read(round_.labels / "uncertainty" / f"{case}.nii.gz")
        limit = -(0.8 * np.log2(0.8) + 0.2 * np.log2(0.2))
        np.testing.assert_array_equal(label, np.where(unsure > limit, 2, predicted))
        told = report["cases"][case]["label"]
        assert told["ignored"] == pytest.approx((label == 2).mean())
        assert told["label_voxels"]["2"] == (label == 2).sum()
        assert told["score"] is not None
    for case in ("lab_000", "lab_003"):
        assert report["cases"][case]["label"] == {"origin": "annotated"}
        name = f"{case}.nii.gz"
        assert os.path.samefile(
            round_.raw / "labelsTr" / name, design.raw_folder / "labelsTr" / name
        )
    assert report["labels_predicted_by"]["model"].startswith(str(layout.round(design, 1).folder))
    assert set(report["files"]) | {"conversion_report.json"} == set(files(round_.raw))


def test_the_data_set_passes_the_checks_of_verify(whole):
    """Its predicted labels are labels like others; nothing in the files is out of order."""
    layout = whole[0]
    round_ = layout.round(read_design(layout), 2)
    content = json.loads((round_.raw / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "blob": 1, "ignore": 2}
    assert content["numTraining"] == 7
    verified = verify_dataset(DatasetFolders(round_.dataset, round_.raw, round_.preprocessed))
    assert verified.findings.faults == []


def test_labeled_scans_are_drawn_for_half_of_the_patches(whole):
    layout = whole[0]
    round_ = layout.round(read_design(layout), 1)
    first, second, *alone = json.loads((round_.preprocessed / "splits_final.json").read_text())
    for fold, labeled, val in ((first, 3, "lab_003"), (second, 3, "lab_000")):
        drawn = [case.startswith("lab") for case in fold["train"]]
        assert (sum(drawn), len(drawn)) == (labeled, 6)
        assert fold["val"] == [val]
    assert alone == [
        {"train": ["lab_000", "lab_001", "lab_002"], "val": ["lab_003"]},
        {"train": ["lab_001", "lab_002", "lab_003"], "val": ["lab_000"]},
    ]


def test_each_round_is_labeled_by_the_one_before_after_fine_tuning(whole):
    layout, model, *_ = whole
    design = read_design(layout)
    first, second = layout.round(design, 1), layout.round(design, 2)
    words = json.loads((second.folder / "steps" / "label.json").read_text())["command"].split()
    assert words[words.index("-m") + 1] == str(first.model(design, "nnUNetTrainerSupervised"))
    assert words[words.index("-f") + 1 : words.index("-chk")] == ["2", "3"]
    assert words[words.index("--before") + 1] == str(first.labels)
    tuned = json.loads((first.folder / "steps" / "train_2.json").read_text())
    assert "-pretrained_weights" in tuned["command"]
    assert "num_iterations_per_epoch=4" in tuned["environment"]["nnUNet_semisup_set"]
    assert (model.folder, model.folds) == (second.model(design, "nnUNetTrainerSupervised"), (2, 3))


def test_status_tells_scans_and_dice(whole):
    layout = whole[0]
    design = read_design(layout)
    rounds = read_rounds(layout, design)
    assert [one.state for one in rounds] == ["given", "finished", "finished"]
    assert rounds[1].validation.mean == pytest.approx(0.75)  # folds 2 and 3 of the stand-in
    assert rounds[1].choice.changed is None
    assert 0 < rounds[2].choice.changed < 1
    told = status(layout, design).splitlines()
    assert told[-1].split()[:4] == ["2", "finished", "3", "2"]


def start(run):
    """Call a function in a forked process, which has all imports; return its id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    code = 1
    try:
        with stand_in():
            run()
            code = 0
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code)


def code_of(process):
    """Wait for a process, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "ended before"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_killed_at_five_random_moments_they_end_with_the_same_labels(whole, tmp_path, monkeypatch):
    """Two times the commands it started are killed along, three times they are left alone."""
    layout = planned(tmp_path, nnunet_folders(tmp_path, monkeypatch), fine_tune=4)
    draw = random.Random(0)
    steps = [("round_1", "label"), ("round_1", "preprocess"), ("round_1", "train_1")]
    steps += [("round_2", "label"), ("round_2", "train_2")]
    for killed, (round_name, name) in enumerate(steps):
        step = f"{round_name}/steps/{name}.json"
        process = start(lambda: run_rounds(layout))
        wait_for(layout.folder / step, process)
        time.sleep(draw.uniform(0, 0.15))
        (os.killpg if killed % 2 else os.kill)(process, signal.SIGKILL)
        assert code_of(process) == -signal.SIGKILL
    assert code_of(start(lambda: run_rounds(layout))) == 0
    design, expected = read_design(layout), whole[0]
    for number in (1, 2):
        mine, theirs = (one.round(design, number) for one in (layout, expected))
        for folder in ("labelsTr", "imagesTr"):
            assert files(mine.raw / folder) == files(theirs.raw / folder)
        assert mine.choice.read_bytes() == theirs.choice.read_bytes()
        assert not (mine.folder / ".nnUNet_raw").exists()
    for log in layout.folder.rglob("epochs.txt"):
        epochs = [int(line) for line in log.read_text().split()]
        assert epochs == sorted(epochs), "a training began anew, or ran twice at a time"


def test_a_stopped_command_says_so_and_goes_on(tmp_path, monkeypatch, capfd):
    layout = planned(tmp_path, nnunet_folders(tmp_path, monkeypatch), rounds=1)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    trained = layout.folder / "round_1/steps/train_0.json"
    process = start(lambda: main(["run", str(layout.folder)]))
    wait_for(trained, process)
    os.kill(process, signal.SIGTERM)
    assert code_of(process) == 143
    assert "the same command goes on" in capfd.readouterr().err
    assert read_rounds(layout, read_design(layout))[1].state == "at train_0"
    with stand_in(), pytest.raises(SystemExit) as end:
        main(["run", str(layout.folder)])
    assert end.value.code == 0
    assert json.loads(trained.read_text())["attempts"] == 2
    assert "nnUNetv2_semisup_predict -m" in capfd.readouterr().out


def test_a_command_that_fails_ends_the_run_and_can_be_repeated(tmp_path, monkeypatch):
    layout = planned(tmp_path, nnunet_folders(tmp_path, monkeypatch), rounds=1, settings="seed=13")
    with stand_in(), pytest.raises(StepFailedError, match="this training fails"):
        run_rounds(layout)
    design = layout.design.read_text().replace("seed=13", "")
    layout.design.write_text(design)
    with stand_in():
        assert run_rounds(layout).folds == (0, 1)


def test_rounds_end_where_labels_do_not_change(tmp_path, monkeypatch):
    layout = planned(tmp_path, nnunet_folders(tmp_path, monkeypatch), rounds=3, converged=1.0)
    with stand_in():
        model = run_rounds(layout)
    design = read_design(layout)
    assert model.folder == layout.round(design, 1).model(design, design.trainer)
    assert [one.state for one in read_rounds(layout, design)] == [
        *("given", "finished", "converged", "waiting")
    ]


def test_a_method_for_unlabeled_scans_gets_all_of_them(tmp_path, monkeypatch):
    folders = nnunet_folders(tmp_path, monkeypatch)
    layout = planned(tmp_path, folders, rounds=1, trainer="nnUNetTrainerPseudoLabel")
    with stand_in():
        run_rounds(layout)
    design = read_design(layout)
    round_ = layout.round(design, 1)
    verified = verify_dataset(DatasetFolders(round_.dataset, round_.raw, round_.preprocessed))
    assert verified.findings.faults == []
    names = sorted(path.name for path in (round_.raw / "imagesUn").iterdir())
    assert names == [f"unl_00{i}_unlabeled_0000.nii.gz" for i in range(5)]
    assert (round_.folder / "steps" / "preprocess_unlabeled.json").is_file()


def test_without_the_filter_everything_is_kept(tmp_path, monkeypatch):
    layout = planned(
        tmp_path, nnunet_folders(tmp_path, monkeypatch), rounds=1,
        drop=0.0, size_limit=0.0, confidence=0.0, labeled_share=0.0,
    )  # fmt: skip
    with stand_in():
        run_rounds(layout)
    round_ = Layout(layout.folder).round(read_design(layout), 1)
    content = json.loads((round_.raw / "dataset.json").read_text())
    assert "ignore" not in content["labels"]
    for i in range(5):
        name = f"unl_00{i}.nii.gz"
        np.testing.assert_array_equal(
            read(round_.raw / "labelsTr" / name), read(round_.labels / name)
        )
    train = json.loads((round_.raw / "splits_final.json").read_text())[0]["train"]
    assert len(train) == len(set(train)) == 8


def test_regions_get_an_ignore_label_above_their_values(tmp_path, monkeypatch):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    folders = nnunet_folders(tmp_path, monkeypatch)
    layout = planned(tmp_path, folders, labels=labels, rounds=1)
    said = {"lab_001": ["whole"], "of_no_fold": ["core"]}
    (read_design(layout).raw_folder / "labeled_classes.json").write_text(json.dumps(said))
    with stand_in():
        run_rounds(layout)
    round_ = layout.round(read_design(layout), 1)
    own = json.loads((round_.raw / "labeled_classes.json").read_text())
    assert own == {"lab_001": ["whole"]}
    content = json.loads((round_.raw / "dataset.json").read_text())
    assert content["labels"] == {**labels, "ignore": 3}
    # Of two regions, one in doubt is enough: half of the entropy of all in doubt.
    case = json.loads(round_.choice.read_text())["decisions"][-1]["case"]
    unsure = read(round_.labels / "uncertainty" / f"{case}.nii.gz")
    limit = -(0.8 * np.log2(0.8) + 0.2 * np.log2(0.2)) / 2
    found = read(round_.raw / "labelsTr" / f"{case}.nii.gz") == 3
    np.testing.assert_array_equal(found, unsure > limit)


def test_the_page_holds_curves_reasons_and_pictures(whole, capsys):
    layout = whole[0]
    with pytest.raises(SystemExit) as end:
        main(["report", str(layout.folder)])
    assert end.value.code == 0
    path = Path(capsys.readouterr().out.strip())
    text = path.read_text(encoding="utf-8")
    choices = [
        json.loads((layout.folder / f"round_{n}" / "choice.json").read_text()) for n in (1, 2)
    ]
    for one in (decision for choice in choices for decision in choice["decisions"]):
        assert f"<figcaption>{one['case']}: {one['reason']}" in text
        state = "kept" if one["kept"] else "dropped"
        assert f"<td>{one['case']}</td><td>{state}</td>" in text
    assert text.count("data:image/png;base64,") == 1 + 2 * 5  # curves, and every scan of two rounds
    assert not re.search(r"(?:src|href)=.https?:|url\(.?https?:", text)  # nothing is fetched
    assert "src=" not in text.replace('src="data:', "")
    assert "The first model has no finished validation" in text
    assert "nnUNetv2_train 950 3d_fullres 1 -tr nnUNetTrainerSupervised" in text


def test_the_verdict_compares_the_same_cases():
    before, after = ({"a": 0.5, "b": 0.9}, {"a": 0.8, "b": 0.85})
    rounds = [
        Round(number, "finished", None, None, Validation(dice, ()), 1.0)
        for number, dice in enumerate((before, after))
    ]
    assert verdict(rounds) == (
        "Dice 0.7000 before, 0.8250 after round 1; better in 1 of 2 validation cases; the worst "
        "case 0.500 before, 0.800 after."
    )
    unfinished = Round(1, "at train_1", None, None, Validation(after, (1,)), 1.0)
    assert verdict([rounds[0], unfinished]) == "No round has finished yet."
