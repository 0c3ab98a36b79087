"""Quantizer, perturbation and usage loss against numbers of VQ-Seg's released code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.losses.quantization import usage_entropy
from nnunet_semisup.networks.qpm import perturb, transition_matrix
from nnunet_semisup.networks.quantizer import VectorQuantizer, look_up
from tests.gold.numbers import close, tensor

VALUES, GRADIENTS = 1e-5, 1e-6


class TestSimVQ:
    """The codes of the project's own quantizer, at the recorded table, weights and tokens."""

    @pytest.fixture
    def case(self, gold):
        return gold("vqseg_simvq_a")

    @pytest.fixture
    def quantizer(self, case):
        size, width = case["frozen_table"].shape
        made = VectorQuantizer(width, size, width, nn.Conv2d)
        made.codes.frozen_codebook.copy_(tensor(case["frozen_table"]))
        with torch.no_grad():
            made.codes.code_transform.weight.copy_(tensor(case["proj_weight"]))
            made.codes.code_transform.bias.copy_(tensor(case["proj_bias"]))
        return made

    @pytest.fixture
    def tokens(self, case):
        return tensor(case["tokens"]).requires_grad_()

    def test_codebook(self, case, quantizer):
        close(quantizer.codebook, case["codebook"], VALUES)

    def test_look_up(self, case, quantizer, tokens):
        codes, indices, _ = look_up(tokens, quantizer.codebook)
        np.testing.assert_array_equal(indices.numpy(), case["indices"])
        close(quantizer.codebook[indices], case["zq"], VALUES)
        close(codes, case["zq_ste"], VALUES)

    def test_commitment_and_its_gradients(self, case, quantizer, tokens):
        _, _, commitment = look_up(tokens, quantizer.codebook, float(case["beta"]))
        assert torch.equal(commitment, look_up(tokens, quantizer.codebook)[2])
        assert commitment.item() == pytest.approx(float(case["commit_loss"]), abs=VALUES)
        commitment.backward()
        transform = quantizer.codes.code_transform
        close(tokens.grad, case["grad_tokens_commit"], GRADIENTS)
        close(transform.weight.grad, case["grad_proj_weight_commit"], GRADIENTS)
        close(transform.bias.grad, case["grad_proj_bias_commit"], GRADIENTS)

    def test_straight_through_gradient(self, case, quantizer, tokens):
        codes, _, _ = look_up(tokens, quantizer.codebook)
        (codes * tensor(case["probe_weight"])).sum().backward()
        close(tokens.grad, case["grad_tokens_probe"], GRADIENTS)
        transform = quantizer.codes.code_transform
        assert transform.weight.grad is None or not transform.weight.grad.any()

    def test_forward_takes_the_same_codes(self, case, quantizer):
        """Through the projections, as an identity, tokens that the normalization leaves alone."""
        raw = tensor(case["tokens"])
        normalised = F.layer_norm(raw, raw.shape[-1:])
        width = raw.shape[-1]
        with torch.no_grad():
            for projection in (quantizer.project_in, quantizer.project_out):
                projection.weight.copy_(torch.eye(width)[:, :, None, None])
                projection.bias.zero_()
        maps = normalised.transpose(1, 2).unsqueeze(-1)
        result = quantizer(maps)
        nearest = torch.cdist(normalised, tensor(case["codebook"])).argmin(-1)
        np.testing.assert_array_equal(result.indices[..., 0].numpy(), nearest.numpy())
        wanted = tensor(case["codebook"])[nearest].transpose(1, 2)
        close(result.features[..., 0], wanted.numpy(), VALUES)


class TestOfficialPerturbation:
    @pytest.fixture
    def case(self, gold):
        return gold("vqseg_qpm_official_a")

    def test_replacement_probabilities(self, case):
        assert case["temperature"] == 1.0
        codebook = tensor(case["codebook"])
        replacement = transition_matrix(codebook, 1.0, "official")
        close(replacement, case["pi_replacement"], 1e-6)
        for epsilon, expected in zip(case["eps"], case["pi_analytic"], strict=True):
            row = transition_matrix(codebook, float(epsilon), "official")[int(case["code"])]
            close(row, expected, 1e-6)

    def test_frequencies(self, case):
        codebook, code = tensor(case["codebook"]), int(case["code"])
        draws, recorded = 200_000, int(case["n_draws"])
        generator = torch.Generator().manual_seed(0)
        start = torch.full((draws,), code)
        for row, epsilon in enumerate(case["eps"]):
            moved = perturb(start, codebook, float(epsilon), "official", generator=generator)
            frequency = torch.bincount(moved, minlength=codebook.shape[0]).numpy() / draws
            for got, theirs, p in zip(
                frequency, case["freq"][row], case["pi_analytic"][row], strict=True
            ):
                deviation = math.sqrt(p * (1 - p))
                assert abs(got - p) <= 5 * deviation / math.sqrt(draws)
                assert abs(got - theirs) <= 5 * deviation * math.sqrt(1 / draws + 1 / recorded)

    def test_calibrated_mode_differs(self, case):
        codebook = tensor(case["codebook"])
        calibrated = transition_matrix(codebook, 1.0, "calibrated", torch.tensor(0.1))
        assert np.abs(calibrated.numpy() - case["pi_replacement"]).max() > 1e-3


def test_usage_entropy(gold):
    case = gold("vqseg_use_a")
    tokens = tensor(case["tokens"]).requires_grad_()
    codebook = tensor(case["codebook"]).requires_grad_()
    loss = usage_entropy(tokens, codebook, float(case["inv_tau"]))
    assert loss.item() == pytest.approx(float(case["loss"]), abs=VALUES)
    parts = float(case["mean_sample_entropy"] - case["entropy_of_mean"])
    assert loss.item() == pytest.approx(parts, abs=VALUES)
    loss.backward()
    close(tokens.grad, case["grad_tokens"], GRADIENTS)
    close(codebook.grad, case["grad_codebook"], GRADIENTS)
