"""Cross pseudo supervision against numbers of SSL4MIS's code."""

from __future__ import annotations

import pytest

from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.targets import pseudo_label
from tests.gold.numbers import close, tensor


@pytest.fixture
def case(gold):
    return gold("cps_a")


@pytest.mark.parametrize("own", [1, 2])
def test_each_network_learns_the_others_labels(case, own):
    labeled = int(case["labelled_bs"])
    logits = tensor(case[f"logits{own}"]).requires_grad_()
    other = tensor(case[f"logits{3 - own}"]).requires_grad_()
    label = pseudo_label(other[labeled:], False, None)
    loss = weighted_cross_entropy(logits[labeled:], label, False)
    close(loss, case[f"pseudo{own}"], 1e-6)
    loss.backward()
    close(logits.grad, case[f"grad_logits{own}_pseudo"], 1e-6)
    assert other.grad is None
