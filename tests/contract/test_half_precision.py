"""Mixed precision as on a GPU: float16 under autocast, with a scaled loss."""

from __future__ import annotations

import pytest
import torch

from tests.contract.conftest import SEMI_SUPERVISED


def losses_of_two_steps(trainer):
    """In the second epoch, where every term counts."""
    trainer.current_epoch = 1
    result = []
    for seed in range(2):
        torch.manual_seed(seed)
        result.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
    return result


@pytest.mark.parametrize("method", SEMI_SUPERVISED, ids=lambda m: m.trainer)
def test_a_step_in_float16(build, method, monkeypatch):
    expected = losses_of_two_steps(build(method, "labels3d"))
    trainer = build(method, "labels3d")
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    monkeypatch.setattr(trainer, "_autocast", lambda: torch.autocast("cpu", torch.float16))
    scale = trainer.grad_scaler.get_scale()
    assert losses_of_two_steps(trainer) == pytest.approx(expected, rel=0.01)
    assert trainer.grad_scaler.get_scale() == scale, "no step was skipped for an overflow"
