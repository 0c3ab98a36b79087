"""Mixed precision: float16 with a scaled loss as on a GPU, and bfloat16 on the CPU."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from nnunet_semisup.registry import find_method
from tests.contract.conftest import SEMI_SUPERVISED, each_method
from tests.contract.steps import compiled


def losses_of_two_steps(trainer):
    """Return those of the second epoch, where every term counts."""
    trainer.current_epoch = 1
    result = []
    for seed in range(2):
        torch.manual_seed(seed)
        result.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
    return result


@each_method(SEMI_SUPERVISED)
def test_a_step_in_float16(build, method, monkeypatch):
    expected = losses_of_two_steps(build(method, "labels2d"))
    trainer = build(method, "labels2d")
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    monkeypatch.setattr(trainer, "_autocast", lambda: torch.autocast("cpu", torch.float16))
    scale = trainer.grad_scaler.get_scale()
    assert losses_of_two_steps(trainer) == pytest.approx(expected, rel=0.01)
    assert trainer.grad_scaler.get_scale() == scale, "no step was skipped for an overflow"


@pytest.mark.parametrize("context", [nullcontext, compiled], ids=["eager", "compiled"])
def test_a_step_in_bfloat16_on_the_cpu(build, context):
    method = find_method("nnUNetTrainerMeanTeacher")
    expected = losses_of_two_steps(build(method, "labels2d"))
    with context():
        trainer = build(method, "labels2d", cpu_bfloat16=True)
        losses = losses_of_two_steps(trainer)
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses != pytest.approx(expected, rel=1e-6)
    assert all(p.dtype == torch.float32 for p in trainer.network.parameters())
