"""HoME's layer, by its properties; equality with the released code is in tests/gold."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.home import HierarchicalSoftMoE, HoMEBlock, SoftMoE

DIM = 12
SIZES = {"group_size": 8, "experts": 2, "slots": 3, "experts_above": 4, "rank": 2}


def layer(**sizes) -> HierarchicalSoftMoE:
    torch.manual_seed(0)
    return HierarchicalSoftMoE(DIM, **{**SIZES, **sizes})


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tokens", [1, 7, 8, 16, 22])
@pytest.mark.parametrize("official", [False, True])
def test_any_number_of_tokens_keeps_its_shape(tokens, official):
    x = noise(2, tokens, DIM)
    out = layer(official_sum=official)(x)
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_what_fills_a_group_up_counts_nowhere():
    """Ten tokens are one group, whatever room is left in it."""
    x = noise(2, 10, DIM)
    full, roomy = (layer(group_size=size) for size in (10, 17))
    torch.testing.assert_close(roomy(x), full(x))


def test_the_level_above_is_what_its_equations_say_without_filling_up():
    torch.manual_seed(0)
    above, x = SoftMoE(DIM, 3, None), noise(2, 7, DIM)
    tokens = above.norm(x)
    means = [tokens[:, :3].mean(1), tokens[:, 3:6].mean(1), tokens[:, 6]]
    slots = torch.stack([above.slots(mean) for mean in means], 2)  # (B, expert, block, dim)
    logits = torch.einsum("bnd,bepd->bnep", tokens, slots)
    dispatch, combine = logits.softmax(1), logits.flatten(2).softmax(2)
    inputs = torch.einsum("bnep,bnd->bepd", dispatch, tokens)
    weights = above.experts
    outputs = []
    for e in range(3):
        value, gate = (inputs[:, e] @ weights.weight_in[e] + weights.bias_in[e]).chunk(2, -1)
        outputs.append(
            (value * nn.functional.gelu(gate)) @ weights.weight_out[e] + weights.bias_out[e]
        )
    expected = combine @ torch.cat(outputs, 1)
    torch.testing.assert_close(above(x), expected, rtol=1e-4, atol=1e-5)


def test_samples_are_apart_and_order_within_a_group_does_not_matter():
    moe, x = layer(), noise(2, 16, DIM)
    out = moe(x)
    torch.testing.assert_close(moe(x[1:]), out[1:])
    order = torch.cat((torch.randperm(8), 8 + torch.randperm(8)))
    torch.testing.assert_close(moe(x[:, order]), out[:, order])


@pytest.mark.parametrize("above", [0, 4])
def test_groups_meet_in_the_level_above_alone(above):
    moe, x = layer(experts_above=above), noise(1, 16, DIM).requires_grad_()
    (gradient,) = torch.autograd.grad(moe(x)[:, :8].square().sum(), x)
    assert gradient[:, :8].abs().max() > 0
    assert (gradient[:, 8:].abs().max() > 0) == bool(above)


def test_shares_of_slots_add_up_to_one():
    moe, groups = layer(), noise(2, 3, 8, DIM)
    shares = moe.shares(groups, groups.mean(2))
    assert shares.shape == (2, 3, 8, 6)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 3, 8))


def test_slots_are_means_so_that_equal_tokens_give_themselves():
    moe, one = layer(), noise(1, 1, 1, DIM)
    groups, real = one.expand(1, 1, 8, DIM), torch.ones(1, 8, dtype=torch.bool)
    seen = []
    moe.experts.register_forward_hook(lambda m, inputs, o: seen.append(inputs[0]))
    moe.summarised(groups, real, moe.shares(groups, groups.mean(2)))
    torch.testing.assert_close(seen[0], one.expand(1, 2, 3, DIM))


def with_bias(moe: HierarchicalSoftMoE, bias: float, x: torch.Tensor) -> torch.Tensor:
    moe.group_gate.bias.data.fill_(bias)
    return moe(x)


@pytest.mark.parametrize("above", [0, 4])
def test_a_group_is_never_shut_and_never_amplified(above):
    moe, x = layer(experts_above=above), noise(2, 22, DIM)
    shut, open_ = (with_bias(moe, bias, x) for bias in (-100.0, 100.0))
    torch.testing.assert_close(shut, 0.01 * open_)


def test_gates_of_the_released_code_have_no_effect():
    """What they scale is normalised right after, token by token."""
    moe, x = layer(official_sum=True), noise(2, 22, DIM)
    shut, open_ = (with_bias(moe, bias, x) for bias in (-100.0, 100.0))
    torch.testing.assert_close(shut, open_)


@pytest.mark.parametrize("rank", [None, 2])
def test_weights_are_as_many_as_said(rank):
    experts, slots, above, hidden = 2, 3, 4, int(DIM * 4 / 3)
    expert = DIM * 2 * hidden + 2 * hidden + hidden * DIM + DIM
    width, reduce = (DIM, 0) if rank is None else (rank, DIM * rank)
    embeddings = 2 * reduce + width * DIM * (experts * slots + above)
    rest = 4 * DIM + experts + DIM + 1
    found = sum(p.numel() for p in layer(rank=rank).parameters())
    assert found == (experts + above) * expert + embeddings + rest


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 4)])
def test_a_block_changes_nothing_at_first_and_learns(shape):
    block, x = HoMEBlock(DIM, **SIZES), noise(2, DIM, *shape)
    out = block(x)
    assert torch.equal(out, x)
    (out * noise(*out.shape, seed=1)).sum().backward()
    assert block.scales[0].grad.abs().max() > 0
    block.scales[0].data.fill_(0.5)
    out = block(x)
    assert out.shape == x.shape
    (out * noise(*out.shape, seed=1)).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in block.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_close(dtype):
    """Both levels are filled up here; a mask of float32's range would be infinite in float16."""
    block = HoMEBlock(DIM, **SIZES)
    block.scales[0].data.fill_(1)
    x = 100 * noise(2, DIM, 2, 11)
    expected = block(x)
    with torch.autocast("cpu", dtype):
        out = block(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.5)


def test_torch_compile_keeps_one_graph():
    torch._dynamo.reset()
    block, x = HoMEBlock(DIM, **SIZES), noise(2, DIM, 2, 11)
    try:
        compiled = torch.compile(block, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), block(x))
    finally:
        torch._dynamo.reset()


def test_mamba_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(UserError, match=r"needs the package mamba-ssm, .*nnunet-semisup\[mamba\]"):
        HoMEBlock(DIM, "mamba", **SIZES)


class StandIn(nn.Module):
    """Take mamba_ssm's arguments and keep what it is given."""

    def __init__(self, d_model: int, d_state: int, d_conv: int, expand: int) -> None:
        super().__init__()
        self.sizes = (d_model, d_state, d_conv, expand)
        self.layer = nn.Linear(d_model, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Refuse anything but float32."""
        assert x.dtype == torch.float32
        assert not torch.is_autocast_enabled(x.device.type)
        return self.layer(x)


def test_mamba_comes_before_the_experts_in_float32_and_on_cuda_alone(monkeypatch):
    """The package needs CUDA; a stand-in with its arguments is called as it would be."""
    module = types.ModuleType("mamba_ssm")
    module.Mamba = StandIn
    monkeypatch.setitem(sys.modules, "mamba_ssm", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a CUDA device"):
        HoMEBlock(DIM, "mamba", **SIZES)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    block = HoMEBlock(DIM, "mamba", **SIZES)
    assert block.parts[0].mamba.sizes == (DIM, 16, 4, 2)
    x = noise(2, DIM, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block(x), x)
        block.scales[0].data.fill_(1)
        assert not torch.equal(block(x), x)
