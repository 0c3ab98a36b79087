"""UniMatch V2: a teacher's confident labels supervise two strong views of other channels.

[0] Yang et al., UniMatch V2: pushing the limit of semi-supervised semantic segmentation, TPAMI
    2025, arXiv 2410.10777.

Per step, with T the teacher and S the student, whose encoder's channels m are dropped for the one
view and the others for the other:
    labeled    x_l:  L_sup(S(x_l), y)
    teacher    x_u:  p = T(weak(x_u)),  y~ = argmax p,  w = [max p >= tau]
    unlabeled  x_k = CutMix(strong(x_u)), y~_k and w_k mixed alike, k = 1, 2:
               lambda / 2 sum over k of the mean over all voxels of w_k CE(S(x_k; m or 1 - m), y~_k)

Deviates from [0]: the plan's U-Net in place of DINOv2 and DPT, with a mask for each of its encoder
stages, whose widths differ; several classes and regions, padding never counts; the weak view is the
spatial part of nnU-Net's augmentation, the strong one perturbs intensities; a box comes from the
patch before in the batch, not from the one at the mirrored place. The sum of both halves is twice
that of [0], whose loss is their mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import nn

from nnunet_semisup.networks.complementary import ComplementaryDropout
from nnunet_semisup.trainers.pseudo_label import nnUNetTrainerPseudoLabel
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.ranges import Fraction, Weight


class nnUNetTrainerUniMatch(nnUNetTrainerPseudoLabel):
    """Two strong views with complementary channel dropout, a pass each ([0])."""

    cutmix_volume: ClassVar[tuple[float, float]] = (0.02, 0.4)

    rampup_length: Fraction = 0.0
    """Fraction of training over which the weight rises; none in [0]."""
    ema_decay: Fraction = 0.996
    """Memory of the teacher (released code)."""
    cutmix_probability: Fraction = 0.5
    """Share of strong views with a box of another unlabeled patch pasted in (released code)."""
    dice_weight: Weight = 0.0
    """Weight of the soft Dice beside the cross entropy on pseudo-labels; none in [0]."""
    dropout_share: Fraction = 0.5
    """Share of the pairs of views whose channels are dropped (half in [0]); 0: of none."""

    def build_training_network(self, predictor: Any) -> nn.Module:
        """Put the dropout between encoder and decoder."""
        return ComplementaryDropout(super().build_training_network(predictor))

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        yield self.labeled_terms(labeled)

        weight = self.current_unlabeled_weight
        if weight == 0:
            return
        label = self.teacher_label(unlabeled)
        confident = {"_confident": label.weight.mean()}
        how: dict[str, Any] = {"share": self.dropout_share}
        for name in ("consistency_1", "consistency_2"):
            image, mixed, valid = self.strong_pair(unlabeled, label)
            seen = self.student_pass(image, "unlabeled", valid, **how)
            loss = self.pseudo_label_loss(self.full_resolution(seen.logits), mixed, valid)
            yield {name: 0.5 * weight * loss, **confident, **seen.terms}
            how = {"first": seen.parts}
