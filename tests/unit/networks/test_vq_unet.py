from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.errors import UserError
from nnunet_semisup.losses.quantization import usage_entropy
from nnunet_semisup.networks.vq_unet import (
    PLAN_KEY,
    TOKENS,
    ReconstructionDecoder,
    VQTrainingNetwork,
    VQUNet,
    choose_stages,
    codebook_size,
    planned_stages,
    stage_tokens,
)
from tests.unit.networks.shared import small_unet

PLANS = {
    "isotropic 128^3, 6 stages": ((128,) * 3, [[1] * 3] + [[2] * 3] * 5, (4, 5), [512, 64]),
    "isotropic 128^3, 5 stages": ((128,) * 3, [[1] * 3] + [[2] * 3] * 4, (4,), [512]),
    "anisotropic 16 x 64 x 64": (
        (16, 64, 64),
        [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
        (3, 4),
        [256, 64],
    ),
    "thick slices 20 x 256 x 224": (
        (20, 256, 224),
        [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
        (4, 5),
        [1120, 280],
    ),
    "2D 512 x 512, 8 stages": ((512, 512), [[1, 1]] + [[2, 2]] * 7, (5, 6), [256, 64]),
    "tiny 8^3, 3 stages": ((8,) * 3, [[1] * 3] + [[2] * 3] * 2, (1,), [64]),
    "tiny 4^3, 2 stages": ((4,) * 3, [[1] * 3] + [[2] * 3], (1,), [8]),
    "one stage of tokens too many": ((64,) * 3, [[1] * 3] + [[2] * 3], (1,), [32768]),
}


class TestStages:
    @pytest.mark.parametrize("name", PLANS)
    def test_chosen_from_the_plan(self, name):
        patch, strides, stages, tokens = PLANS[name]
        counts = stage_tokens(patch, strides)
        assert choose_stages(counts) == stages
        assert [counts[s] for s in stages] == tokens

    def test_tokens_are_those_of_the_network(self):
        """Also where the patch is not divisible by the strides."""
        network = small_unet()
        for edge in (8, 9, 11):
            features = network.encoder(torch.zeros(1, 2, edge, edge, edge))
            counts = stage_tokens((edge,) * 3, network.encoder.strides)
            assert counts == [f[0, 0].numel() for f in features]

    def test_limits_are_inclusive_and_stage_zero_is_not_quantized(self):
        low, high = TOKENS
        assert choose_stages([high, high, low]) == (1, 2)
        assert choose_stages([high + 1, high + 1, low - 1]) == (2,)
        assert choose_stages([high, 1]) == (1,)

    @pytest.mark.parametrize(
        ("tokens", "size"),
        [(1, 512), (64, 512), (128, 512), (256, 1024), (512, 2048), (4096, 2048)],
    )
    def test_codebook_size(self, tokens, size):
        assert codebook_size(tokens) == size


class TestPlannedStages:
    STRIDES = ([1] * 3, [2] * 3, [2] * 3, [2] * 3)

    def test_chosen_by_tokens_unless_named(self):
        configuration = {"patch_size": [32, 32, 32]}
        assert planned_stages(configuration, self.STRIDES) == (2, 3)
        for named in ([1, 3], [3, 1, 3], (1, 3)):
            assert planned_stages({**configuration, PLAN_KEY: named}, self.STRIDES) == (1, 3)

    @pytest.mark.parametrize("named", [[], [0], [1, 4], [-1], [1, "2"], [1.5], [[1]], 2, "2"])
    def test_refuses_stages_that_are_not_there(self, named):
        with pytest.raises(UserError, match=f"{PLAN_KEY}=.*from 1 to 3"):
            planned_stages({"patch_size": [32, 32, 32], PLAN_KEY: named}, self.STRIDES)


def image(dims=3, edge=8, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 2, *[edge] * dims, generator=generator)


def make(dims=3, residual=False, deep_supervision=False, stages=(1, 2), sizes=(32, 16), seed=0):
    torch.manual_seed(seed)
    return VQUNet(small_unet(dims, residual, deep_supervision), stages, sizes, code_dim=4)


bases = pytest.mark.parametrize(
    ("dims", "residual"), [(2, False), (2, True), (3, False), (3, True)]
)


class TestVQUNet:
    @bases
    def test_output_is_the_base_networks(self, dims, residual):
        for deep_supervision in (False, True):
            network = make(dims, residual, deep_supervision)
            base = small_unet(dims, residual, deep_supervision)
            got, wanted = network(image(dims)), base(image(dims))
            if not deep_supervision:
                got, wanted = [got], [wanted]
            assert [g.shape for g in got] == [w.shape for w in wanted]

    @bases
    def test_without_mix_it_is_the_base_network(self, dims, residual):
        base = small_unet(dims, residual)
        network = VQUNet(copy.deepcopy(base), (1, 2), (32, 16), 4)
        for quantizer in network.quantizers:
            quantizer.mix.zero_()
        torch.testing.assert_close(network(image(dims)), base(image(dims)))

    @bases
    def test_details(self, dims, residual):
        network = make(dims, residual)
        output = network(image(dims), epsilon=0.5, details=True)
        assert [q.indices.shape for q in output.quantized] == [(2, *[4] * dims), (2, *[2] * dims)]
        assert not torch.equal(output.logits, network(image(dims)))
        assert all(0 < (q.perturbed != q.indices).float().mean() < 1 for q in output.quantized)

    @pytest.mark.parametrize("residual", [False, True])
    def test_state_dict_round_trip(self, residual):
        """As the predictor loads it: built anew without deep supervision, loaded strictly."""
        trained = make(residual=residual, deep_supervision=True)
        trained.quantizers[0].mix.fill_(0.5)
        trained.quantizers[1].calibrate(3.0)
        rebuilt = make(residual=residual, deep_supervision=False, seed=9).eval()
        x = image()
        assert not torch.equal(rebuilt(x), trained.eval()(x)[0])
        rebuilt.load_state_dict(trained.state_dict(), strict=True)
        assert torch.equal(rebuilt(x), trained(x)[0])
        again = rebuilt.state_dict()
        assert all(torch.equal(v, again[k]) for k, v in trained.state_dict().items())

    @bases
    def test_deep_supervision_does_not_change_the_keys(self, dims, residual):
        keys = [list(make(dims, residual, on).state_dict()) for on in (False, True)]
        assert keys[0] == keys[1]

    def test_deep_supervision_can_be_switched_as_the_trainer_does(self):
        network = make(deep_supervision=True)
        assert isinstance(network(image()), list)
        network.decoder.deep_supervision = False
        assert isinstance(network(image()), torch.Tensor)

    @pytest.mark.parametrize("residual", [False, True])
    def test_prediction_is_deterministic_and_unperturbed(self, residual):
        network = make(residual=residual).eval()
        plain = network(image())
        assert torch.equal(plain, network(image(), epsilon=1.0))

    def test_anisotropic_plan_builds(self):
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
        kernels = [[1, 3, 3], *[[3, 3, 3]] * 4]
        base = PlainConvUNet(
            1, 5, [2, 4, 4, 8, 8], nn.Conv3d, kernels, strides, 1, 2, 1, True, nn.InstanceNorm3d
        )
        tokens = stage_tokens((16, 64, 64), strides)
        stages = choose_stages(tokens)
        network = VQUNet(base, stages, [codebook_size(tokens[s]) for s in stages], 4)
        decoder = ReconstructionDecoder(network.encoder, stages, 1)
        output = network(torch.randn(1, 1, 16, 64, 64), details=True)
        assert output.logits.shape == (1, 2, 16, 64, 64)
        assert decoder([q.clean for q in output.quantized]).shape == (1, 1, 16, 32, 32)


class TestReconstructionDecoder:
    @bases
    @pytest.mark.parametrize("stages", [(1,), (2,), (1, 2)])
    def test_gives_the_image_at_stage_one(self, dims, residual, stages):
        encoder = small_unet(dims, residual).encoder
        features = [encoder(image(dims))[s] for s in stages]
        out = ReconstructionDecoder(encoder, stages, 2)(features)
        assert out.shape == (2, 2, *[4] * dims)

    def test_sees_nothing_but_the_quantized_maps(self):
        """No skip: images with the same codes have the same reconstruction."""
        training = VQTrainingNetwork(make(), 2, None)
        x = image()
        one, two = (training(part).parts for part in (x, x + 1e-5 * image(seed=3)))
        same = all(
            torch.equal(a.indices, b.indices)
            for a, b in zip(one.quantized, two.quantized, strict=True)
        )
        assert same
        torch.testing.assert_close(one.image, two.image, atol=1e-5, rtol=0)


class TestVQTrainingNetwork:
    @pytest.fixture
    def network(self):
        return VQTrainingNetwork(make(), 2, 5)

    def test_parts(self, network):
        seen = network(image(), epsilon=0.5)
        assert seen.logits.shape == (2, 2, 8, 8, 8)
        assert seen.parts.image.shape == (2, 2, 4, 4, 4)
        assert seen.parts.adapted.shape == (2, 5, 4, 4, 4)
        assert torch.equal(network.eval()(image()).logits, network.predictor(image()))

    def test_parts_are_optional(self):
        parts = VQTrainingNetwork(make(), None, None)(image()).parts
        assert parts.image is None
        assert parts.adapted is None

    def test_reconstruction_is_from_the_unperturbed_codes(self, network):
        clean = network(image()).parts.image
        assert torch.equal(network(image(), epsilon=1.0).parts.image, clean)

    def test_every_parameter_gets_a_gradient(self, network):
        logits, parts, _ = network(image(), epsilon=0.5)
        loss = logits.square().mean() + parts.image.square().mean()
        loss = loss + parts.adapted.square().mean() + sum(q.commitment for q in parts.quantized)
        loss.backward()
        without = [n for n, p in network.named_parameters() if p.grad is None]
        assert [n for n in without if "seg_layers.0" not in n] == []

    def test_predicting_part_knows_nothing_of_the_heads(self, network):
        keys = network.predictor.state_dict()
        assert not any("reconstruction" in key or "adapter" in key for key in keys)


def test_learns_a_tiny_volume():
    """Reconstruction error and commitment fall, and most codes come into use."""
    torch.manual_seed(0)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 3, indexing="ij")
    grid = torch.stack(axes)
    blobs = [
        (grid - torch.tensor(c).view(3, 1, 1, 1)).square().sum(0) < r
        for c, r in (((-0.4, -0.3, 0.2), 0.25), ((0.5, 0.4, -0.3), 0.15))
    ]
    volume = (blobs[0] * 2.0 - blobs[1] * 1.5).expand(2, 2, 16, 16, 16).clone()
    volume += 0.05 * torch.randn_like(volume)
    predictor = VQUNet(small_unet(), (1,), (64,), code_dim=16)
    network = VQTrainingNetwork(predictor, 2, None)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    target = F.avg_pool3d(volume, 2)
    errors, commitments = [], []
    used = torch.zeros(64, dtype=torch.bool)
    for step in range(100):
        parts = network(volume).parts
        quantized = parts.quantized[0]
        error = F.l1_loss(parts.image, target)
        usage = usage_entropy(quantized.tokens, predictor.quantizers[0].codebook)
        loss = error + 0.1 * quantized.commitment + 0.1 * usage
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(error.item())
        commitments.append(quantized.commitment.item())
        if step >= 90:
            used[quantized.indices.unique()] = True
    assert np.mean(errors[-5:]) < 0.5 * errors[0]
    assert np.mean(commitments[-5:]) < 0.75 * commitments[0]
    assert used.float().mean() > 0.6
