"""Uncertainty-rectified pyramid consistency against numbers of SSL4MIS's code."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.pyramid import log_rivals, pyramid_consistency
from tests.gold.numbers import close, tensor


@pytest.fixture
def case(gold):
    return gold("urpc_a")


def test_consistency_and_its_gradient(case):
    labeled = int(case["labelled_bs"])
    logits = tensor(case["logits"]).requires_grad_()
    terms = pyramid_consistency(logits[:, labeled:], False)
    close(terms, case["per_scale_loss"], 1e-6)
    loss = terms.mean()
    close(loss, case["consistency_loss"], 1e-6)
    loss.backward()
    close(logits.grad, case["grad_logits_consistency"], 1e-6)


def test_divergences(case):
    logs = log_rivals(tensor(case["logits"])[:, int(case["labelled_bs"]) :], False)
    mean = logs.exp().mean(0, keepdim=True)
    close((mean * (mean.log() - logs)).sum(2), case["kl_map"], 1e-6)


def test_padding_does_not_count(case):
    """The recorded patches, widened by padding of other values."""
    logits = tensor(case["logits"])[:, int(case["labelled_bs"]) :]
    wide = torch.cat([logits, 5 * torch.randn_like(logits)], 3)
    valid = torch.zeros(wide.shape[1], 1, *wide.shape[3:], dtype=torch.bool)
    valid[:, :, : logits.shape[3]] = True
    close(pyramid_consistency(wide, False, valid), case["per_scale_loss"], 1e-6)
