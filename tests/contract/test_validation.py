"""A validation scores the cases of its fold and no others; predictions of earlier runs are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS

KINDS = [m for m in METHODS if m.trainer.endswith(("Supervised", "PseudoLabel"))]
"""The two ways to train: nnU-Net's loop and ours."""


@pytest.fixture(params=KINDS, ids=lambda m: m.trainer)
def method(request):
    return request.param


@pytest.fixture
def stock_calls(monkeypatch):
    """nnU-Net's own validation, which takes long, only counted."""
    calls = []
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *a: calls.append(a))
    return calls


def leave(trainer, *cases, text="earlier", report=True):
    """Predictions and reports in the fold's ``validation``, as of a run before."""
    folder = Path(trainer.output_folder, "validation")
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{case}.nii.gz" for case in cases] + ["summary.json"]
    for name in [*names, "semisup_evaluation.json"] if report else names:
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_new_run_leaves_nothing_of_an_earlier_validation_to_be_scored(
    build, method, checkpoints, capsys
):
    """nnU-Net 2.8.1 scores every prediction in the folder, by whatever split it was made."""
    trainer = build(method, "labels3d", start=False)
    trainer.disable_checkpointing = not checkpoints
    folder = leave(trainer, "old_case", text="first")
    trainer.on_train_start()
    assert not folder.exists()
    kept = folder.with_name("validation_previous")
    assert (kept / "old_case.nii.gz").read_text() == "first"
    assert "An earlier validation is kept as validation_previous" in capsys.readouterr().out
    leave(trainer, "old_case", text="second")
    trainer.on_train_start()
    assert not folder.exists()
    assert (kept / "old_case.nii.gz").read_text() == "first", "no earlier one is lost"
    assert (folder.with_name("validation_previous_2") / "old_case.nii.gz").read_text() == "second"


def test_a_continued_run_keeps_its_validation(build, method):
    trainer = build(method, "labels3d")
    trainer.logger.log("ema_fg_dice", 0.5, 0)
    file = str(Path(trainer.output_folder, "checkpoint_latest.pth"))
    trainer.save_checkpoint(file)
    folder = leave(trainer, *trainer.do_split()[1])
    trainer.load_checkpoint(file)
    trainer.on_train_start()
    assert folder.is_dir()


def test_validating_again_sets_aside_what_is_not_the_folds(build, method, stock_calls):
    """With ``--val``, after ``splits_final.json`` was changed: the cases of before lie there."""
    trainer = build(method, "labels3d")
    folder = leave(trainer, *trainer.do_split()[1], "of_another_split")
    trainer.perform_actual_validation(True)
    assert len(stock_calls) == 1
    assert stock_calls[0][-1] is True
    assert not folder.exists()
    assert (folder.with_name("validation_previous") / "of_another_split.nii.gz").is_file()


def test_validating_the_same_cases_again_keeps_the_folder_but_not_the_scores(
    build, method, stock_calls
):
    """The evaluation of what is overwritten; ``compare`` would take it for that of the new one."""
    trainer = build(method, "labels3d")
    folder = leave(trainer, *trainer.do_split()[1])
    trainer.perform_actual_validation()
    assert stock_calls
    assert not (folder / "semisup_evaluation.json").exists()
    assert (folder / "semisup_evaluation_previous.json").read_text() == "earlier"
    assert not folder.with_name("validation_previous").exists()


def test_a_network_does_not_validate_cases_that_it_was_trained_on(
    build, method, stock_calls, monkeypatch
):
    """nnU-Net 2.8.1 validates what the split says now, without a word."""
    trainer = build(method, "labels3d")
    train, val = trainer.do_split()
    trainer.logger.log("ema_fg_dice", 0.5, 0)
    file = str(Path(trainer.output_folder, "checkpoint_final.pth"))
    trainer.save_checkpoint(file)
    later = build(method, "labels3d", start=False)
    later.load_checkpoint(file)
    later.perform_actual_validation()
    assert len(stock_calls) == 1, "the split is as it was"
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: (val, train))
    leave(later, *train)
    with pytest.raises(UserError, match=rf"fold 0 has .*trained on: {', '.join(train)}\. splits_f"):
        later.perform_actual_validation()
    with pytest.raises(UserError, match="train anew"):
        later.on_train_start()
    assert len(stock_calls) == 1
    both = sorted([*train, *val])
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: (both, both))
    assert later.do_split() == (both, both), "who trains on all knows"
