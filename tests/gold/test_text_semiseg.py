"""Interaction, mixing and alignment against numbers of Text-SemiSeg's released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.schedules import sigmoid_rampup
from nnunet_semisup.losses.targets import PseudoLabel, pseudo_label
from nnunet_semisup.mixing.exchange import exchange_foreground
from nnunet_semisup.networks.multiplanar import MultiplanarTextInteraction
from tests.gold.numbers import close, tensor

PLANES = ("Axial", "Sagittal", "Coronal")


def semantic_alignment_official(features, logits, text, normalise):
    """Return the released code's form of equation 4, which the package does not have.

    Sigmoid instead of softmax, features divided by their norm along the last spatial axis (one
    decoder's only), the mean over all voxels of the grid, no normalisation of the prototypes, and
    the mean over channels, which makes it small beside the other losses.

    Args:
        features: ``(B, D, *grid)``.
        logits: ``(B, K, *spatial)``.
        text: ``(K, D)``.
        normalise: divide the features by their norm along the last axis.
    """
    if normalise:
        features = features / features.norm(dim=-1, keepdim=True)
    mode = "trilinear" if logits.ndim == 5 else "bilinear"
    masks = F.interpolate(torch.sigmoid(logits), features.shape[2:], mode=mode).flatten(2)
    pooled = masks @ features.flatten(2).transpose(1, 2) / masks.shape[-1]
    return (pooled - text).square().mean()


class TestInteraction:
    @pytest.fixture
    def case(self, gold):
        return gold("textsemiseg_tmr_a")

    @pytest.fixture
    def block(self, case):
        channels, grid = case["x"].shape[1], case["x"].shape[2:]
        width, heads = case["text"].shape[-1], int(case["nhead"])
        block = MultiplanarTextInteraction(
            channels, width, grid, "official", width, heads, int(case["head_dim_cross"])
        )
        state = {
            "reading_number": block.reading_number,
            "plane_weights": tensor(case["w.view_weights"]),
            "self_attention.qkv.weight": torch.cat(
                [tensor(case[f"w.img_attn.{part}_proj.weight"]) for part in "qkv"]
            ),
        }
        for ours, theirs in (
            ("self_attention.out", "img_attn.proj"),
            ("cross_attention.query", "img_txt_attn.w_q"),
            ("cross_attention.key", "img_txt_attn.w_k"),
            ("cross_attention.value", "img_txt_attn.w_v"),
            ("cross_attention.out", "img_txt_attn.to_out.0"),
            ("norm_tokens", "norm1"),
            ("norm_plane", "norm2"),
            ("norm_mlp", "norm3"),
            ("mlp.0", "mlp.0"),
            ("mlp.2", "mlp.3"),
            *((f"embeddings.{i}", f"to_patch_embedding_{p}.1") for i, p in enumerate(PLANES)),
            *((f"outputs.{i}", f"to_out_{p}.0") for i, p in enumerate(PLANES)),
        ):
            for kind in ("weight", "bias"):
                state[f"{ours}.{kind}"] = tensor(case[f"w.{theirs}.{kind}"])
        for i, plane in enumerate(PLANES):
            learned = tensor(case[f"w.positional_encoding_{plane}"])
            state[f"positions.{i}"] = learned.transpose(1, 2).reshape(block.positions[i].shape)
        block.load_state_dict(state)
        return block

    def test_output_and_gradients(self, case, block):
        x = tensor(case["x"]).requires_grad_()
        text = tensor(case["text"]).requires_grad_()
        out = block(x, text)
        close(out, case["out"], 1e-5)
        (out * tensor(case["probe_weight"])).sum().backward()
        close(x.grad, case["grad_x"], 1e-5)
        close(text.grad, case["grad_text"], 1e-5)

    @pytest.mark.parametrize("plane", range(3))
    def test_planes(self, case, block, plane):
        got = block.plane(tensor(case["x"]), tensor(case["text"]), plane)
        close(got, case[f"plane{plane}_out"], 1e-5)

    def test_a_single_token_cannot_see_the_text(self, case, block):
        token = tensor(case["single_token_in"])
        for name, text in (
            ("single_token_cross_out", tensor(case["text"])),
            ("single_token_cross_out_other_text", torch.randn(2, 2, token.shape[-1])),
        ):
            close(block.cross_attention(token, text), case[name], 1e-5)


class TestMixing:
    @pytest.fixture
    def case(self, gold):
        return gold("textsemiseg_dca_a")

    @staticmethod
    def loss(logits, label):
        """The released segmentation loss: cross entropy plus Dice on sigmoids."""
        label = torch.from_numpy(np.array(label)).long()
        probs = torch.sigmoid(logits)
        truth = F.one_hot(label, logits.shape[1]).movedim(-1, 1).float()
        dims = (0, 2, 3, 4)
        overlap = (probs * truth).sum(dims)
        total = probs.square().sum(dims) + truth.square().sum(dims)
        dice = 1 - (2 * overlap + 1e-10) / (total + 1e-10)
        return F.cross_entropy(logits, label) + dice.mean()

    def test_winner(self, case):
        half = int(case["labelled_bs"])
        losses = [
            self.loss(tensor(case[f"logits{k}"])[:half], case["label_labelled"]) for k in (1, 2)
        ]
        close(losses[0], case["sup_loss1"], 1e-6)
        close(losses[1], case["sup_loss2"], 1e-6)
        assert int(losses[1] < losses[0]) == int(case["winner"])

    @pytest.mark.parametrize("decoder", [1, 2])
    def test_pseudo_labels(self, case, decoder):
        half = int(case["labelled_bs"])
        got = pseudo_label(tensor(case[f"logits{decoder}"])[half:], False, None)
        np.testing.assert_array_equal(got.target[:, 0], case[f"pseudo{decoder}_thresholded"])

    def test_mixed_images_labels_and_loss(self, case):
        half = int(case["labelled_bs"])
        image = tensor(case["image"])
        label = torch.from_numpy(case["label_labelled"])[:, None]
        pseudo = torch.from_numpy(case[f"pseudo{int(case['winner']) + 1}_lcc"])[:, None]
        mixed, mixed_label = exchange_foreground(
            image[:half],
            PseudoLabel(label, torch.ones_like(label, dtype=torch.float32)),
            image[half:],
            PseudoLabel(pseudo, torch.ones_like(pseudo, dtype=torch.float32)),
        )
        np.testing.assert_array_equal(mixed, case["mixed_image"])
        np.testing.assert_array_equal(mixed_label.target[:, 0], case["mixed_label"])
        loss = self.loss(tensor(case["mixed_logits_loser"]), mixed_label.target[:, 0])
        close(loss, case["mixed_loss"], 1e-6)

    def test_weight(self, case):
        progress = (int(case["iteration"]) // 150) / 200
        assert 0.1 * sigmoid_rampup(progress, 1.0) == pytest.approx(float(case["cons_weight"]))


class TestAlignment:
    @pytest.fixture
    def case(self, gold):
        return gold("textsemiseg_csa_a")

    def test_terms_and_gradients(self, case):
        names = ("feat1", "feat2", "logits1", "logits2", "text")
        given = {name: tensor(case[name]).requires_grad_() for name in names}
        terms = [
            semantic_alignment_official(
                given[f"feat{k}"], given[f"logits{k}"], given["text"], normalise=k == 1
            )
            for k in (1, 2)
        ]
        close(terms[0], case["term1"], 1e-6)
        close(terms[1], case["term2"], 1e-6)
        sum(terms).backward()
        for name, value in given.items():
            close(value.grad, case[f"grad_{name}"], 1e-6)

    def test_mixed_pass(self, case):
        total = sum(
            semantic_alignment_official(
                tensor(case[f"mixed_feat{k}"]),
                tensor(case[f"mixed_logits{k}"]),
                tensor(case["text"]),
                normalise=True,
            )
            for k in (1, 2)
        )
        close(total, case["mixed_cog_loss"], 1e-6)
