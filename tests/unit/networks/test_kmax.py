"""Layers of k-means with queries, against loops; what they must keep."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.networks.kmax import (
    Assigned,
    InstanceNorm,
    KMaxLayer,
    Widths,
    cluster_sums,
    similarity,
)

QUERIES, CHANNELS, CLASSES = 6, 5, 3
SPATIAL = {2: (4, 6), 3: (4, 3, 5)}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(dims=3, seed=0):
    """Return a layer in which everything acts: no part begins with 0."""
    torch.manual_seed(seed)
    made = KMaxLayer(CHANNELS, Widths.of(16, 16), CLASSES, [5] * dims)
    for module in made.modules():
        if isinstance(module, InstanceNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return made


@pytest.mark.parametrize("dims", SPATIAL)
def test_sums_are_those_of_a_loop_over_the_pixels_nearest_to_each_query(dims):
    masks, values = noise(2, QUERIES, 20), noise(2, CHANNELS, 20, seed=1)
    expected = torch.zeros(2, CHANNELS, QUERIES)
    for b in range(2):
        for pixel in range(20):
            query = max(range(QUERIES), key=lambda n: float(masks[b, n, pixel]))
            expected[b, :, query] += values[b, :, pixel]
    torch.testing.assert_close(cluster_sums(masks, values), expected)


def test_no_gradient_passes_through_the_assignment():
    masks, values = noise(1, QUERIES, 9).requires_grad_(), noise(1, 2, 9).requires_grad_()
    cluster_sums(masks, values).sum().backward()
    assert masks.grad is None
    assert torch.equal(values.grad, torch.ones(1, 2, 9))


def test_shares_of_a_voxel_add_up_to_1_and_merge_the_queries_classes():
    masks, classes = noise(2, QUERIES, 4, 6), noise(2, CLASSES, QUERIES, seed=1)
    ones = Assigned(masks, torch.ones_like(classes)).merged()
    torch.testing.assert_close(ones, torch.ones(2, CLASSES, 4, 6))
    merged = Assigned(masks, classes).merged()
    shares = masks[1, :, 2, 3].softmax(0)
    torch.testing.assert_close(merged[1, :, 2, 3], (classes[1] * shares).sum(1))


def test_merging_and_interpolating_commute():
    """So that K maps are interpolated in place of N."""
    masks, classes = noise(2, QUERIES, 4, 3, 5), noise(2, CLASSES, QUERIES, seed=1)

    def upsampled(x):
        return F.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear")

    found = upsampled(Assigned(masks, classes).merged())
    shares = upsampled(masks.softmax(1))
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 4, 6, 10))
    torch.testing.assert_close(found, torch.einsum("bkn,bndhw->bkdhw", classes, shares))


@pytest.mark.parametrize("dims", SPATIAL)
def test_queries_in_another_order_come_out_in_it(dims):
    made = layer(dims)
    pixels, queries = noise(2, CHANNELS, *SPATIAL[dims]), noise(2, 16, QUERIES, seed=1)
    order = torch.tensor([2, 0, 1, 4, 5, 3])
    moved, assigned = made(pixels, queries)
    moved_too, assigned_too = made(pixels, queries[:, :, order])
    torch.testing.assert_close(moved_too, moved[:, :, order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(assigned_too.masks, assigned.masks[:, order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(assigned_too.merged(), assigned.merged(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", SPATIAL)
def test_an_image_does_not_depend_on_the_others_nor_on_the_mode(dims):
    made = layer(dims)
    pixels, queries = noise(2, CHANNELS, *SPATIAL[dims]), noise(2, 16, QUERIES, seed=1)
    moved, assigned = made(pixels, queries)
    alone, its = made.eval()(pixels[1:], queries[1:])
    torch.testing.assert_close(alone, moved[1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(its.masks, assigned.masks[1:], rtol=1e-4, atol=1e-4)


def test_it_begins_with_queries_that_are_only_bent():
    """The last normalisation of each addition begins at 0 ([0] of the module)."""
    torch.manual_seed(0)
    made = KMaxLayer(CHANNELS, Widths.of(16, 16), CLASSES, [5, 5])
    queries = noise(2, 16, QUERIES)
    moved, assigned = made(noise(2, CHANNELS, 4, 6), queries)
    assert torch.equal(moved, F.gelu(F.gelu(queries)))
    assert float(assigned.masks.detach().flatten(1).std(1).mean()) == pytest.approx(3.0, rel=0.05)


def test_every_parameter_learns_but_those_that_cancel():
    made = layer()
    moved, assigned = made(noise(2, CHANNELS, *SPATIAL[3]), noise(2, 16, QUERIES, seed=1))
    probe = noise(*assigned.merged().shape, seed=2)
    ((assigned.merged() * probe).sum() + (moved * noise(*moved.shape, seed=3)).sum()).backward()
    assert {n for n, p in made.named_parameters() if p.grad.abs().max() < 1e-4} == {
        # The same is added to all logits of a softmax,
        "predictor.scale.bias",
        "predictor.kernels.1.bias",
        "attention.scale.bias",
        # or added to, or multiplied with, what is then normalised.
        "update.0.bias",
        "values.1.weight",
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_and_inner_products_are_float32_in_mixed_precision(dtype):
    """A sum over 70,000 voxels is more than float16 can hold."""
    values = torch.ones(1, 2, 70_000, dtype=dtype)
    masks = torch.zeros(1, QUERIES, 70_000)
    masks[:, 4] = 1.0
    with torch.autocast("cpu", dtype):
        sums = cluster_sums(masks, values)
        unit = similarity(300 * torch.ones(1, 64, 2, dtype=dtype), torch.ones(1, 64, 3))
    assert sums[0, :, 4].tolist() == [70_000.0] * 2
    torch.testing.assert_close(unit, torch.full((1, 3, 2), 8.0))


def test_normalisations_keep_their_gain_when_they_are_reset():
    norm = InstanceNorm(3, 0.5)
    nn.init.ones_(norm.weight)
    norm.reset_parameters()
    assert norm.weight.tolist() == [0.5] * 3


@pytest.mark.parametrize("width", range(8, 136, 8))
def test_widths_fit_the_heads(width):
    widths = Widths.of(128, width)
    assert widths.key % widths.heads == widths.value % widths.heads == 0
    assert Widths.of(256, 256) == Widths(256, 256, 128, 256, 128, 2048, 8)
