from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.networks.multiplanar import (
    READINGS,
    MultiplanarTextInteraction,
    TextCrossAttention,
)

readings = pytest.mark.parametrize("reading", READINGS)


def block(grid, reading="paper", channels=6, text_dim=10):
    torch.manual_seed(0)
    made = MultiplanarTextInteraction(channels, text_dim, grid, reading, 16, 2, 8)
    for layer in made.outputs:
        torch.nn.init.normal_(layer.weight)
    return made


@settings(max_examples=25, deadline=None)
@given(
    grid=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    other=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    reading=st.sampled_from(READINGS),
)
def test_any_grid_keeps_its_shape(grid, other, reading):
    made = block(grid, reading)
    shape = other[: len(grid)]
    for size in (grid, shape):
        x = torch.randn(2, 6, *size)
        out = made(x, torch.randn(3, 10))
        assert out.shape == x.shape
        assert torch.isfinite(out).all()


@readings
def test_starts_as_the_identity(reading):
    made = MultiplanarTextInteraction(6, 10, (2, 3, 4), reading, 16, 2, 8)
    x = torch.randn(2, 6, 2, 3, 4)
    assert torch.equal(made(x, torch.randn(3, 10)), x)


@readings
@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 4)])
def test_text_changes_the_features(reading, grid):
    made = block(grid, reading)
    x = torch.randn(1, 6, *grid)
    text = torch.randn(3, 10, requires_grad=True)
    made(x, text).square().sum().backward()
    assert float(text.grad.abs().sum()) > 1e-4
    assert not torch.allclose(made(x, text), made(x, torch.randn(3, 10)), atol=1e-5)


def test_a_whole_plane_as_one_token_would_not_see_the_text():
    attention = TextCrossAttention(16, 10, 2, 8, "official")
    token = torch.randn(1, 1, 16)
    one, other = (attention(token, torch.randn(1, 3, 10)) for _ in range(2))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("reading", "mean"), [("gate", 1.0), ("official", 3 / 8)])
def test_mean_of_the_gate(reading, mean):
    attention = TextCrossAttention(16, 10, 1, 8, reading)
    with torch.no_grad():
        attention.value.weight.zero_()
        attention.value.bias.fill_(1.0)
        attention.out = torch.nn.Identity()
    gate = attention(torch.randn(1, 8, 16), torch.randn(1, 3, 10))
    assert float(gate.detach().mean()) == pytest.approx(mean, rel=1e-5)


@readings
def test_the_order_of_the_classes_does_not_matter(reading):
    made = block((2, 3, 4), reading)
    x, text = torch.randn(1, 6, 2, 3, 4), torch.randn(3, 10)
    torch.testing.assert_close(made(x, text), made(x, text[[2, 0, 1]]))


def test_swapping_two_axes_swaps_the_planes():
    made = block((3, 3, 3))
    with torch.no_grad():
        for position in made.positions:
            position.zero_()
        for layer in (*made.embeddings, *made.outputs):
            layer.weight.copy_(
                made.embeddings[0].weight
                if layer in list(made.embeddings)
                else made.outputs[0].weight
            )
            layer.bias.zero_()
        made.plane_weights.copy_(torch.tensor([0.5, 2.0, 3.0]))
    x, text = torch.randn(1, 6, 3, 3, 3), torch.randn(2, 10)
    out = made(x, text)
    with torch.no_grad():
        made.plane_weights.copy_(torch.tensor([2.0, 0.5, 3.0]))
    torch.testing.assert_close(made(x.transpose(2, 3), text), out.transpose(2, 3))


def test_half_precision_under_autocast():
    made = block((2, 3, 4))
    with torch.autocast("cpu", torch.bfloat16):
        out = made(torch.randn(1, 6, 2, 3, 4), torch.randn(3, 10))
    assert torch.isfinite(out).all()


@readings
def test_turned_texts_can_be_undone_by_the_layers_that_read_them(reading):
    """Of fixed texts, what cannot be undone is the angles between them."""
    made = block((2, 3, 4), reading)
    x, text = torch.randn(1, 6, 2, 3, 4), torch.randn(3, 10)
    before = made(x, text)
    rotation = torch.linalg.qr(torch.randn(10, 10)).Q
    turned = text @ rotation.T
    assert not torch.allclose(made(x, turned), before, atol=1e-5)
    attention = made.cross_attention
    reading_text = (attention.key, attention.value) if reading == "visual_query" else ()
    with torch.no_grad():
        for layer in reading_text or (attention.query,):
            layer.weight.copy_(layer.weight @ rotation.T)
    torch.testing.assert_close(made(x, turned), before, atol=1e-5, rtol=1e-5)


@readings
def test_layers_of_equal_shape_start_equal_for_texts_of_any_width(reading):
    def made(text_dim):
        torch.manual_seed(4)
        return MultiplanarTextInteraction(6, text_dim, (2, 3, 4), reading, 16, 2, 8).state_dict()

    one, other = made(10), made(7)
    unequal = {name for name, value in one.items() if value.shape != other[name].shape}
    layers = ("key", "value") if reading == "visual_query" else ("query",)
    assert unequal == {f"cross_attention.{layer}.weight" for layer in layers}
    for name in one.keys() - unequal - {f"cross_attention.{layer}.bias" for layer in layers}:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(("channels", "size", "millions"), [(256, 6, "5.05"), (320, 4, "5.21")])
def test_number_of_parameters_is_that_of_the_docs(channels, size, millions):
    made = MultiplanarTextInteraction(channels, 512, [size] * 3)
    assert f"{sum(p.numel() for p in made.parameters()) / 1e6:.2f}" == millions
    page = Path(__file__).parents[3] / "docs" / "methods" / "text_semiseg.md"
    said = f"{millions} M parameters at {channels} channels and a {size}x{size}x{size} bottleneck"
    assert said in page.read_text(encoding="utf-8")
