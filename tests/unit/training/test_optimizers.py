"""AdamW's rates by epoch, and clipping."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.optim import SGD

from nnunet_semisup.training.checkpoint import restore_stock_content
from nnunet_semisup.training.optimizers import (
    CLIP_NORM,
    WARMUP,
    WarmupPolyLR,
    adamw_with_warmup,
    clip_and_step,
)

LENGTHS = st.integers(1, 300)


def schedule(epochs, kind=WarmupPolyLR, rate=0.3):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = SGD([parameter], rate)
    return kind(optimizer, rate, epochs)


def rate_of(made):
    (rate,) = {group["lr"] for group in made.optimizer.param_groups}
    return rate


@given(LENGTHS, st.data())
def test_the_rate_is_nnunets_times_a_linear_rise(epochs, data):
    epoch = data.draw(st.integers(0, epochs - 1))
    made, nnunets = schedule(epochs), schedule(epochs, PolyLRScheduler)
    for one in (made, nnunets):
        one.step(epoch)
    rising = max(1, round(WARMUP * epochs))
    assert rate_of(made) == pytest.approx(rate_of(nnunets) * min(1, (epoch + 1) / rising))
    assert 0 < rate_of(made) <= 0.3
    assert made.get_last_lr() == [rate_of(made)]


@given(LENGTHS, st.data())
def test_a_resumed_run_has_the_same_rates(epochs, data):
    """nnU-Net tells the epoch; nothing of the schedule is in a checkpoint."""
    start = data.draw(st.integers(0, epochs - 1))
    whole, resumed = schedule(epochs), schedule(epochs)
    rates = []
    for epoch in range(epochs):
        whole.step(epoch)
        rates.append(rate_of(whole))
    again = []
    for epoch in range(start, epochs):
        resumed.step(epoch)
        again.append(rate_of(resumed))
    assert again == rates[start:]


def test_epochs_are_counted_where_none_is_told():
    """The first one is set by the constructor, as in every schedule of torch."""
    made, told = schedule(40), schedule(40)
    told.step(0)
    for epoch in range(1, 5):
        assert rate_of(made) == rate_of(told)
        made.step()
        told.step(epoch)


def test_the_rise_takes_a_twentieth_of_the_epochs():
    made = schedule(100)
    rates = []
    for epoch in range(100):
        made.step(epoch)
        rates.append(rate_of(made))
    assert max(rates) == rates[4]
    assert rates[0] == pytest.approx(0.3 / 5)
    assert all(rates[i] < rates[i + 1] for i in range(4))
    assert all(rates[i] > rates[i + 1] for i in range(4, 99))


def test_groups_that_are_added_have_the_same_rate():
    optimizer, made = adamw_with_warmup([nn.Parameter(torch.zeros(1))], 0.3, 0.2, 40)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    made.step(7)
    assert rate_of(made) == pytest.approx(0.3 * (33 / 40) ** 0.9)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.2]


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=4))
def test_each_group_is_clipped_by_itself(norms):
    groups = [[nn.Parameter(torch.zeros(4))] for _ in norms]
    for (parameter,), norm in zip(groups, norms, strict=True):
        parameter.grad = torch.full((4,), norm / 2)
    optimizer = SGD([p for group in groups for p in group], 1.0)
    clip_and_step(optimizer, None, groups)
    for (parameter,), norm in zip(groups, norms, strict=True):
        assert float(parameter.detach().norm()) == pytest.approx(min(norm, CLIP_NORM), rel=1e-4)


def test_with_a_scaler_true_gradients_are_clipped_and_broken_steps_left_out():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = SGD([parameter], 1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor, expected in ((3.0, -3.0), (float("inf"), -3.0), (100.0, -3.0 - CLIP_NORM)):
        optimizer.zero_grad()
        scaler.scale((factor * parameter).sum()).backward()
        clip_and_step(optimizer, scaler, [[parameter]])
        assert float(parameter.detach()) == pytest.approx(expected, rel=1e-4)
    assert scaler.get_scale() == 512.0


def test_adamw_that_goes_on_counts_its_steps_on_the_host():
    """It reads the count of each parameter in each step, and a GPU's would be waited for."""
    step, moment = Mock(spec=["cpu"]), Mock(spec=[])
    optimizer = SimpleNamespace(
        load_state_dict=lambda _: None, state={0: {"step": step, "exp_avg": moment}, 1: {}}
    )
    trainer = SimpleNamespace(
        optimizer=optimizer,
        logger=SimpleNamespace(load_checkpoint=lambda _: None),
        inference_allowed_mirroring_axes=(0,),
        grad_scaler=None,
    )
    checkpoint = dict.fromkeys(("init_args", "_best_ema", "optimizer_state", "grad_scaler_state"))
    checkpoint |= {"current_epoch": 1, "logging": {"ema_fg_dice": [0.5]}}
    restore_stock_content(trainer, checkpoint, new_decay=False)
    assert optimizer.state[0] == {"step": step.cpu.return_value, "exp_avg": moment}
