from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nnunet_semisup.training.ema import EMATeacher
from tests.unit.networks.shared import small_unet


class Scalar(nn.Module):
    """One weight, one floating-point and one integer buffer."""

    def __init__(self, value=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))
        self.register_buffer("running", torch.tensor(value, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))

    def set(self, value):
        with torch.no_grad():
            self.weight.fill_(value)
        self.running.fill_(10 * value)
        self.count.fill_(int(value))


def follow(decay, values):
    model = Scalar(5.0)
    teacher = EMATeacher(model, decay)
    for value in values:
        model.set(value)
        teacher.update_parameters(model)
    return teacher.module


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.999), st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30))
def test_warm_up_rule(decay, values):
    """a = min(1 - 1 / (t + 1), decay), for weights and floating-point buffers alike."""
    teacher = follow(decay, values)
    wanted = 5.0
    for t, value in enumerate(values):
        share = min(1 - 1 / (t + 1), decay)
        wanted = share * wanted + (1 - share) * value
    assert teacher.weight.item() == pytest.approx(wanted, abs=1e-9)
    assert teacher.running.item() == pytest.approx(10 * wanted, abs=1e-8)
    assert teacher.count.item() == int(values[-1])


def test_closed_form():
    """Past the warm-up, a step of the student is approached geometrically."""
    decay, warm, steps = 0.9, 20, 15
    teacher = follow(decay, [0.0] * warm + [1.0] * steps)
    assert teacher.weight.item() == pytest.approx(1 - decay**steps)


def test_first_update_copies_and_early_updates_average():
    assert follow(0.99, [3.0]).weight.item() == 3.0
    assert follow(0.99, [1.0, 2.0, 6.0]).weight.item() == pytest.approx(3.0)


@pytest.mark.parametrize("decay", [0.3, 0.5, 0.99])
def test_agrees_with_torch_at_a_constant_decay(decay):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    ours = EMATeacher(model, decay)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for average in (ours, theirs):
        average.n_averaged.fill_(1000)
    for _ in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(2, 2, 5, 5))
        ours.update_parameters(model)
        theirs.update_parameters(model)
    for mine, other in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    for name, buffer in ours.module.named_buffers():
        if buffer.is_floating_point():
            torch.testing.assert_close(buffer, dict(theirs.module.named_buffers())[name])
        else:
            assert torch.equal(buffer, dict(model.named_buffers())[name])


def test_is_a_copy():
    model = Scalar(1.0)
    teacher = EMATeacher(model, 0.9)
    model.set(7.0)
    assert teacher.module.weight.item() == 1.0


def test_never_needs_a_gradient_and_never_trains():
    model = small_unet()
    teacher = EMATeacher(model, 0.9)
    teacher.train()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(m.training for m in teacher.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert model.training
    logits = teacher.module(torch.randn(1, 2, 8, 8, 8, requires_grad=True))
    logits.sum().backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_shared_modules_stay_shared_and_are_averaged_once():
    """A U-Net's decoder holds the encoder too."""
    torch.manual_seed(0)
    model = small_unet()
    teacher = EMATeacher(model, 0.5)
    assert teacher.module.decoder.encoder is teacher.module.encoder
    start = copy.deepcopy(model.state_dict())
    teacher.n_averaged.fill_(100)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    teacher.update_parameters(model)
    for name, weight in teacher.module.state_dict().items():
        torch.testing.assert_close(weight, start[name] + 0.5)


def test_state_round_trip_continues_the_average():
    values = [1.0, 4.0, -2.0, 8.0, 3.0]
    model = Scalar(5.0)
    teacher, restored = EMATeacher(model, 0.8), EMATeacher(Scalar(-1.0), 0.8)
    for i, value in enumerate(values):
        model.set(value)
        teacher.update_parameters(model)
        if i == 2:
            restored.load_state_dict(copy.deepcopy(teacher.state_dict()))
        if i > 2:
            restored.update_parameters(model)
    assert restored.module.weight.item() == teacher.module.weight.item()
