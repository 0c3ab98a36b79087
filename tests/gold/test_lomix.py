"""LoMix's maps, losses and their gradients, as its released code computes them.

With weights as there: softplus, not normalised, of maps at one resolution.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.lomix import PACE, LoMix
from tests.gold.numbers import tensor

OPERATORS = {"add": "add", "mult": "mul", "awf": "wf", "cat": "concat"}
"""Names here and there; in the order of the released code's weights."""


@pytest.fixture
def case(gold):
    return gold("lomix_a")


@pytest.fixture
def lomix(case):
    """Ours with the recorded convolutions and weights; a fourth output is the one left out."""
    channels = case["logits"].shape[2]
    made = LoMix((1.0, 1.0, 1.0, 0.0), channels, 2, "softplus", tuple(OPERATORS))
    with torch.no_grad():
        kinds = ("original", *OPERATORS.values())
        made.raw.copy_(torch.cat([tensor(case[f"raw_weight_{kind}"]) for kind in kinds]))
        for number, subset in enumerate(subsets_of(case)):
            name, size = "_".join(map(str, subset)), len(subset)
            for conv, source in (
                (made.convolutions[f"cat_{name}"], f"concat_{{}}_{number}"),
                (made.convolutions[f"awf_{name}"], f"wf{size}_{{}}"),
            ):
                for own in ("weight", "bias"):
                    parameter = getattr(conv, own)
                    recorded = tensor(case[source.format(own)])
                    parameter.copy_(recorded.reshape(parameter.shape))
    return made


def subsets_of(case):
    return [tuple(np.flatnonzero(row).tolist()) for row in case["subsets"]]


def loss_of(case):
    """The released code's: cross entropy and Dice of squares, the background a class."""
    labels = tensor(case["labels"]).long()

    def loss(logits, level):
        probs = logits.softmax(1)
        truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
        overlap, sizes = (
            part.sum((0, 2, 3)) for part in (probs * truth, probs.square() + truth.square())
        )
        dice = (1 - (2 * overlap + 1e-5) / (sizes + 1e-5)).mean()
        entropy = F.cross_entropy(logits, labels)
        return float(case["lambda_ce"]) * entropy + float(case["lambda_dice"]) * dice

    return loss


def test_maps(case, lomix):
    logits = tensor(case["logits"])
    for operator, recorded in OPERATORS.items():
        for number, subset in enumerate(subsets_of(case)):
            found = lomix.mixture(operator, subset, logits[list(subset)])
            expected = tensor(case[f"maps_{recorded}"][number])
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert [subset for _, subset in lomix.mixtures] == subsets_of(case) * len(OPERATORS)


def test_total_and_gradients(case, lomix):
    """Ours is normalised: the recorded numbers divided by the sum of all weights."""
    logits = tensor(case["logits"]).requires_grad_()
    scale = float(F.softplus(lomix.raw.detach()).sum())
    total = lomix([*logits, logits[0]], loss_of(case))
    expected = float(case["total_loss"][0])
    assert float(total.detach()) * scale == pytest.approx(expected, abs=1e-5)
    total.backward()
    gradients = {
        "grad_logits": (logits.grad, 1.0),
        "grad_raw_weights": (lomix.raw.grad, PACE),
    }
    for name, (found, share) in gradients.items():
        expected = share * tensor(case[name])
        torch.testing.assert_close(found * scale, expected, rtol=1e-4, atol=1e-6 * share)
    for size in (2, 3):
        own = [
            conv.weight.grad.flatten(1)
            for name, conv in lomix.convolutions.items()
            if name.startswith("awf") and name.count("_") == size
        ]
        shared = sum(own) * scale
        expected = tensor(case[f"grad_wf{size}_weight"])
        torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-6)
