"""Signs of a training that cannot recover."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_semisup.training.divergence import (
    LAST_STEPS,
    all_finite,
    divergence_message,
    losses_failed,
)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_broken_weight_is_enough(value):
    weights = [torch.zeros(3, 2), torch.ones(4)]
    assert all_finite(weights)
    weights[1][2] = value
    assert not all_finite(iter(weights))


@given(st.lists(st.sampled_from([1.0, np.nan, np.inf, -np.inf]), min_size=1, max_size=30))
def test_losses_have_failed_where_the_last_steps_all_did(losses):
    expected = all(not np.isfinite(loss) for loss in losses[-LAST_STEPS:])
    assert losses_failed(np.array(losses)) == expected


def test_the_message_says_where_and_what_to_do():
    message = divergence_message(7, "weights", ["consistency", "usage"])
    assert "in epoch 7 (in semisup_terms.csv: consistency, usage): weights are NaN" in message
    assert "Lower initial_lr or the weight of the term by nnUNet_semisup_set" in message
    plain = divergence_message(7, "losses", [])
    assert "in epoch 7: losses are NaN" in plain
    assert "the term" not in plain
