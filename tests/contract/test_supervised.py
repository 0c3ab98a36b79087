"""Checkpoints of the lower bound: stock nnU-Net's, whole or not at all."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup import __version__
from nnunet_semisup.registry import find_method
from nnunet_semisup.trainers import nnUNetTrainerSupervised
from nnunet_semisup.training.checkpoint import KEY
from tests.contract.conftest import KINDS
from tests.contract.test_equals_stock import assert_same_batch


def loaders(trainer):
    """Both of them."""
    return trainer.dataloader_train, trainer.dataloader_val


STEPS = {"num_epochs": 3, "initial_lr": 0.005}


@pytest.fixture
def trained(build):
    """A trainer after one step, and the folder of its fold."""
    trainer = build(nnUNetTrainerSupervised, "labels3d", **STEPS)
    trainer.train_step(next(trainer.dataloader_train))
    return trainer, Path(trainer.output_folder)


def read(file):
    """A checkpoint."""
    return torch.load(file, weights_only=False)


def test_a_checkpoint_is_nnunets_own_with_one_more_key(trained):
    trainer, folder = trained
    trainer.save_checkpoint(str(folder / "ours.pth"))
    nnUNetTrainer.save_checkpoint(trainer, str(folder / "stock.pth"))
    ours, stock = read(folder / "ours.pth"), read(folder / "stock.pth")
    added = ours.pop(KEY)
    assert ours.pop("trainer_name") == "nnUNetTrainer"
    assert stock.pop("trainer_name") == added["trainer"] == "nnUNetTrainerSupervised"
    assert added["version"] == __version__
    assert {**added["configuration"], **STEPS, "seed": 3} == added["configuration"]
    assert set(ours) == set(stock)
    for name, weight in stock["network_weights"].items():
        assert torch.equal(ours["network_weights"][name], weight)


def test_stock_nnunet_predicts_from_it(trained, monkeypatch):
    trainer, folder = trained
    trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu")
    )
    predictor.initialize_from_trained_model_folder(str(folder.parent), (0,))
    image = next(trainer.dataloader_val)["data"][:1]
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        assert torch.equal(predictor.network.eval()(image), trainer.network.eval()(image))


def test_a_subclass_with_its_own_network_keeps_its_name(build, tmp_path):
    class OwnNetwork(nnUNetTrainerSupervised):
        @staticmethod
        def build_network_architecture(plans_manager, *args, **kwargs):
            return nnUNetTrainer.build_network_architecture(plans_manager, *args, **kwargs)

    build(OwnNetwork, "labels3d").save_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert read(tmp_path / "checkpoint.pth")["trainer_name"] == "OwnNetwork"


def test_a_run_continues_from_it(trained, build):
    trainer, folder = trained
    trainer.current_epoch = 1
    trainer.logger.log("ema_fg_dice", 0.5, 0)
    trainer.save_checkpoint(str(folder / "checkpoint_latest.pth"))
    later = build(nnUNetTrainerSupervised, "labels3d", start=False, **STEPS)
    later.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    assert later.current_epoch == 2
    for name, weight in trainer.network.state_dict().items():
        assert torch.equal(later.network.state_dict()[name], weight)


def test_a_continued_run_has_its_hyper_parameters_and_other_patches(trained, build):
    trainer, folder = trained
    file = str(folder / "checkpoint_latest.pth")
    trainer.current_epoch = 1
    trainer.logger.log("ema_fg_dice", 0.5, 0)
    trainer.save_checkpoint(file)
    later = build(nnUNetTrainerSupervised, "labels3d", start=False, num_epochs=9, seed=4)
    given = dict(later.settings.given)
    del given["num_iterations_per_epoch"]
    later.settings = replace(later.settings, given=given)
    later.num_iterations_per_epoch = 250
    later.load_checkpoint(file)
    assert later.num_iterations_per_epoch == trainer.num_iterations_per_epoch == 2
    assert later.initial_lr == later.optimizer.defaults["lr"] == STEPS["initial_lr"]
    assert later.seed == 3, "the seed is the run's"
    assert later.num_epochs == 9, "what is set anew counts"
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert not torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize("kind", list(KINDS))
def test_labeled_batches_are_those_of_the_other_trainers(build, kind):
    settings = {"seed": 5, "oversample_foreground_percent": 0.5}
    ours = build(nnUNetTrainerSupervised, kind, **settings)
    other = build(find_method("nnUNetTrainerPseudoLabel"), kind, unlabeled_weight=0.0, **settings)
    for name in ("dataloader_train", "dataloader_val"):
        for _ in range(2):
            batch = next(getattr(ours, name))
            assert "unlabeled" not in batch
            assert_same_batch(batch, next(getattr(other, name)))


def test_a_continued_run_draws_the_patches_that_come_next(build, tmp_path):
    straight, stopped = (build(nnUNetTrainerSupervised, "labels3d", **STEPS) for _ in range(2))
    train, validation = ([next(loader) for _ in range(4)] for loader in loaders(straight))
    stopped.current_epoch = 0
    stopped.logger.log("ema_fg_dice", 0.5, 0)
    stopped.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    later = build(nnUNetTrainerSupervised, "labels3d", start=False, **STEPS)
    later.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    later.on_train_start()
    for batch in train[2:]:
        assert_same_batch(next(later.dataloader_train), batch)
    assert_same_batch(next(later.dataloader_val), validation[1])


def test_a_seed_that_is_not_set_is_drawn_and_recorded(build, tmp_path, capsys):
    first, second = (build(nnUNetTrainerSupervised, "labels3d", seed=None) for _ in range(2))
    assert first.seed != second.seed
    assert "centres 1 of 2 labeled patches on foreground" in capsys.readouterr().out
    first.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert read(tmp_path / "checkpoint.pth")[KEY]["configuration"]["seed"] == first.seed


def test_a_failure_ends_the_workers(build, monkeypatch):
    trainer = build(nnUNetTrainerSupervised, "labels3d", start=False)
    trainer.initialize()
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")

    def fail(batch):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(trainer, "train_step", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.run_training()
    assert not multiprocessing.active_children()


def test_a_failed_write_leaves_the_checkpoint_before(trained, monkeypatch):
    trainer, folder = trained
    file = folder / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    before = file.read_bytes()
    save = torch.save

    def tear(checkpoint, path):
        save(checkpoint, path)
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", tear)
    with pytest.raises(OSError, match="no space left"):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == before
    assert [path.name for path in folder.glob("*.pth")] == [file.name]
    assert not list(folder.glob(".*"))


def test_a_seed_of_more_than_32_bits_is_taken(build):
    assert build(nnUNetTrainerSupervised, "labels3d", seed=2**32 + 1).seed == 2**32 + 1


def test_what_a_killed_run_left_behind_is_removed(build):
    trainer = build(nnUNetTrainerSupervised, "labels3d", start=False)
    trainer.initialize()
    left = Path(trainer.output_folder, ".checkpoint_latest_abc.pth")
    left.write_bytes(b"half")
    trainer.on_train_start()
    assert not left.exists()


def test_nothing_is_written_where_checkpoints_are_disabled(trained):
    trainer, folder = trained
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(folder / "checkpoint_latest.pth"))
    assert not list(folder.glob("*checkpoint*"))
