"""The switch of deep supervision reaches every decoder, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.heads import WithHeads
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.supervision_switch import has_deep_supervision, switch_deep_supervision
from nnunet_semisup.networks.text_unet import TextUNet, WithText
from nnunet_semisup.networks.vq_unet import VQTrainingNetwork, VQUNet
from tests.unit.networks.shared import small_unet


def members(shared):
    predictor = small_unet()
    other = decoder_like(predictor.decoder, "linear") if shared else small_unet(residual=True)
    return Members(predictor, [other], shared_encoder=shared)


NETWORKS = {
    "plain": small_unet,
    "residual": lambda: small_unet(residual=True),
    "decoders": lambda: members(True),
    "networks": lambda: members(False),
    "heads": lambda: WithHeads(small_unet(), {"distance": nn.Conv3d(4, 1, 1)}),
    "codes": lambda: VQTrainingNetwork(VQUNet(small_unet(), (1, 2), (8, 8), 4), 2, None),
    "texts": lambda: WithText(TextUNet(small_unet(), [2, 2, 2], 2)),
}


def logits(network):
    x = torch.randn(1, 2, 8, 8, 8)
    how = {"text": torch.randn(2, 512)} if isinstance(network, WithText) else {}
    output = network(x, **how)
    if isinstance(network, Members):
        return [part.logits for part in output.parts]
    return [getattr(output, "logits", output)]


@pytest.mark.parametrize("name", NETWORKS)
def test_on_and_off(name):
    network = NETWORKS[name]()
    keys = list(network.state_dict())
    assert not has_deep_supervision(network)
    assert all(isinstance(one, torch.Tensor) for one in logits(network))
    switch_deep_supervision(network, True)
    assert has_deep_supervision(network)
    for one in logits(network):
        assert [tuple(level.shape[2:]) for level in one] == [(8, 8, 8), (4, 4, 4)]
    switch_deep_supervision(network, False)
    assert not has_deep_supervision(network)
    assert all(isinstance(one, torch.Tensor) for one in logits(network))
    assert list(network.state_dict()) == keys


def test_a_network_without_the_switch_is_left_alone():
    layer = nn.Conv2d(1, 1, 1)
    switch_deep_supervision(layer, True)
    assert not has_deep_supervision(layer)
    assert not hasattr(layer, "deep_supervision")
