"""LoMix: which maps there are, what each is, how they are weighed, and what learns."""

from __future__ import annotations

import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.nn import functional as F

from nnunet_semisup.losses.lomix import BOUND, LoMix, number_mixed, subsets

DICE = {"batch_dice": True, "smooth": 1e-5, "ddp": False}
NNUNET = {
    "labels": DC_and_CE_loss({**DICE, "do_bg": False}, {}, dice_class=MemoryEfficientSoftDiceLoss),
    "regions": DC_and_BCE_loss({}, {**DICE, "do_bg": True}, dice_class=MemoryEfficientSoftDiceLoss),
}
"""nnU-Net's loss of one output."""
EVERY = ("add", "mult", "cat", "awf")
LEVELS = (8 / 15, 4 / 15, 2 / 15, 1 / 15, 0.0)
"""nnU-Net's weights of five outputs."""


def outputs_of(spatial=(16, 16), number=5, channels=3, scale=1.0, seed=0):
    """Make the outputs of a decoder that halves every axis from one to the next."""
    random = torch.Generator().manual_seed(seed)
    sizes = [[max(1, n // 2**level) for n in spatial] for level in range(number)]
    made = [scale * torch.randn(2, channels, *size, generator=random) for size in sizes]
    return [one.requires_grad_() for one in made]


def targets_of(outputs, regions=False, seed=1):
    random = torch.Generator().manual_seed(seed)
    channels, high = (outputs[0].shape[1], 2) if regions else (1, outputs[0].shape[1])
    return [
        torch.randint(0, high, (2, channels, *one.shape[2:]), generator=random).float()
        for one in outputs
    ]


def nnunets(targets, kind="labels"):
    """Return nnU-Net's loss of the output of a number."""
    return lambda logits, level: NNUNET[kind](logits, targets[level])


def disturbed(lomix):
    """Give the convolutions other weights than those with which a mixture is the mean."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in lomix.convolutions.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=random)
    return lomix


@pytest.mark.parametrize(("number", "maps"), [(1, 1), (2, 6), (3, 19), (4, 48)])
def test_number_of_maps_is_the_papers(number, maps):
    """With all four operators: 4 (2^L - 1 - L) mixtures beside L outputs."""
    lomix = LoMix((*(1.0,) * number, 0.0), 2, 2, operators=EVERY)
    assert len(lomix.shares()) == maps


@pytest.mark.parametrize(
    ("outputs", "dimensions", "mixed"),
    [(1, 3, 0), (2, 3, 1), (3, 3, 2), (6, 3, 3), (2, 2, 1), (5, 2, 4), (7, 2, 4)],
)
def test_the_finest_are_mixed_and_never_the_last(outputs, dimensions, mixed):
    assert number_mixed(outputs, dimensions) == mixed
    lomix = LoMix(LEVELS, 2, 3)
    assert subsets(3) == [(0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert {subset for _, subset in lomix.mixtures} == set(subsets(3))
    assert lomix.levels == [0, 1, 2, 3], "what nnU-Net supervises, it still does"


@pytest.mark.parametrize("kind", NNUNET)
@pytest.mark.parametrize("weights", ["fixed", "log", "softplus"])
def test_without_mixtures_it_is_nnunets_deep_supervision(kind, weights):
    outputs = outputs_of()
    targets = targets_of(outputs, kind == "regions")
    expected = DeepSupervisionWrapper(NNUNET[kind], LEVELS)(outputs, targets)
    wanted = torch.autograd.grad(expected, outputs[:4])
    loss = LoMix(LEVELS, 3, 2, weights, ())(outputs, nnunets(targets, kind), -1.0)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(torch.autograd.grad(loss, outputs[:4]), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("levels", [(1.0,), (1.0, 0.0)])
def test_of_one_supervised_output_it_is_that_ones_loss(levels):
    outputs = outputs_of(number=len(levels))
    targets = targets_of(outputs)
    loss = LoMix(levels, 3, 2)(outputs, nnunets(targets), -1.0)
    assert torch.equal(loss, NNUNET["labels"](outputs[0], targets[0]))


@pytest.mark.parametrize("spatial", [(8, 12), (4, 8, 6)])
class TestMaps:
    def maps(self, spatial, number=3):
        return torch.stack(
            [outputs_of(spatial, 1, seed=seed)[0].detach() for seed in range(number)]
        )

    def lomix(self, spatial):
        return LoMix(LEVELS, 3, len(spatial), operators=EVERY)

    @pytest.mark.parametrize("operator", ["cat", "awf"])
    def test_learned_mixtures_begin_as_the_mean(self, spatial, operator):
        for subset in subsets(3):
            maps = self.maps(spatial, len(subset))
            found = self.lomix(spatial).mixture(operator, subset, maps)
            torch.testing.assert_close(found, maps.mean(0))

    def test_awf_of_equal_maps_is_that_map_and_of_others_lies_between(self, spatial):
        lomix = disturbed(self.lomix(spatial))
        maps = self.maps(spatial)
        same = maps[:1].expand_as(maps)
        torch.testing.assert_close(lomix.mixture("awf", (0, 1, 2), same), maps[0])
        found = lomix.mixture("awf", (0, 1, 2), maps)
        assert ((maps.amin(0) - 1e-5 <= found) & (found <= maps.amax(0) + 1e-5)).all()
        assert not torch.allclose(found, maps.mean(0), atol=0.05)

    @pytest.mark.parametrize("operator", ["add", "mult"])
    def test_sum_and_product_do_not_depend_on_the_order(self, spatial, operator):
        maps = self.maps(spatial)
        found, other = (
            self.lomix(spatial).mixture(operator, (0, 1, 2), one) for one in (maps, maps.flip(0))
        )
        torch.testing.assert_close(found, other)
        assert found.shape == maps.shape[1:]

    def test_members_come_to_the_finest_one_and_meet_its_labels(self, spatial):
        outputs = outputs_of(spatial)
        lomix = self.lomix(spatial)
        seen = []

        def loss_at(logits, level):
            assert logits.shape == outputs[level].shape
            seen.append((level, logits.detach()))
            return logits.mean()

        lomix(outputs, loss_at)
        finest = [subset[0] for _, subset in lomix.mixtures]
        assert [level for level, _ in seen] == [*lomix.levels, *finest]
        mode = "trilinear" if len(spatial) == 3 else "bilinear"
        number = lomix.mixtures.index(("add", (1, 2)))
        enlarged = F.interpolate(outputs[2], outputs[1].shape[2:], mode=mode)
        torch.testing.assert_close(seen[4 + number][1], outputs[1] + enlarged)


def test_product_of_logits_is_not_that_both_agree():
    """As the paper and its code have it: two maps for the second class make one for the first."""
    maps = torch.tensor([-4.0, -1.0]).view(1, 1, 2, 1, 1).expand(2, 1, 2, 1, 1)
    found = LoMix(LEVELS, 2, 2, operators=EVERY).mixture("mult", (0, 1), maps)
    assert found.flatten().tolist() == [16.0, 1.0]


def test_convolutions_are_of_one_subset_each_learn_and_change():
    lomix = LoMix(LEVELS, 3, 2)
    assert len(lomix.convolutions) == 2 * len(subsets(4))
    outputs = outputs_of()
    loss_at = nnunets(targets_of(outputs))
    optimizer = torch.optim.SGD(lomix.parameters(), 0.01)
    before = {name: p.detach().clone() for name, p in lomix.named_parameters()}
    lomix(outputs, loss_at, -1.0).backward()
    optimizer.step()
    for name, parameter in lomix.named_parameters():
        # A constant that all of an attention's members share changes nothing.
        assert parameter.grad.abs().max() > 0 or "awf" in name, name
        assert not torch.equal(parameter, before[name]), name


def test_passes_are_alike_and_draw_no_random_numbers():
    """The released code draws a new convolution in every pass."""
    lomix = disturbed(LoMix(LEVELS, 3, 2)).eval()
    outputs = outputs_of()
    loss_at = nnunets(targets_of(outputs))
    state = torch.random.get_rng_state()
    first = lomix(outputs, loss_at)
    assert torch.equal(first, lomix(outputs, loss_at))
    first.backward()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_computing_mixtures_again_gives_the_plain_gradient(monkeypatch):
    outputs = outputs_of()
    loss_at = nnunets(targets_of(outputs))
    gradients = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr("nnunet_semisup.losses.lomix.checkpoint", lambda f, *a, **_: f(*a))
        lomix = disturbed(LoMix(LEVELS, 3, 2, "log", EVERY))
        wanted = [*outputs[:4], *lomix.parameters()]
        gradients.append(torch.autograd.grad(lomix(outputs, loss_at, -1.0), wanted))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_finite_in_half_precision_with_large_logits(dtype):
    """A product of three logits of 50 is more than float16 holds."""
    outputs = outputs_of(scale=50.0)
    lomix = LoMix(LEVELS, 3, 2, operators=EVERY)
    with torch.autocast("cpu", dtype):
        halves = [one.to(dtype) for one in outputs]
        loss = lomix(halves, nnunets(targets_of(outputs)), -1.0)
    loss.backward()
    assert loss.isfinite()
    assert all(one.grad.isfinite().all() for one in outputs[:4])


def test_the_constant_does_not_reach_the_network():
    """It makes the loss that weights see positive, and is a constant to what the network sees."""
    outputs = outputs_of()
    loss_at = nnunets(targets_of(outputs))
    found = []
    for lowest in (-1.0, -5.0):
        lomix = LoMix(LEVELS, 3, 2, "log")
        loss = lomix(outputs, loss_at, lowest)
        wanted = [*outputs[:4], *lomix.convolutions.parameters(), lomix.raw]
        found.append((loss.detach(), *torch.autograd.grad(loss, wanted)))
    *network, weights = zip(*found, strict=True)
    assert all(torch.equal(one, other) for one, other in network)
    assert not torch.equal(*weights)


class Naive(LoMix):
    """The paper's weights as they are: no sum of 1, no constant, no pace."""

    def weighted(self, losses, lowest):
        return (F.softplus(self.raw) * losses).sum()


def train(lomix, loss_of, steps=400, lowest=-1.0):
    """Train logits and weights by nnU-Net's optimizer; return the loss of the first output."""
    logits = [torch.zeros(1, 2, 8 // 2**level, 8 // 2**level) for level in range(3)]
    logits = [one.requires_grad_() for one in logits]
    optimizer = torch.optim.SGD(
        [*logits, *lomix.parameters()], 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True
    )
    for _ in range(steps):
        optimizer.zero_grad()
        lomix(logits, loss_of, lowest).backward()
        optimizer.step()
    return float(loss_of(logits[0], 0).detach())


def hinge(lowest):
    """Return a loss that falls to ``lowest`` with the logits of the second class."""
    return lambda logits, level: lowest + (1 - logits[:, 1]).relu().mean()


@pytest.mark.parametrize("lowest", [-0.8, 0.2])
@pytest.mark.parametrize("weights", ["log", "softplus"])
def test_weights_neither_run_away_nor_collapse(lowest, weights):
    """Under a loss that ends below 0, as nnU-Net's, and one that ends above."""
    lomix = LoMix((2 / 3, 1 / 3, 0.0), 2, 2, weights, ("add",))
    started = lomix.shares().detach()
    assert train(lomix, hinge(lowest)) < lowest + 0.05, "the network learns"
    assert float(lomix.shares().detach().sum()) == pytest.approx(1.0)
    ratio = lomix.shares().detach() / started
    assert ratio.min() > 0.5
    assert ratio.max() < 2
    factors = lomix.factors().detach()
    assert factors.min() > 0.1
    assert factors.max() < 10


@pytest.mark.parametrize(("lowest", "runs_away"), [(-0.8, True), (0.2, False)])
def test_the_papers_weights_run_away_or_collapse(lowest, runs_away):
    lomix = Naive((2 / 3, 1 / 3, 0.0), 2, 2, "softplus", ("add",))
    train(lomix, hinge(lowest))
    factors = F.softplus(lomix.raw.detach())
    if runs_away:
        assert factors.min() > 50
    else:
        assert factors.max() < 0.01


def test_log_weights_go_to_the_inverse_of_the_loss(monkeypatch):
    """At ten times the pace, to be there soon."""
    monkeypatch.setattr("nnunet_semisup.losses.lomix.PACE", 1e-2)
    losses = torch.tensor([0.2, 0.4, 0.8])
    lomix = LoMix((1.0, 1.0, 0.0), 2, 2, "log", ("add",))
    optimizer = torch.optim.SGD(lomix.parameters(), 0.01, momentum=0.99, nesterov=True)
    for _ in range(1500):
        optimizer.zero_grad()
        lomix.weighted(losses - 1.0, -1.0).backward()
        optimizer.step()
    torch.testing.assert_close(lomix.factors().detach(), 1 / losses, rtol=1e-3, atol=0)


def test_softplus_weights_stop_at_their_bound():
    lomix = LoMix((1.0, 1.0, 0.0), 2, 2, "softplus", ("add",))
    with torch.no_grad():
        lomix.raw.fill_(-50.0)
    assert lomix.factors().tolist() == pytest.approx([math.log1p(math.exp(-BOUND))] * 3)
    lomix.weighted(torch.ones(3), 0.0).backward()
    assert not lomix.raw.grad.any()
    assert float(lomix.shares().detach().sum()) == pytest.approx(1.0)
