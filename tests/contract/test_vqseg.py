"""What VQ-Seg does with its codes over a training."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import dinov2
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.batches import Unlabeled

VQSEG = find_method("nnUNetTrainerVQSeg")


def transforms(trainer):
    return [q.codes.code_transform.weight.detach().clone() for q in trainer.student.quantizers]


def step_at(trainer, epoch):
    """Codes before and after the start of a step, without any gradient."""
    trainer.current_epoch, trainer.iteration = epoch, 0
    before = transforms(trainer)
    _, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    trainer.warmup.update(trainer.student, unlabeled.image, trainer.step_number, trainer.progress)
    return before, transforms(trainer)


@pytest.mark.parametrize("kind", ["labels3d", "labels2d"])
@pytest.mark.parametrize(("fit", "epoch", "moves"), [(True, 0, True), (False, 0, False)])
def test_codes_are_fitted_during_the_warmup_only(build, kind, fit, epoch, moves):
    trainer = build(VQSEG, kind, codebook_fit=fit, num_epochs=40, calibrate_every=1)
    before, after = step_at(trainer, 0)
    assert all(torch.equal(a, b) != moves for a, b in zip(before, after, strict=True))
    before, after = step_at(trainer, 30)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_more_epochs_do_not_bring_the_warmup_back(build, tmp_path):
    file = str(tmp_path / "checkpoint_latest.pth")
    trainer = build(VQSEG, "labels3d", num_epochs=10, calibrate_every=1)
    step_at(trainer, 5)
    trainer.save_checkpoint(file)
    longer = build(VQSEG, "labels3d", num_epochs=1000, calibrate_every=1)
    longer.load_checkpoint(file)
    assert longer.progress < longer.quantizer_warmup
    before, after = step_at(longer, 6)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [float(q.mix) for q in longer.student.quantizers] == [1.0] * len(after)


def test_a_perturbation_without_effect_is_told_after_the_warmup(build, capsys):
    trainer = build(VQSEG, "labels3d", num_epochs=10)
    trainer.codebooks.effect = lambda *_: {"sensitivity": 0.001}
    _, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    for epoch in (0, 5):
        step_at(trainer, epoch)
        capsys.readouterr()
        trainer.end_epoch(unlabeled)
        told = "changes the foreground by 0.10% only" in capsys.readouterr().out
        assert told == (epoch == 5)


def test_the_fit_lowers_the_error_of_quantizing(build):
    errors = []
    for fit in (False, True):
        trainer = build(VQSEG, "labels3d", codebook_fit=fit)
        labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
        list(trainer.compute_losses(labeled, unlabeled))
        errors.append(trainer.end_epoch(unlabeled)["quantization_error_0"])
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("kind", ["labels3d", "regions2d"])
def test_sensitivity_is_the_change_of_the_foreground(build, kind):
    trainer = build(VQSEG, kind, qpm_epsilon=1.0, qpm_mode="uniform", quantizer_warmup=0.0)
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    list(trainer.compute_losses(labeled, unlabeled))
    head = trainer.student.decoder.seg_layers[-1]
    with torch.no_grad():
        head.bias.fill_(20.0 if trainer.regions else 0.0)
        head.bias[-1] += 20.0
    everywhere = trainer.end_epoch(unlabeled)["sensitivity"]
    assert 0.0 <= everywhere < 0.1, "saturated outputs cannot change"
    with torch.no_grad():
        head.weight.mul_(20.0)
        head.bias.zero_()
    assert trainer.end_epoch(unlabeled)["sensitivity"] > everywhere
    nowhere = Unlabeled(unlabeled.image, torch.zeros_like(unlabeled.valid))
    assert trainer.end_epoch(nowhere)["sensitivity"] == 0.0


def test_two_views_share_the_weight_of_one(build):
    """Each view of ``qpm_view=weak`` has half of every unlabeled term's weight."""
    totals = []
    for view in ("strong", "weak"):
        trainer = build(
            VQSEG, "labels3d", qpm_view=view, qpm_epsilon=0.0, strong_probability=0.0,
            cutmix_probability=0.0, confidence_threshold=None, quantizer_warmup=0.0,
            usage_tokens=100000,
        )  # fmt: skip
        trainer.current_epoch = 1
        groups = list(trainer.compute_losses(*trainer.to_device(next(trainer.dataloader_train))))[
            1:
        ]
        terms = {k: v for group in groups for k, v in group.items() if not k.startswith("_")}
        names = ("consistency", "commitment", "usage", "reconstruction")
        totals.append(
            {n: sum(float(v.detach()) for k, v in terms.items() if k.startswith(n)) for n in names}
        )
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)


@pytest.mark.parametrize("kind", ["labels3d", "labels2d"])
def test_a_step_with_alignment(build, kind):
    """The foundation model's weights are random here; its alignment reaches the encoder."""
    pytest.importorskip("timm")
    trainer = build(VQSEG, kind, foundation_model="random")
    groups = list(trainer.compute_losses(*trainer.to_device(next(trainer.dataloader_train))))
    alignment = groups[0]["alignment_labeled"]
    assert torch.isfinite(alignment)
    alignment.backward()
    gradients = [p.grad for p in trainer.student.encoder.parameters() if p.grad is not None]
    assert any(bool(g.abs().sum() > 0) for g in gradients)
    assert all(p.grad is None for p in trainer.foundation.parameters())


def test_a_trained_fold_needs_no_foundation_model(build, monkeypatch, tmp_path):
    monkeypatch.setenv(dinov2.VARIABLE, str(tmp_path / "missing.pth"))
    with pytest.raises(UserError, match="which is not a file"):
        build(VQSEG, "labels3d", start=False, foundation_model="dinov2")
    assert not list(tmp_path.glob("results*/**/*.txt"))

    trained = build(VQSEG, "labels3d")
    trained.save_checkpoint(f"{trained.output_folder}/checkpoint_final.pth")
    monkeypatch.setenv("nnUNet_semisup_set", "foundation_model=dinov2")
    type(trained)(
        {**trained.plans_manager.plans, "continue_training": False},
        "3d_fullres",
        0,
        trained.dataset_json,
        torch.device("cpu"),
    )
