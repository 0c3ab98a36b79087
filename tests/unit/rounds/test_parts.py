"""Rounds whose labels are made in parts, a round at a time; with a stand-in."""

from __future__ import annotations

import pytest

from nnunet_semisup.cli.rounds import main
from nnunet_semisup.rounds.course import run_rounds
from nnunet_semisup.rounds.design import read_design
from nnunet_semisup.rounds.results import read_rounds
from tests.helpers import nnunet_folders
from tests.unit.rounds.shared import files, planned, stand_in


def call(*words):
    """Return the exit code of the command."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def label(layout, part):
    return call("label", layout.folder, "-num_parts", 2, "-part_id", part)


def test_rounds_in_parts_are_those_at_one_go(tmp_path, monkeypatch, capfd):
    folders = nnunet_folders(tmp_path, monkeypatch)
    layout = planned(tmp_path, folders, folds=(1,), fine_tune=4)
    design = read_design(layout)
    with stand_in():
        for number in (1, 2):
            assert label(layout, 0) == 0
            there = sorted(p.name for p in layout.round(design, number).labels.glob("*.nii.gz"))
            assert there == ["unl_000.nii.gz", "unl_002.nii.gz", "unl_004.nii.gz"]
            assert label(layout, 1) == 0
            assert not (layout.round(design, number).labels / "ranking.json").exists()
            assert call("run", layout.folder, "--one-round") == 0
            states = [one.state for one in read_rounds(layout, design)]
            assert states == ["given", "finished", "finished" if number == 2 else "waiting"]
        assert label(layout, 0) == 0
    assert "nothing is to be labeled" in capfd.readouterr().out
    made = [files(layout.round(design, number).raw / "labelsTr") for number in (1, 2)]
    for folder in (layout.round(design, 1).folder, layout.round(design, 2).folder):
        folder.rename(folder.with_name(f"before_{folder.name}"))
    with stand_in():
        run_rounds(layout)
    assert made == [files(layout.round(design, number).raw / "labelsTr") for number in (1, 2)]


def test_labels_wait_for_the_model_that_makes_them(tmp_path, monkeypatch, capsys):
    layout = planned(
        tmp_path, nnunet_folders(tmp_path, monkeypatch), folds=(0,), settings="seed=13"
    )
    with stand_in():
        assert call("run", layout.folder) == 1  # The first training fails.
        assert label(layout, 0) == 2
    told = capsys.readouterr().err
    assert "round_1 is at train_0" in told
    assert f"nnUNetv2_semisup_rounds run {layout.folder} --one-round" in told


def test_rounds_that_converged_have_nothing_to_label(tmp_path, monkeypatch, capfd):
    layout = planned(tmp_path, nnunet_folders(tmp_path, monkeypatch), folds=(0,), converged=1.0)
    with stand_in():
        run_rounds(layout)
        assert label(layout, 1) == 0
    assert "nothing is to be labeled" in capfd.readouterr().out


def test_a_part_that_fails_says_so(tmp_path, monkeypatch, capsys):
    layout = planned(tmp_path, nnunet_folders(tmp_path, monkeypatch))
    assert label(layout, 2) == 2
    assert "-part_id 2" in capsys.readouterr().err
    (read_design(layout).raw_folder / "imagesUn").rename(tmp_path / "elsewhere")
    with stand_in():
        assert label(layout, 0) == 1
