"""Memory and attraction to it against numbers of SS-Net's released code.

The released network scores features by trained selectors, keeps those scored lowest and weighs each
by another selector; ours has none of them. Their scores are made here by plain torch, so that what
is compared is the selection and the distance.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.prototypes import prototype_distance
from nnunet_semisup.networks.class_memory import ClassMemory
from tests.gold.numbers import close, tensor


@pytest.fixture
def case(gold):
    return gold("ssnet_a")


def selector(case, name, rows):
    """Return the score in (0, 1) that a selector of the released network gives to each row."""
    weights = {
        key: tensor(case[f"w.{name}.{key}"])
        for key in ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    }
    hidden = F.linear(rows, weights["0.weight"], weights["0.bias"])
    hidden = F.batch_norm(hidden, None, None, weights["1.weight"], weights["1.bias"], True)
    hidden = F.leaky_relu(hidden, 0.2)
    return F.linear(hidden, weights["3.weight"], weights["3.bias"]).sigmoid()[:, 0]


def test_memory_keeps_the_best_scored_features(case):
    rows = tensor(case["projected_correct"])
    size = int(case["elements_per_class"])
    memory = ClassMemory(2, size, rows.shape[1])
    lowest = -selector(case, "contrastive_class_selector_1", rows)
    memory.push(rows, torch.ones(len(rows), dtype=torch.long), lowest)
    kept, filled = memory.per_class()
    assert filled.sum(1).tolist() == [0, size]
    close(kept[1], case["memory_class1"], 1e-6)


@pytest.mark.parametrize("kind", ["labelled", "unlabelled"])
def test_attraction_to_the_memory(case, kind):
    """The released loss is divided by two classes, of which the background never has any."""
    rows = tensor(case[f"pred_features_{kind}"])
    number = int(case["labelled_bs"])
    label = case["labels"][:number].ravel() if kind == "labelled" else case["pseudo_label"]
    inside = torch.from_numpy(label == 1)
    weight = torch.zeros(len(rows))
    weight[inside] = selector(case, "contrastive_class_selector_1", rows[inside])
    kept = tensor(case["memory_class1"])
    memory = torch.stack([torch.zeros_like(kept), kept])
    there = torch.tensor([False, True])[:, None].expand(-1, len(kept))
    both = torch.stack([rows, rows]), torch.stack([1 - inside.float(), weight])
    loss = prototype_distance(*both, memory, there)
    close(loss / 2, case[f"loss_{kind}"], 1e-5)
