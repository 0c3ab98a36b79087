"""What every semi-supervised trainer of the registry must do, on every kind of data set."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_semisup.data.views import strong_view
from nnunet_semisup.errors import DivergedError
from nnunet_semisup.training.batches import Unlabeled, unwrap
from tests.contract.conftest import KINDS, SEMI_SUPERVISED, WITH_TEACHER

methods = pytest.mark.parametrize("method", SEMI_SUPERVISED, ids=lambda m: m.trainer)
with_teacher = pytest.mark.parametrize("method", WITH_TEACHER, ids=lambda m: m.trainer)
kinds = pytest.mark.parametrize("kind", list(KINDS))


def groups_of(trainer, batch):
    """All loss terms of one batch, as a list of dictionaries."""
    return list(trainer.compute_losses(*trainer._to_device(batch)))


def networks_of(trainer):
    """Everything that learns or follows."""
    return [unwrap(trainer.network), *([trainer.teacher] if trainer.teacher is not None else [])]


def backward_unlabeled(trainer, batch):
    """Propagates only the terms that come after the labeled group."""
    for terms in groups_of(trainer, batch)[1:]:
        loss = sum(term for name, term in terms.items() if not name.startswith("_"))
        loss.backward()


@methods
@kinds
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_a_step_is_finite_and_moves_student_and_teacher(build, method, kind, deep_supervision):
    trainer = build(method, kind, enable_deep_supervision=deep_supervision)
    student = copy.deepcopy(trainer.student.state_dict())
    teacher = trainer.teacher and copy.deepcopy(trainer.teacher.module.state_dict())
    trainer.current_epoch = 1
    for _ in range(2):
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        assert torch.isfinite(loss)
    moved = [k for k, v in trainer.student.state_dict().items() if not torch.equal(v, student[k])]
    assert any("encoder" in k for k in moved)
    if trainer.teacher is not None:
        followed = trainer.teacher.module.state_dict()
        assert any("encoder" in k and not torch.equal(v, teacher[k]) for k, v in followed.items())


@methods
@pytest.mark.parametrize("kind", ["labels3d", "labels2d"])
def test_channels_last_computes_the_same(build, method, kind):
    usual, other = (build(method, kind, channels_last=value) for value in (False, True))
    orders = (torch.channels_last, torch.channels_last_3d)
    assert any(
        weight.is_contiguous(memory_format=orders[weight.dim() - 4]) and not weight.is_contiguous()
        for network in networks_of(other)
        for weight in network.parameters()
        if weight.dim() in (4, 5)
    )
    batch = next(usual.dataloader_train)
    expected, terms = (groups_of(trainer, batch)[0] for trainer in (usual, other))
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, rtol=1e-3, atol=1e-4)


@methods
@kinds
def test_unlabeled_terms_alone_give_the_student_a_gradient(build, method, kind):
    trainer = build(method, kind, **_everything_counts(method))
    trainer.current_epoch = 1
    backward_unlabeled(trainer, next(trainer.dataloader_train))
    gradients = [p.grad for p in trainer.student.encoder.parameters()]
    assert sum(g is not None and bool(g.abs().sum() > 0) for g in gradients) > len(gradients) // 2
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@with_teacher
def test_teacher_gets_no_gradient_and_is_not_optimised(build, method):
    trainer = build(method, "labels3d", **_everything_counts(method))
    trainer.current_epoch = 1
    trainer.train_step(next(trainer.dataloader_train))
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    for parameter in trainer.teacher.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert id(parameter) not in optimised


@with_teacher
def test_teacher_is_the_moving_average_of_the_student(build, method):
    trainer = build(method, "labels3d", ema_decay=0.5)
    name, _ = next(trainer.student.named_parameters())
    expected = dict(trainer.student.named_parameters())[name].detach().clone()
    for step in range(4):
        trainer.train_step(next(trainer.dataloader_train))
        decay = min(1 - 1 / (step + 1), 0.5)
        current = dict(trainer.student.named_parameters())[name].detach()
        expected = decay * expected + (1 - decay) * current
    averaged = dict(trainer.teacher.module.named_parameters())[name]
    torch.testing.assert_close(averaged, expected)


@methods
def test_masks_of_unlabeled_cases_do_not_matter(build, datasets, method, tmp_path, monkeypatch):
    folder = datasets("labels3d")
    unlabeled = folder / "nnUNetPlans_3d_fullres_unlabeled"
    before = build(method, "labels3d").train_step
    trainer = before.__self__
    batch = next(trainer.dataloader_train)
    hidden = [p.rename(p.with_suffix(".hidden")) for p in sorted(unlabeled.glob("*_seg.b2nd"))]
    assert hidden
    try:
        blind = next(build(method, "labels3d").dataloader_train)
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".b2nd"))
    for key in ("data", "unlabeled", "unlabeled_valid"):
        assert torch.equal(batch[key], blind[key])


@methods
@kinds
def test_checkpoint_round_trip_continues_bit_equal(build, method, kind, tmp_path):
    straight = build(method, kind)
    batches = [next(straight.dataloader_train) for _ in range(4)]
    for batch in batches[:2]:
        straight.train_step(copy.deepcopy(batch))
        straight.iteration += 1
    file = str(tmp_path / "checkpoint.pth")
    straight._save(file, straight.current_epoch)
    random_state = torch.random.get_rng_state()
    for batch in batches[2:]:
        straight.train_step(copy.deepcopy(batch))

    resumed = build(method, kind, start=False)
    resumed.load_checkpoint(file)
    assert resumed.iteration == 2
    resumed.on_train_start()
    resumed.on_train_epoch_start()
    assert torch.equal(torch.random.get_rng_state(), random_state)
    for number, batch in enumerate(batches[2:]):
        again = next(resumed.dataloader_train)
        assert torch.equal(again["data"], batch["data"]), number
        assert torch.equal(again["unlabeled"], batch["unlabeled"]), number
        resumed.train_step(again)
    for left, right in zip(networks_of(straight), networks_of(resumed), strict=True):
        for name, value in left.state_dict().items():
            assert torch.equal(value, right.state_dict()[name]), name


@methods
@kinds
def test_stock_prediction_loads_the_checkpoint(build, method, kind):
    trainer = build(method, kind)
    trainer.train_step(next(trainer.dataloader_train))
    folder = Path(trainer.output_folder)
    trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu")
    )
    predictor.initialize_from_trained_model_folder(str(folder.parent), (0,), "checkpoint_final.pth")
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == method.predicts_as
    image = next(trainer.dataloader_val)["data"][:1]
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    predictor.network.eval()
    with torch.no_grad():
        stock = predictor.network(image)
        trainer.network.eval()
        with trainer.predicting(deep_supervision=False):
            trainer.set_deep_supervision_enabled(False)
            ours = trainer.network(image)
    assert torch.equal(stock, ours)


@methods
@pytest.mark.parametrize("kind", ["labels3d", "regions3d"])
@pytest.mark.parametrize("value", [0, 1])
def test_finite_without_and_with_only_foreground(build, method, kind, value):
    trainer = build(method, kind, **_everything_counts(method))
    trainer.current_epoch = 1
    batch = next(trainer.dataloader_train)
    targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    for target in targets:
        target.fill_(value)
    assert torch.isfinite(trainer.train_step(batch)["loss"])
    assert all(torch.isfinite(p).all() for p in trainer.student.parameters())


@with_teacher
def test_finite_when_the_teacher_sees_only_one_class(build, method):
    trainer = build(method, "labels3d", **_everything_counts(method))
    trainer.current_epoch = 1
    decoder = trainer.teacher.module.decoder
    for bias in (50.0, -50.0):
        with torch.no_grad():
            decoder.seg_layers[-1].weight.zero_()
            decoder.seg_layers[-1].bias.copy_(torch.tensor([bias, 0.0, 0.0]))
        assert torch.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


@methods
@pytest.mark.parametrize("which", [0, -1])
def test_a_diverged_training_ends_and_keeps_its_checkpoint(build, method, which):
    trainer = build(method, "labels3d")
    folder = Path(trainer.output_folder)
    latest = folder / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(latest))
    before = latest.read_bytes()
    with torch.no_grad():
        list(unwrap(trainer.network).parameters())[which].fill_(math.nan)
    with pytest.raises(DivergedError, match=r"epoch 0 .*loss.*Lower initial_lr .* --c"):
        trainer._run_epoch()
    assert "nan" in (folder / "semisup_terms.csv").read_text(encoding="utf-8")
    with pytest.raises(DivergedError):
        trainer.save_checkpoint(str(latest))
    assert latest.read_bytes() == before
    assert [path.name for path in folder.glob("checkpoint_*")] == [latest.name]


@methods
def test_padding_of_unlabeled_patches_has_no_influence_on_the_target(build, method):
    trainer = build(method, "labels3d", **_everything_counts(method))
    trainer.current_epoch = 1
    labeled, unlabeled = trainer._to_device(next(trainer.dataloader_train))
    nothing = Unlabeled(unlabeled.image, torch.zeros_like(unlabeled.valid))
    groups = list(trainer.compute_losses(labeled, nothing))[1:]
    consistency = [v for terms in groups for k, v in terms.items() if k.startswith("consistency")]
    assert consistency
    assert all(float(v.detach()) == pytest.approx(0.0, abs=1e-7) for v in consistency)


def test_what_nnunet_masks_stays_zero_in_the_strong_view(build):
    trainer = build(SEMI_SUPERVISED[0], "regions3d")
    trainer.configuration_manager.configuration["use_mask_for_norm"] = [True, False]
    trainer._masked_channels = trainer.masked_channels()
    batch = next(trainer.dataloader_train)
    batch["unlabeled_valid"][:, :, :4] = False
    batch["unlabeled"][:, 0, :4] = 0.0
    _, unlabeled = trainer._to_device(batch)
    strong = unlabeled.strong_view(probability=1.0)
    assert torch.equal(unlabeled.masked[:, :1], ~unlabeled.valid)
    assert not unlabeled.masked[:, 1].any()
    assert (strong[:, 0, :4] == 0).all()
    for changed in (strong[:, 0, 4:], strong[:, 1, :4], strong[:, 1, 4:]):
        assert (changed != 0).float().mean() > 0.9


def test_without_masks_the_strong_view_is_that_of_the_image(build):
    trainer = build(SEMI_SUPERVISED[0], "labels3d")
    _, unlabeled = trainer._to_device(next(trainer.dataloader_train))
    assert unlabeled.masked is None
    torch.manual_seed(0)
    expected = strong_view(unlabeled.image)
    torch.manual_seed(0)
    assert torch.equal(unlabeled.strong_view(), expected)


@methods
def test_configuration_and_cases_are_recorded(build, method):
    trainer = build(method, "labels3d", rampup_length=0.25)
    recorded = json.loads(
        (Path(trainer.output_folder) / "semisup_config.json").read_text(encoding="utf-8")
    )
    assert recorded["trainer"] == method.trainer
    assert recorded["hyperparameters"]["rampup_length"] == 0.25
    assert recorded["hyperparameters"]["seed"] == 3
    assert len(recorded["unlabeled_cases"]) == 3


@methods
def test_unlabeled_batch_size_is_its_own(build, method):
    batch = next(build(method, "labels3d", unlabeled_batch_size=3).dataloader_train)
    assert batch["data"].shape[0] == 2
    assert batch["unlabeled"].shape[0] == 3
    assert batch["unlabeled_valid"].shape == (3, 1, 16, 16, 16)


@methods
def test_two_methods_with_one_seed_see_the_same_labeled_patches(build, method):
    batch = next(build(method, "labels3d").dataloader_train)
    other = next(build(SEMI_SUPERVISED[0], "labels3d").dataloader_train)
    assert torch.equal(batch["data"], other["data"])
    assert np.array_equal(batch["keys"], other["keys"])


def _everything_counts(method):
    """Settings under which an untrained teacher's labels are used."""
    known = {"nnUNetTrainerPseudoLabel", "nnUNetTrainerVQSeg"}
    return {"confidence_threshold": None} if method.trainer in known else {}


@methods
def test_network_in_the_checkpoint_has_no_training_only_part(build, method, tmp_path):
    trainer = build(method, "labels3d")
    file = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    weights = torch.load(file, weights_only=False)["network_weights"]
    plain = type(trainer).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, False
    )
    assert set(weights) == set(plain.state_dict())
    assert set(plain.state_dict()) <= {
        k.removeprefix("predictor.") for k in unwrap(trainer.network).state_dict()
    }
