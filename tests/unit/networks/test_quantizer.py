from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.losses.quantization import usage_entropy
from nnunet_semisup.networks.qpm import calibrate_temperature, perturb
from nnunet_semisup.networks.quantizer import VectorQuantizer, look_up

CONVS = {2: nn.Conv2d, 3: nn.Conv3d}


def make(channels=6, size=16, width=4, dims=3, seed=0):
    torch.manual_seed(seed)
    return VectorQuantizer(channels, size, width, CONVS[dims])


def features(dims=3, batch=2, channels=6, edge=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *[edge] * dims, generator=generator)


class TestForward:
    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("epsilon", [None, 0.5])
    def test_shapes(self, dims, epsilon):
        x = features(dims)
        result = make(dims=dims)(x, epsilon)
        assert result.features.shape == result.clean.shape == x.shape
        assert result.indices.shape == result.perturbed.shape == (2, *[3] * dims)
        assert result.tokens.shape == (2 * 3**dims, 4)
        assert result.commitment.ndim == 0

    def test_takes_the_nearest_code(self):
        quantizer = make()
        result = quantizer(features())
        nearest = torch.cdist(result.tokens, quantizer.codebook).argmin(1)
        assert torch.equal(result.indices.flatten(), nearest)

    def test_many_tokens_are_looked_up_in_parts(self, monkeypatch):
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(2, 101, 4, generator=generator)
        codebook = torch.randn(16, 4, generator=generator)
        whole = look_up(tokens, codebook)
        monkeypatch.setattr("nnunet_semisup.networks.qpm.MAX_ENTRIES_CPU", 2 * 16 * 10)
        for part, expected in zip(look_up(tokens, codebook), whole, strict=True):
            assert torch.equal(part, expected)

    def test_output_is_made_of_the_codes_alone(self):
        """Two inputs with the same codes give the same features: nothing passes by the codebook."""
        quantizer = make().eval()
        x = features()
        closer = x + 1e-4 * features(seed=2)
        one, two = quantizer(x), quantizer(closer)
        assert torch.equal(one.indices, two.indices)
        torch.testing.assert_close(one.features, two.features, atol=1e-5, rtol=0)
        codes = quantizer.codebook[one.indices].movedim(-1, 1)
        torch.testing.assert_close(one.features, quantizer.project_out(codes))

    def test_tokens_are_normalised(self):
        tokens = make()(100 + 50 * features()).tokens
        torch.testing.assert_close(tokens.mean(1), torch.zeros(len(tokens)), atol=1e-5, rtol=0)
        norms = tokens.norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, 2.0), atol=1e-2, rtol=0)

    def test_codes_start_with_the_norm_of_the_tokens(self):
        codebook = make(size=512, width=32).codebook
        assert codebook.norm(dim=1).mean().item() == pytest.approx(math.sqrt(32), rel=0.1)

    def test_mix_blends_with_the_continuous_features(self):
        quantizer, x = make(), features()
        full = quantizer(x).features
        for mix in (0.0, 0.25):
            quantizer.mix.fill_(mix)
            torch.testing.assert_close(quantizer(x).features, x + mix * (full - x))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_nothing_of_the_continuous_features_is_left_by_rounding(self, dtype):
        quantizer, x = make(), features()
        codes = torch.randn(x.shape[0], x[0, 0].numel(), quantizer.code_dim)
        decoded = [
            quantizer._back(codes, (x + shift).to(dtype), x.shape[2:]) for shift in (0.0, 100.0)
        ]
        assert decoded[0].dtype == dtype
        assert torch.equal(*decoded)

    @pytest.mark.parametrize("factor", [0.0, 1e-4, 1e6])
    def test_finite_for_features_of_any_size(self, factor):
        quantizer, x = make(), (factor * features()).requires_grad_()
        result = quantizer(x, 0.7)
        (result.features.square().sum() + result.commitment).backward()
        assert torch.isfinite(result.features).all()
        assert torch.isfinite(x.grad).all()

    @pytest.mark.parametrize("size", [1, 2])
    def test_one_and_two_codes(self, size):
        result = make(size=size)(features(), 1.0)
        assert torch.isfinite(result.features).all()
        assert (result.perturbed == result.indices).all() == (size == 1)


class TestPerturbation:
    @pytest.mark.parametrize("epsilon", [0.0, 0.7, 1.0])
    def test_evaluation_mode_is_the_identity(self, epsilon):
        quantizer = make().eval()
        before = torch.random.get_rng_state()
        result = quantizer(features(), epsilon)
        assert torch.equal(result.perturbed, result.indices)
        assert torch.equal(result.features, quantizer(features()).features)
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("epsilon", [None, 0.0])
    def test_no_share_is_the_identity(self, epsilon):
        quantizer = make()
        before = torch.random.get_rng_state()
        result = quantizer(features(), epsilon)
        assert result.features is result.clean
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_features_are_those_of_the_swapped_codes(self):
        quantizer = make()
        result = quantizer(features(), 1.0)
        assert (result.perturbed != result.indices).all()
        for indices, got in ((result.perturbed, result.features), (result.indices, result.clean)):
            codes = quantizer.codebook[indices].movedim(-1, 1)
            torch.testing.assert_close(got, quantizer.project_out(codes))

    @settings(max_examples=15, deadline=None)
    @given(st.floats(0, 1), st.sampled_from([2, 3]), st.integers(2, 30))
    def test_indices_stay_in_range(self, epsilon, dims, size):
        result = make(size=size, dims=dims)(features(dims), epsilon)
        for indices in (result.indices, result.perturbed):
            assert indices.min() >= 0
            assert indices.max() < size

    def test_scaled_codebook_swaps_to_the_same_codes(self):
        """A code is swapped alike, though other tokens are nearest to twenty-fold codes."""
        indices, moved = torch.arange(64).repeat(20), []
        for scale in (1.0, 20.0):
            quantizer = make(size=64)
            with torch.no_grad():
                quantizer.codes.code_transform.weight.mul_(scale)
            quantizer.calibrate(8.0)
            torch.manual_seed(3)
            moved.append(
                perturb(indices, quantizer.codebook, 1.0, "calibrated", quantizer.temperature)
            )
        assert (moved[0] == moved[1]).float().mean() > 0.998


class TestCalibration:
    def test_sets_the_temperature(self):
        quantizer = make(size=64)
        assert torch.equal(quantizer.temperature, calibrate_temperature(quantizer.codebook, 32.0))
        quantizer.calibrate(4.0)
        assert torch.equal(quantizer.temperature, calibrate_temperature(quantizer.codebook, 4.0))

    def test_is_saved(self):
        quantizer, other = make(size=64), make(size=64, seed=5)
        quantizer.calibrate(4.0)
        other.load_state_dict(quantizer.state_dict())
        assert torch.equal(other.temperature, quantizer.temperature)
        x = features()
        assert torch.equal(other(x).features, quantizer(x).features)


class TestGradients:
    @pytest.mark.parametrize("epsilon", [None, 1.0])
    def test_straight_through(self, epsilon):
        """The gradient of a token is that of its code, perturbed or not."""
        quantizer = make()
        probe = features(seed=4)
        result = quantizer(features(), epsilon)
        (result.features * probe).sum().backward()
        weight = quantizer.project_out.weight.detach()
        to_codes = F.conv_transpose3d(probe, weight)
        projected = quantizer.project_in(features())
        tokens = F.layer_norm(projected.movedim(1, -1), (4,)).movedim(-1, 1)
        expected = torch.autograd.grad(
            (tokens * to_codes).sum(), list(quantizer.project_in.parameters())
        )
        for parameter, wanted in zip(quantizer.project_in.parameters(), expected, strict=True):
            assert wanted.abs().max() > 0
            torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("epsilon", [None, 0.7])
    def test_codebook_learns_from_commitment_and_usage_alone(self, epsilon):
        quantizer = make()
        weight = quantizer.codes.code_transform.weight
        result = quantizer(features(), epsilon)
        result.features.square().sum().backward(retain_graph=True)
        assert weight.grad is None
        assert quantizer.project_in.weight.grad.abs().sum() > 0
        result.commitment.backward(retain_graph=True)
        assert weight.grad.abs().sum() > 0
        weight.grad = None
        usage_entropy(result.tokens, quantizer.codebook).backward()
        assert weight.grad.abs().sum() > 0

    def test_table_is_frozen(self):
        quantizer = make()
        assert "codes.frozen_codebook" in dict(quantizer.named_buffers())
        assert not quantizer.codes.frozen_codebook.requires_grad


class TestPrecision:
    def test_float32_under_autocast(self):
        quantizer, x = make(size=64, width=8), features().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            codebook = quantizer.codebook
            result = quantizer(x, 0.7)
        assert codebook.dtype == torch.float32
        assert torch.equal(codebook, quantizer.codebook)
        assert result.tokens.dtype == result.commitment.dtype == torch.float32
        (result.features.float().square().sum() + result.commitment).backward()
        assert all(torch.isfinite(p.grad).all() for p in quantizer.parameters())
        assert torch.isfinite(x.grad).all()

    def test_look_up_under_autocast_is_exact(self):
        """Given the projected tokens, codes and loss are those of float32."""
        quantizer = make(size=64, width=8)
        with torch.autocast("cpu", torch.bfloat16):
            result = quantizer(features())
        codes = quantizer.codebook
        assert torch.equal(result.indices.flatten(), torch.cdist(result.tokens, codes).argmin(1))
        error = F.mse_loss(result.tokens, codes[result.indices.flatten()])
        assert result.commitment.item() == pytest.approx(1.25 * error.item(), rel=1e-5)

    def test_calibration_under_autocast(self):
        quantizer = make(size=64, width=8)
        quantizer.calibrate(8.0)
        plain = quantizer.temperature.clone()
        with torch.autocast("cpu", torch.bfloat16):
            quantizer.calibrate(8.0)
        assert torch.equal(quantizer.temperature, plain)


def test_compiled_gives_the_same():
    quantizer, x = make(size=64), features()
    compiled = torch.compile(quantizer, backend="eager", fullgraph=True)
    for epsilon in (None, torch.tensor(0.7)):
        results = []
        for module in (quantizer, compiled):
            torch.manual_seed(0)
            results.append(module(x, epsilon))
        for plain, other in zip(*results, strict=True):
            assert torch.equal(plain, other)


def test_codebook_gradient_does_not_depend_on_the_order_of_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tokens = torch.randn(2, 3000, 32, generator=torch.Generator().manual_seed(0))
        codebook = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))

        def gradient():
            leaf = codebook.clone().requires_grad_()
            look_up(tokens, leaf)[2].backward()
            return leaf.grad

        first = gradient()
        assert all(torch.equal(first, gradient()) for _ in range(20))
    finally:
        torch.set_num_threads(threads)
