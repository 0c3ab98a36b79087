"""HoME's layer against the numbers of its authors' code, with their weights."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.home import HierarchicalSoftMoE
from tests.gold.numbers import close, tensor


def expert_weights(case, prefix, number):
    """Weights of released experts, stacked as ours are; linear layers hold theirs transposed."""
    names = ("0.weight", "0.bias", "3.weight", "3.bias")
    stacked = [
        torch.stack([tensor(case[f"w.{prefix}.{e}.{name}"]) for e in range(number)])
        for name in names
    ]
    weight_in, bias_in, weight_out, bias_out = stacked
    return {
        "weight_in": weight_in.transpose(1, 2),
        "bias_in": bias_in[:, None],
        "weight_out": weight_out.transpose(1, 2),
        "bias_out": bias_out[:, None],
    }


def released(case):
    """The layer with the released weights."""
    number = {name: int(case[name]) for name in ("group_size", "experts1", "slots1", "experts2")}
    layer = HierarchicalSoftMoE(case["x"].shape[2], *number.values(), official_sum=True)
    above = "dynamic_slots_soft_moe"
    weights = {
        "norm.gamma": tensor(case["w.norm.gamma"]),
        "slots.expand.weight": tensor(case["w.to_slot_embeds.0.weight"]),
        "slots.norm.gamma": tensor(case["w.to_slot_embeds.2.gamma"]),
        "expert_gates": tensor(case["w.expert_gates"]),
        "group_gate.weight": tensor(case["w.group_gate_mlp.weight"]),
        "group_gate.bias": tensor(case["w.group_gate_mlp.bias"]),
        "above.norm.gamma": tensor(case[f"w.{above}.norm.gamma"]),
        "above.slots.expand.weight": tensor(case[f"w.{above}.to_slot_embeds.0.weight"]),
        "above.slots.norm.gamma": tensor(case[f"w.{above}.to_slot_embeds.2.gamma"]),
    }
    for ours, theirs, count in (
        ("experts", "experts_first", number["experts1"]),
        ("above.experts", f"{above}.experts", number["experts2"]),
    ):
        found = expert_weights(case, theirs, count)
        weights |= {f"{ours}.{name}": value for name, value in found.items()}
    layer.load_state_dict(weights)
    return layer


@pytest.fixture
def case(gold):
    return gold("home_a")


def test_both_levels_output_and_gradient_are_the_released_ones(case):
    layer, seen = released(case), {}
    layer.above.register_forward_hook(lambda m, i, o: seen.update(level2_in=i[0], level2_out=o))
    x = tensor(case["x"]).requires_grad_()
    out = layer(x)
    close(seen["level2_in"], case["level2_in"], 1e-5)
    close(seen["level2_out"], case["level2_out"], 1e-5)
    close(out, case["out"], 1e-5)
    (out * tensor(case["probe_weight"])).sum().backward()
    close(x.grad, case["grad_x"], 1e-5)


def test_means_in_place_of_sums_are_smaller_slots(case):
    layer = released(case)
    groups = tensor(case["x"])[:, :16].unflatten(1, (2, 8))
    means, real = groups.mean(2), torch.ones(2, 8, dtype=torch.bool)
    shares = layer.shares(groups, means)
    seen = []
    layer.experts.register_forward_hook(lambda m, inputs, o: seen.append(inputs[0]))
    for official in (True, False):
        layer.official_sum = official
        layer.summarised(groups, real, shares)
    sums, averages = (slots.unflatten(2, (2, -1)).transpose(1, 2).flatten(2, 3) for slots in seen)
    weight = shares.sum(2)[..., None]
    torch.testing.assert_close(sums, averages * weight)
