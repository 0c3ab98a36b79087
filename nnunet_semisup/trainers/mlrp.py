"""MLRP: two decoders on one encoder, each taught by the other where that one is surer.

[0] Su et al., Mutual learning with reliable pseudo label for semi-supervised medical image
    segmentation, Medical Image Analysis 2024, and released code.

Per step, with f_1, f_2 the decoders, p_i their probabilities and y_j = argmax p_j:
    labeled    x_l:  sum over i of L_sup(f_i(x_l), y)
    all        x:    lambda(t) sum over i != j of  sum of m_ij r_j CE(f_i(x), y_j) / sum of m_ij,
                     m_ij = [H(p_i) > H(p_j)],   r_j = mean over c of 1 - (cos(F_j, m_jc) - p_jc)^2

where F_j are the last features of decoder j and m_jc is their mean over the voxels of a patch with
y_j = c. Neither m_ij nor r_j has a gradient, as in the released code.

Deviates from [0]: the plan's U-Net; nnU-Net's loss with deep supervision in place of half the Dice;
a negative r counts as 0 (released code: the pupil is driven away from the label), and a class that
no voxel of a patch has is left out of r (released code: a cosine of 0); labeled and unlabeled
patches are averaged apart and weighted by their number; several classes, regions that each have
their own m_ij and r_j, inside against outside, padding; the ramp is a fraction of training. The
first decoder, the plan's, predicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.reliability import prototype_reliability
from nnunet_semisup.losses.targets import PseudoLabel, normalised_entropy, pseudo_label
from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.training.agreement import AgreementTrainer
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Weight


class nnUNetTrainerMLRP(AgreementTrainer):
    """Train two decoders with each other's labels where these are sure and reliable ([0])."""

    members_share_encoder: ClassVar[bool] = True
    how_to_pass: ClassVar[Mapping[str, Any]] = {"features": True}

    unlabeled_weight: Weight = 1.0
    """Greatest weight of what the decoders learn from each other (released code)."""

    @classmethod
    def further_members(cls, predictor: Any, plan: PlannedNetwork) -> list[nn.Module]:
        """Build a decoder that repeats nearest neighbours where the plan's transposes."""
        return [decoder_like(predictor.decoder, "nearest")]

    def disagreement(self, seen: Pass, valid: Tensor | None = None) -> Tensor:
        """Return what both decoders are to learn from each other, added."""
        first, second = seen.members
        return self.lesson(first, second, valid) + self.lesson(second, first, valid)

    def lesson(self, pupil: Decoded, teacher: Decoded, valid: Tensor | None) -> Tensor:
        """Return the cross entropy of one decoder with the other's labels where it is less sure.

        Args:
            pupil: decoder that learns.
            teacher: decoder whose labels these are.
            valid: ``(B, 1, *spatial)`` bool, false in padding.
        """
        logits = self.full_resolution(pupil.logits)
        others = self.full_resolution(teacher.logits).detach()
        probs, taught = (probabilities(one, self.regions) for one in (logits.detach(), others))
        label = pseudo_label(others, self.regions, None, valid)
        surer = normalised_entropy(probs, self.regions) > normalised_entropy(taught, self.regions)
        surer = surer & (label.weight > 0)
        reliable = prototype_reliability(teacher.features[0], taught, self.regions, valid)
        label = PseudoLabel(label.target, surer * reliable)
        return weighted_cross_entropy(logits, label, self.regions, among=surer)
