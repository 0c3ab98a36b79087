"""VCLIPSeg: two decoders with a common label, class texts fused into each voxel of the bottleneck.

[0] Li et al., VCLIPSeg: voxel-wise CLIP-enhanced model for semi-supervised medical image
    segmentation, MICCAI 2024.

Per step, with t the class texts, f1, f2 the decoders after the fusion (networks/text_fusion.py) and
v_c the mean feature of class c where both decoders predict it and y says it:
    labeled    x_l:  sum over k of L_sup(fk(x_l, t), y) + 0.5 (1 - mean over c of cos(v_c, t_c))
    shares           w = softmax over k of 1 - sigmoid(Dice loss of fk(x_l, t))
    unlabeled  x_u:  lambda(t) sum over k of L_seg(fk(x_u, t), yu),
                     yu = argmax of w1 f1(x_u, t) + w2 f2(x_u, t)

Deviates from [0]: the plan's U-Net; nnU-Net's loss with deep supervision in place of half the Dice;
several classes and regions; the ramp is a fraction of training. v_c is of one projection of the
features before the fusion. Deviates from the released code: there, two projections after it, which
can find the text that was put in; a fusion for two classes only; a class nowhere to be found makes
the loss no number; labeled voxels are taught yu too, where here the annotation alone counts; the
bottleneck's grid is a setting, here the plan's, with all voxels in place of every 16th. The first
decoder, the plan's, predicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nnunet_semisup.losses.consistency import segmentation_loss, weighted_soft_dice
from nnunet_semisup.losses.targets import (
    PseudoLabel,
    joint_label,
    labels_of_target,
    performance_shares,
)
from nnunet_semisup.losses.text_alignment import agreed_classes, text_dissimilarity
from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Weight
from nnunet_semisup.training.text_guidance import TextGuidance, TextReading


class nnUNetTrainerVCLIPSeg(TextGuidance):
    """Train two decoders, which see the texts in every voxel, with their common label ([0])."""

    members_share_encoder: ClassVar[bool] = True

    unlabeled_weight: Weight = 1.0
    """Greatest weight of the common label (released code); 0: labels alone."""
    text_prompt: Literal["learned", "template"] = "template"
    """A fixed ``template`` ([0]), or ``learned`` tokens before the name as in Text-SemiSeg."""
    text_template: str = "A pixel of a {}."
    """Fixed prompt (released code); ``{}`` stands for the class."""
    text_reading: TextReading = "fusion"
    """``fusion`` ([0]); the others are Text-SemiSeg's interactions in its place."""
    text_alignment_weight: Weight = 0.5
    """Weight of the features' dissimilarity to the texts (released code)."""

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build a second decoder, which differs in its up-sampling."""
        return [decoder_like(predictor.decoder, "linear")]

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        seen = self.student_pass(labeled.image, "labeled")
        label = labels_of_target(labeled.target, self.label_manager.ignore_label, self.regions)
        outputs = [self.full_resolution(one.logits) for one in seen.members]
        shares = self.shares(outputs, label)
        terms = {**self.supervised_terms(seen, labeled), "_share_1": shares[0]}
        yield terms | self.similarity_terms(seen, outputs, label)
        del seen, outputs, terms  # Memory for the next pass.
        weight = self.current_unlabeled_weight
        if weight == 0:
            return

        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        outputs = [self.full_resolution(one.logits) for one in seen.members]
        common = joint_label(outputs, shares, self.regions, unlabeled.valid)
        losses = [segmentation_loss(one, common, self.regions) for one in outputs]
        taught = {f"consistency_{number}": weight * loss for number, loss in enumerate(losses, 1)}
        yield {**taught, **seen.terms}

    def aligned_terms(self, seen: Pass, name: str, text: Tensor, valid: Tensor | None) -> Terms:
        """Return nothing: only labels say which features a text is compared with."""
        return {}

    def similarity_terms(self, seen: Pass, outputs: Sequence[Tensor], label: PseudoLabel) -> Terms:
        """Return how unlike the texts the features are where both decoders are right.

        Args:
            seen: the pass of labeled patches.
            outputs: of both decoders, ``(B, C, *spatial)`` logits.
            label: of the patches.
        """
        text = self.step_text()
        if text is None or self.text_alignment_weight == 0:
            return {}
        agreed = agreed_classes(outputs, label, self.regions)
        loss = text_dissimilarity(seen.guests["visual"], agreed, text)
        return {"similarity": self.text_alignment_weight * loss}

    @torch.no_grad()
    def shares(self, outputs: Sequence[Tensor], label: PseudoLabel) -> Tensor:
        """Return the decoders' shares ``(2,)`` in the common label, by their Dice loss on labels.

        Args:
            outputs: as of :meth:`similarity_terms`.
            label: of the patches.
        """
        losses = [weighted_soft_dice(one, label, self.regions) for one in outputs]
        return performance_shares(torch.stack(losses))
