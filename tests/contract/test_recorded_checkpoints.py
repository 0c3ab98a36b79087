"""Checkpoints that a release wrote (``tests/recorded/checkpoints.py``) go on, predict, travel."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from nnunet_semisup import __version__
from nnunet_semisup.errors import UserError
from nnunet_semisup.inference.predictor import Choice
from nnunet_semisup.inference.stored import Stored
from nnunet_semisup.registry import find_method
from nnunet_semisup.safe_files import KEY, LAYOUT, read_checkpoint_file
from nnunet_semisup.sharing.export import Export, export
from nnunet_semisup.training.start_files import read_start_file
from tests.contract.test_predict import logits_of
from tests.recorded.checkpoints import FOLDER, KIND, SETTINGS, next_step

RECORDED = [path for path in sorted(FOLDER.glob("v*.pth")) if not path.stem.endswith("_next")]
each_file = pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.stem)


def parts(file):
    """Return the recorded trainer's row, its checkpoint, and what followed."""
    method = find_method(file.stem.partition("_")[2])
    followed = file.with_name(f"{file.stem}_next.pth")
    return method, read_checkpoint_file(file), read_checkpoint_file(followed)


@pytest.fixture
def folder(tmp_path):
    """Give a function that makes a model folder of a checkpoint."""

    def make(checkpoint):
        arguments, made = checkpoint["init_args"], tmp_path / "model"
        (made / "fold_0").mkdir(parents=True)
        (made / "plans.json").write_text(json.dumps(arguments["plans"]))
        (made / "dataset.json").write_text(json.dumps(arguments["dataset_json"]))
        torch.save(checkpoint, made / "fold_0" / "checkpoint_final.pth")
        return made

    return make


def test_the_first_release_is_among_them():
    assert {path.stem.partition("_")[0] for path in RECORDED} >= {"v0.1.0"}


@each_file
def test_a_training_goes_on_where_it_was(build, file, tmp_path):
    method, checkpoint, followed = parts(file)
    again = build(method, KIND, start=False)
    shutil.copy(file, tmp_path / "checkpoint_latest.pth")
    again.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert again.current_epoch == checkpoint["current_epoch"] == 1
    assert again.trained_on == ["lab_000", "lab_001"]
    again.on_train_start()
    again.on_train_epoch_start()
    assert again.optimizer.param_groups[0]["lr"] < SETTINGS["initial_lr"]
    loss = next_step(again, followed["batch"])
    assert loss == pytest.approx(followed["loss"], rel=1e-3)


@each_file
def test_what_it_predicts_is_what_it_predicted(folder, file):
    _, checkpoint, followed = parts(file)
    found = logits_of(folder(checkpoint), Choice(), followed["image"])
    torch.testing.assert_close(found, followed["logits"], rtol=1e-3, atol=1e-4)


@each_file
def test_it_is_exported_and_starts_other_trainings(folder, file, tmp_path):
    method, checkpoint, _ = parts(file)
    made = folder(checkpoint)
    card = export(Export(made, (0,), "checkpoint_final.pth", tmp_path / "model.zip"))
    assert (card["model"]["trained_by"], card["training"]["0"]["nnunet_semisup"]) == (
        method.trainer,
        checkpoint[KEY]["version"],
    )
    start = read_start_file(str(made / "fold_0" / "checkpoint_final.pth"))
    assert start.trained_on == ("lab_000", "lab_001")


@pytest.mark.parametrize("layout", [LAYOUT + 1, "later"])
def test_a_layout_of_a_later_release_is_refused(build, folder, layout):
    method, checkpoint, _ = parts(RECORDED[0])
    checkpoint[KEY] |= {"layout": layout, "version": "7.0.0"}
    file = folder(checkpoint) / "fold_0" / "checkpoint_final.pth"
    said = re.escape(
        f"{file}: nnunet-semisup 7.0.0 wrote it, in layout {layout} of its checkpoints; "
        f"{__version__}, installed here, reads layouts 1 to {LAYOUT}. Install"
    )
    again = build(method, KIND, start=False)
    before = sorted(file.parent.iterdir())
    for read in (again.load_checkpoint, Stored.read, read_start_file):
        with pytest.raises(UserError, match=said):
            read(str(file))
    assert sorted(file.parent.iterdir()) == before


def test_the_number_of_the_layout_is_saved(build, tmp_path):
    trainer = build(find_method("nnUNetTrainerSupervised"), KIND)
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert read_checkpoint_file(tmp_path / "checkpoint.pth")[KEY]["layout"] == LAYOUT
