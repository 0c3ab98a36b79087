"""A run that is continued has the hyper-parameters it was started with."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw

from nnunet_semisup.errors import DivergedError, UserError
from nnunet_semisup.inference.float32 import Float32Predictor
from nnunet_semisup.registry import find_method
from nnunet_semisup.trainers import nnUNetTrainerPseudoLabel, nnUNetTrainerSupervised
from nnunet_semisup.training.settings import CONFIG_NAME, Settings, read_recorded
from tests.contract.conftest import SEMI_SUPERVISED, each_method, one_of_each

PSEUDO_LABEL, VQSEG = find_method("nnUNetTrainerPseudoLabel"), find_method("nnUNetTrainerVQSeg")
LOADING = ("load_checkpoint", "use_settings", "check_checkpoint", "settle_seed", "hyperparameters")
STATE = (
    "extra_state",
    "load_extra_state",
    "trained_outside",
    "build_training_network",
    "further_members",
)
STEPPING = ("train_step", "_run_epoch", "clipped_apart", "refuse_broken_losses")
EPOCHS = ("run_training", "on_validation_epoch_end", "on_epoch_end", "on_epoch_start")
STARTING = ("on_train_start", "initialize", "load_checkpoint", "save_checkpoint")


def without(trainer, *names):
    """Take hyper-parameters out of those that were set; without names, all of them."""
    given = {n: v for n, v in trainer.settings.given.items() if names and n not in names}
    trainer.settings = replace(trainer.settings, given=given)


def saved(trainer, tmp_path):
    file = str(tmp_path / "checkpoint_latest.pth")
    trainer.save_checkpoint(file)
    return file


@each_method(one_of_each(*LOADING, among=SEMI_SUPERVISED))
def test_what_was_set_is_taken_over(build, method, tmp_path):
    file = saved(build(method, "labels3d", num_epochs=7, initial_lr=0.002, seed=11), tmp_path)
    again = build(method, "labels3d", start=False, num_epochs=2, seed=5)
    without(again)
    again.load_checkpoint(file)
    assert (again.num_epochs, again.initial_lr, again.seed) == (7, 0.002, 11)


@each_method(one_of_each(*LOADING, "configure_optimizers", "on_train_epoch_start"))
def test_weight_decay_and_rate_set_anew_reach_the_optimizer(build, method, tmp_path):
    file = saved(build(method, "labels3d"), tmp_path)
    again = build(method, "labels3d", weight_decay=1e-3, initial_lr=0.003)
    again.load_checkpoint(file)
    again.current_epoch = 0
    again.on_train_epoch_start()
    groups = again.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {1e-3}
    assert {group["lr"] for group in groups} == {0.003}


@each_method(one_of_each(*LOADING, "save_checkpoint", "write_checkpoint"))
def test_a_finished_run_that_got_more_epochs_continues_where_it_stopped(build, method):
    """nnU-Net offers the final checkpoint, from before the new epochs."""
    trainer = build(method, "labels3d")
    files = {name: f"{trainer.output_folder}/checkpoint_{name}.pth" for name in ("final", "latest")}

    def continued_from(file, continues=True):
        plans = {**trainer.plans_manager.plans, "continue_training": continues}
        again = type(trainer)(
            plans, trainer.configuration_name, 0, trainer.dataset_json, torch.device("cpu")
        )
        again.load_checkpoint(file)
        return again.current_epoch

    for name, epoch in (("final", 1), ("latest", 4)):
        trainer.current_epoch = epoch
        trainer.save_checkpoint(files[name])
    assert continued_from(files["final"]) == 5
    assert continued_from(files["final"], continues=False) == 2, "what --val asks for"
    trainer.current_epoch = 0
    trainer.save_checkpoint(files["latest"])
    assert continued_from(files["final"]) == 2, "left behind by a run killed at its very end"


def test_what_is_set_anew_counts_and_is_logged(build, tmp_path, capsys):
    file = saved(build(PSEUDO_LABEL, "labels3d", num_epochs=7), tmp_path)
    again = build(PSEUDO_LABEL, "labels3d", start=False, num_epochs=9)
    again.load_checkpoint(file)
    assert again.num_epochs == 9
    assert "num_epochs was 7 and is now 9" in capsys.readouterr().out


def test_parts_of_the_network_follow_the_checkpoint(build, tmp_path):
    file = saved(build(VQSEG, "labels3d", reconstruction_weight=0.0), tmp_path)
    again = build(VQSEG, "labels3d", start=False)
    again.load_checkpoint(file)
    assert again.reconstruction_weight == 0.0
    other = build(VQSEG, "labels3d", start=False, reconstruction_weight=1.0)
    with pytest.raises(UserError, match=r"other parts .*semisup_config\.json"):
        other.load_checkpoint(file)


def test_the_command_knows_the_record_before_anything_is_built(build, monkeypatch):
    first = build(PSEUDO_LABEL, "labels3d", num_epochs=7, confidence_threshold=0.8, cpu_threads=1)
    monkeypatch.delenv("nnUNet_semisup_set")
    plans = {**first.plans_manager.plans, "continue_training": True}
    again = type(first)(plans, "3d_fullres", 0, first.dataset_json, torch.device("cpu"))
    assert (again.num_epochs, again.confidence_threshold) == (7, 0.8)
    assert again.cpu_threads is None, "the number of threads is the machine's"
    plans = {**first.plans_manager.plans, "continue_training": False}
    anew = type(first)(plans, "3d_fullres", 0, first.dataset_json, torch.device("cpu"))
    assert anew.num_epochs == 1000


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"hyperparameters": 3}', '{"a": {}}'])
def test_an_unreadable_record_is_no_record(tmp_path, text):
    assert read_recorded(str(tmp_path)) == {}
    Path(tmp_path, CONFIG_NAME).write_text(text, encoding="utf-8")
    assert read_recorded(str(tmp_path)) == {}


def test_only_known_names_of_the_right_type_are_read(tmp_path):
    fresh = Settings.of(nnUNetTrainerPseudoLabel, "")
    values = {"num_epochs": 3, "dice_weight": "much", "of_another_version": 1, "ema_decay": 1}
    record = json.dumps({"hyperparameters": values})
    Path(tmp_path, CONFIG_NAME).write_text(record, encoding="utf-8")
    continued = fresh.continuing(read_recorded(str(tmp_path)))
    assert continued.values == {**fresh.values, "num_epochs": 3, "ema_decay": 1.0}
    assert type(continued.values["ema_decay"]) is float


@each_method(one_of_each(*STEPPING, among=SEMI_SUPERVISED))
def test_losses_that_a_scaled_training_leaves_out_end_it(build, method, monkeypatch):
    """With a scaler, weights stay finite where the loss is not: steps are left out."""
    trainer = build(method, "labels3d")
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    before = {name: p.clone() for name, p in trainer.student.encoder.named_parameters()}
    supervised = trainer.supervised_loss
    monkeypatch.setattr(
        trainer, "supervised_loss", lambda *a: supervised(*a) * math.nan, raising=True
    )
    with pytest.raises(DivergedError, match=r"epoch 0 .*supervised.*losses are NaN or Inf"):
        trainer._run_epoch()
    for name, parameter in trainer.student.encoder.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_the_lower_bound_stops_by_name_as_the_others_do(build, monkeypatch):
    trainer = build(nnUNetTrainerSupervised, "labels3d", start=False)
    trainer.initialize()
    loss = trainer.loss
    monkeypatch.setattr(trainer, "loss", lambda *a: loss(*a) * math.nan)
    with pytest.raises(DivergedError, match=r"in epoch 0: losses are NaN or Inf.*Lower initial_lr"):
        trainer.run_training()
    trainer.loss = loss
    with pytest.raises(DivergedError, match="weights are NaN or Inf"):
        trainer.on_train_epoch_end([{"loss": np.array(1.0)}])
    with pytest.raises(DivergedError, match="weights are NaN or Inf"):
        trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    assert not list(Path(trainer.output_folder).glob("*.pth"))


@each_method(one_of_each(*LOADING, *STATE))
def test_a_checkpoint_may_be_given_as_its_content(build, method, tmp_path):
    """nnU-Net 2.8.1 declares it so, too, and reads a variable that it has not set."""
    trainer = build(method, "labels3d", num_epochs=7)
    trainer.train_step(next(trainer.dataloader_train))
    file = saved(trainer, tmp_path)
    again = build(method, "labels3d", start=False)
    without(again, "num_epochs")
    again.load_checkpoint(torch.load(file, weights_only=False))
    assert (again.current_epoch, again.num_epochs) == (1, 7)
    for name, weight in trainer.training_network.state_dict().items():
        assert torch.equal(again.training_network.state_dict()[name], weight), name


def end_epoch(trainer, epoch, hits):
    """Ends an epoch in whose validation ``hits`` voxels were right, and as many wrong."""
    found = np.array([hits, 0])
    output = {"tp_hard": found, "fp_hard": found, "fn_hard": found, "loss": np.array(0.5)}
    trainer.current_epoch = epoch
    trainer.on_epoch_start()
    for name in ("train_losses", "lrs"):
        trainer.logger.log(name, 0.1, epoch)
    trainer.on_validation_epoch_end([output])
    trainer.on_epoch_end()
    return trainer.logger.get_value("ema_fg_dice", -1)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@each_method(one_of_each(*EPOCHS))
def test_an_epoch_without_foreground_is_left_out_of_the_average(build, method, tmp_path, capsys):
    """nnU-Net 2.8.1: NaN for ever, and ``checkpoint_best.pth`` is never written again."""
    trainer = build(method, "labels3d", start=False, num_epochs=9, num_val_iterations_per_epoch=1)
    trainer.initialize()
    best = Path(trainer.output_folder, "checkpoint_best.pth")
    assert math.isnan(end_epoch(trainer, 0, 0))
    assert "No foreground in the validation patches of this epoch" in capsys.readouterr().out
    assert not best.exists()
    assert end_epoch(trainer, 1, 5) == pytest.approx(0.5)
    assert best.exists()
    best.unlink()
    assert end_epoch(trainer, 2, 0) == pytest.approx(0.5)
    assert not best.exists()
    trainer._best_ema = 0.3
    assert end_epoch(trainer, 3, 7) == pytest.approx(0.5)
    assert best.exists()

    checkpoint = torch.load(saved(trainer, tmp_path), weights_only=False)
    checkpoint["logging"]["ema_fg_dice"] = [math.nan, 0.4, math.nan, math.nan]
    checkpoint["_best_ema"] = math.nan
    again = build(method, "labels3d", start=False)
    again.load_checkpoint(checkpoint)
    assert again._best_ema == 0.4, "as a run of stock nnU-Net left it"
    assert end_epoch(again, 4, 5) == pytest.approx(0.9 * 0.4 + 0.1 * 0.5)


@each_method(one_of_each("perform_actual_validation", "predicting"))
@pytest.mark.parametrize("asked", [True, False])
def test_validation_sums_windows_in_float32_on_request(build, method, asked, monkeypatch, capsys):
    trainer = build(method, "labels3d", start=False, float32_windows=asked)
    trainer.initialize()
    stock_module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    made = []

    def validate(self, save_probabilities):
        made.append(stock_module.nnUNetPredictor(device=torch.device("cpu")))
        made[0].changed, made[0].voxels = 3, 600

    monkeypatch.setattr(stock_module.nnUNetTrainer, "perform_actual_validation", validate)
    trainer.perform_actual_validation()
    assert type(made[0]) is (Float32Predictor if asked else nnUNetPredictor)
    said = "float32: 3 of 600 voxels have another class than by nnU-Net's float16 (5.00e-03"
    assert (said in capsys.readouterr().out) == asked


def test_a_step_without_a_number_now_and_then_is_no_divergence(build):
    trainer = build(PSEUDO_LABEL, "labels3d")
    losses = torch.tensor([math.nan, 1.0, math.inf]).numpy()
    trainer.refuse_broken_losses(losses)
    with pytest.raises(DivergedError):
        trainer.refuse_broken_losses(losses[[0, 2]])


@each_method(one_of_each(*STARTING))
def test_a_new_run_keeps_the_checkpoints_of_an_earlier_one(build, method, capsys):
    first = build(method, "labels3d")
    folder = Path(first.output_folder)
    for name in ("best", "final"):
        (folder / f"checkpoint_{name}.pth").write_bytes(name.encode())
    second = build(method, "labels3d", start=False)
    second.output_folder = str(folder)
    second.initialize()
    second.on_train_start()
    assert (
        "checkpoint_final.pth is kept as checkpoint_final_previous.pth" in capsys.readouterr().out
    )
    second.logger.log("ema_fg_dice", 0.5, 0)
    second.save_checkpoint(str(folder / "checkpoint_latest.pth"))
    left = {path.name: path for path in folder.glob("*.pth")}
    assert sorted(left) == [
        "checkpoint_best_previous.pth",
        "checkpoint_final_previous.pth",
        "checkpoint_latest.pth",
    ]
    assert left["checkpoint_final_previous.pth"].read_bytes() == b"final"

    third = build(method, "labels3d", start=False)
    third.output_folder = str(folder)
    third.load_checkpoint(str(left["checkpoint_latest.pth"]))
    third.on_train_start()
    assert left["checkpoint_latest.pth"].exists()


def test_says_that_nothing_was_saved(build, capsys):
    trainer = build(PSEUDO_LABEL, "labels3d")
    trainer.disable_checkpointing = True
    with pytest.raises(SystemExit):
        trainer.stop(15)
    output = capsys.readouterr().out
    assert "nothing was saved" in output
    assert "continue with --c" not in output


def test_snapshots_of_codes_come_back_to_the_host(build):
    """A checkpoint is loaded to the training's device; pictures are drawn on the host."""
    trainer = build(VQSEG, "labels3d")

    class OnDevice:
        def __init__(self, tensor):
            self.tensor = tensor

        def cpu(self):
            return self.tensor

    state = trainer.codebooks.state_dict()
    codes, used = torch.randn(8, 4), torch.ones(8, dtype=torch.bool)
    state["snapshots"] = [{"epoch": 0, "codes": OnDevice(codes), "used": OnDevice(used)}]
    trainer.codebooks.load_state_dict(state)
    assert trainer.codebooks.snapshots[0]["codes"] is codes
    assert trainer.codebooks.snapshots[0]["used"] is used


def test_a_picture_that_cannot_be_drawn_does_not_end_the_training(build, monkeypatch, capsys):
    trainer = build(VQSEG, "labels3d", num_epochs=1)

    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(trainer.codebooks, "_picture", fail)
    trainer._run_epoch()
    assert "No picture of the codes: RuntimeError('no font')" in capsys.readouterr().out


def test_cutmix_gets_two_patches_where_the_batch_has_one(build, capsys):
    trainer = build(PSEUDO_LABEL, "labels3d", start=False)
    trainer.initialize()
    trainer.batch_size = 1
    assert trainer.unlabeled_patches == 2
    trainer.cutmix_probability = 0.0
    assert trainer.unlabeled_patches == 1
    build(PSEUDO_LABEL, "labels3d", unlabeled_batch_size=1)
    assert "CutMix has no effect" in capsys.readouterr().out


def test_bcp_says_where_a_batch_of_one_leaves_nothing_to_paste(build, capsys):
    trainer = build(find_method("nnUNetTrainerBCP"), "labels3d", start=False, mix_start=0.5)
    trainer.initialize()
    trainer.batch_size = 1
    trainer.on_train_start()
    assert "first phase trains on patches as they are" in capsys.readouterr().out


@pytest.mark.parametrize("trainer", [PSEUDO_LABEL, nnUNetTrainerSupervised])
@pytest.mark.parametrize(("fold", "warned"), [(0, False), (7, True), ("all", True)])
def test_labels_that_other_folds_hide_are_not_used_silently(
    build, datasets, trainer, fold, warned, capsys
):
    splits_file = datasets("labels3d") / "splits_final.json"
    before = splits_file.read_text(encoding="utf-8")
    (only,) = json.loads(before)
    kept, hidden = only["train"]
    try:
        splits_file.write_text(json.dumps([{**only, "train": [kept], "unlabeled": [hidden]}]))
        build(trainer, "labels3d", fold=fold)
    finally:
        splits_file.write_text(before, encoding="utf-8")
    start = f"WARNING: fold {fold} is not in splits_final.json, whose folds hide labels"
    assert (f"{start} (key 'unlabeled', cases: 1)" in capsys.readouterr().out) == warned


def test_images_that_are_not_preprocessed_are_told(build, datasets, capsys):
    name = datasets("labels3d").name
    image = Path(nnUNet_raw, name, "imagesUn", "late_0000.nii.gz")
    image.touch()
    try:
        build(PSEUDO_LABEL, "labels3d")
    finally:
        image.unlink()
    assert "not preprocessed and therefore not used (late)" in capsys.readouterr().out
