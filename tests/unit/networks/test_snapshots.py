"""Snapshots: which weights they hold, what they predict, what a checkpoint brings back."""

from __future__ import annotations

import io

import torch

from nnunet_semisup.networks.dropout import add_dropout
from nnunet_semisup.networks.snapshots import Snapshots
from tests.unit.networks.shared import small_unet


def set_bias(network, value):
    with torch.no_grad():
        network.decoder.seg_layers[-1].bias.fill_(value)


def biases(snapshots):
    """Return what each snapshot adds to a pass, which tells its weights."""
    x = torch.zeros(1, 2, 8, 8)
    outputs = snapshots.outputs(x, snapshots.module)
    assert not any(one.requires_grad for one in outputs)
    base = small_unet(2)
    base.load_state_dict({k: v.clone() for k, v in snapshots.module.state_dict().items()})
    set_bias(base, 0.0)
    zero = base.eval()(x)
    return [round(float((one - zero).mean())) for one in outputs]


def test_the_last_ones_are_kept_the_oldest_first():
    network = small_unet(2, deep_supervision=True).train()
    snapshots = Snapshots(network, 3)
    found = []
    for epoch in range(8):
        set_bias(network, float(epoch))
        snapshots.follow(network, epoch, 2)
        snapshots.follow(network, epoch, 2)
        found.append(biases(snapshots))
    assert found[:3] == [[0, 0, 0], [0, 0, 0], [0, 0, 2]]
    assert found[-1] == [2, 4, 6]
    assert network.training
    assert network.decoder.deep_supervision


def test_dropout_and_gradients_are_off_in_a_snapshot():
    network = small_unet(2).train()
    add_dropout(network, 0.5)
    snapshots = Snapshots(network, 1)
    snapshots.follow(network, 0, 1)
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(*(snapshots.outputs(x, snapshots.module)[0] for _ in range(2)))
    assert not any(p.requires_grad for p in snapshots.module.parameters())


def test_a_checkpoint_brings_them_back_also_with_another_number():
    network = small_unet(2)
    snapshots = Snapshots(network, 3)
    for epoch in range(5):
        set_bias(network, float(epoch))
        snapshots.follow(network, epoch, 1)
    file = io.BytesIO()
    torch.save(snapshots.state_dict(), file)
    for number, expected in ((3, [2, 3, 4]), (2, [3, 4]), (4, [2, 2, 3, 4])):
        file.seek(0)
        again = Snapshots(network, number)
        again.load_state_dict(torch.load(file, weights_only=False))
        again.follow(network, 4, 1)
        assert biases(again) == expected
