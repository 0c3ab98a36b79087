"""The network with queries: what nnU-Net's own loss teaches it, and what it keeps of the plan's."""

from __future__ import annotations

import copy

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_semisup.architectures.kmax import options
from nnunet_semisup.architectures.planned_unet import with_insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decode import decode, encode, feature_width
from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.kmax import InstanceNorm, KMaxLayer
from nnunet_semisup.networks.members import Members
from tests.unit.architectures.test_planned_unet import build, configuration

STAGES = 5


def planned(dims=2, strides=None, kernels=None, stages=STAGES):
    made = configuration(dims)
    made["patch_size"] = [32] * dims
    made["architecture"]["arch_kwargs"].update(
        n_stages=stages,
        features_per_stage=[8, 16, 16, 24, 24][:stages],
        strides=strides or [[1] * dims, *[[2] * dims] * (stages - 1)],
        kernel_sizes=kernels or [[3] * dims] * stages,
        n_conv_per_stage=[1] * stages,
        n_conv_per_stage_decoder=[1] * (stages - 1),
    )
    return made


def network_of(made, deep_supervision=False, classes=3):
    torch.manual_seed(0)
    network = build(with_insert(made, "kmax"), deep_supervision, classes)
    for module in network.modules():
        if isinstance(module, InstanceNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_nnunets_own_deep_supervision_reaches_every_layers_assignment():
    """In the released code no assignment head has a gradient; nnU-Net's last weight is 0."""
    network = network_of(planned(), deep_supervision=True)
    outputs = network(noise(2, 2, 32, 32))
    assert [each.shape[2] for each in outputs] == [32, 16, 8, 4]
    weights = [1, 0.5, 0.25, 0]
    loss = DeepSupervisionWrapper(lambda found, target: (found - target).square().mean(), weights)
    loss(outputs, [noise(*each.shape, seed=1) for each in outputs]).backward()
    layers = [module for module in network.modules() if isinstance(module, KMaxLayer)]
    assert len(layers) == 6
    for layer in layers:
        heads = (
            layer.predictor.depthwise.weight,
            layer.predictor.kernels[0].weight,
            layer.predictor.classes.weight,
            layer.values[0].weight,
        )
        assert all(weight.grad.abs().max() > 1e-7 for weight in heads)
    without = {n for n, p in network.named_parameters() if p.grad is None}
    lowest = "decoder.seg_layers.0."  # Of weight 0, as in nnU-Net's own network.
    assert without == {f"{lowest}weight", f"{lowest}bias"}


def test_the_lowest_output_that_counts_is_the_mean_of_what_all_layers_say():
    network = network_of(planned(), deep_supervision=True).eval()
    said = []
    for module in network.modules():
        if isinstance(module, KMaxLayer):
            module.register_forward_hook(lambda *call: said.append(call[2][1].merged()))
    with torch.no_grad():
        outputs = network(noise(1, 2, 32, 32))
    assert [each.shape[2] for each in said] == [2, 2, 4, 4, 8, 8]
    resized = [nn.functional.interpolate(each, (8, 8), mode="bilinear") for each in said]
    torch.testing.assert_close(outputs[2], torch.stack(resized).mean(0))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stages", [3, 4, 5])
def test_without_deep_supervision_it_gives_the_first_output_alone(dims, stages):
    network = network_of(planned(dims, stages=stages), deep_supervision=True)
    x = noise(2, 2, *[32] * dims)
    with torch.no_grad():
        first, *others = network(x)
        assert len(others) == stages - 2
        network.decoder.deep_supervision = False
        assert torch.equal(network(x), first)
        torch.testing.assert_close(network.eval()(x), first)
        decoded = decode(network.decoder, encode(network, x))
    assert decoded.features[0].shape[1] == feature_width(network.decoder) == 8
    assert decoded.masks[-1].shape == (2, 32, *[16] * dims)
    assert len(decoded.masks) == 1 + 2 * min(3, stages - 1)


def test_of_anisotropic_plans_axes_without_kernel_or_stride_are_left_apart():
    strides = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]
    kernels = [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]]
    network = network_of(planned(3, strides, kernels, stages=4))
    with torch.no_grad():
        decoded = decode(network.decoder, encode(network, noise(1, 2, 6, 32, 32)))
    assert decoded.logits.shape == (1, 3, 6, 32, 32)
    shapes = [tuple(each.shape[2:]) for each in decoded.masks]
    assert shapes == [*[(3, 4, 4)] * 2, *[(6, 8, 8)] * 2, *[(6, 16, 16)] * 3]
    depthwise = [m.depthwise.weight.shape[2:] for m in network.modules() if hasattr(m, "depthwise")]
    assert [tuple(shape) for shape in depthwise] == [*[(5, 5, 5)] * 4, *[(1, 5, 5)] * 3]


@pytest.mark.parametrize("order", [[3, 0, 1, 2], [1, 0, 3, 2]])
def test_the_order_of_queries_does_not_matter(order):
    network = network_of(planned(stages=4)).eval()
    x = noise(1, 2, 32, 32)
    order = torch.tensor([*order, *range(4, 32)])
    with torch.no_grad():
        before = decode(network.decoder, encode(network, x))
        network.decoder.centres.weight.copy_(network.decoder.centres.weight[order])
        after = decode(network.decoder, encode(network, x))
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.masks[-1], before.masks[-1][:, order], rtol=1e-4, atol=1e-4)


def test_further_decoders_have_queries_and_layers_of_their_own():
    network = network_of(planned(stages=4))
    others = [decoder_like(network.decoder, kind) for kind in ("linear", "nearest", "transposed")]
    members = Members(network, others, shared_encoder=True)
    for other in others:
        assert not any(key.startswith("encoder") for key in other.state_dict())
        for name, weight in other.named_parameters():
            own = dict(network.decoder.named_parameters()).get(name)
            if own is not None and weight.ndim > 1:
                assert not torch.equal(own, weight), name
    with torch.no_grad():
        found = members(noise(1, 2, 32, 32)).parts
        assert {each.logits.shape for each in found} == {(1, 3, 32, 32)}
        same = copy.deepcopy(members)(noise(1, 2, 32, 32)).parts
    for one, copied in zip(found, same, strict=True):
        assert torch.equal(one.logits, copied.logits)
        assert torch.equal(one.masks[-1], copied.masks[-1])


def test_many_classes_have_more_queries():
    made = planned(stages=3)
    assert network_of(made, classes=20).decoder.centres.weight.shape == (80, 32)
    settings = {"queries": "48"}
    assert build(with_insert(made, "kmax", settings)).decoder.centres.weight.shape[0] == 48


@pytest.mark.parametrize(
    ("stages", "queries", "message"),
    [
        (3, "1", "queries=1 must be a whole number, 2 or more"),
        (3, "many", "queries=many must be a whole number"),
        (2, "32", "kmax needs a network of 3 stages or more; this one has 2"),
    ],
)
def test_options_that_cannot_be_are_refused(stages, queries, message):
    with pytest.raises(UserError, match=message):
        options({"n_stages": stages, "features_per_stage": [8, 16, 16]}, [32, 32], queries)


@pytest.mark.parametrize(("widest", "width"), [(8, 32), (320, 128), (100, 96), (512, 128)])
def test_the_width_follows_the_plan(widest, width):
    arguments = {"n_stages": 3, "features_per_stage": [8, 16, widest]}
    assert options(arguments, [32, 32]) == {"queries": 32, "width": width}
