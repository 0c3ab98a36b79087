"""URPC: outputs of one decoder at several resolutions agree, less where they are unsure.

[0] Luo et al., Efficient semi-supervised gross target volume of nasopharyngeal carcinoma
    segmentation via uncertainty rectified pyramid consistency, MICCAI 2021, arXiv 2012.07042.

Per step, with p_s the outputs for deep supervision at full size, m their mean, D_s = KL(m || p_s):
    labeled    x_l:  L_sup(f(x_l), y)
    unlabeled  x_u:  lambda(t) mean over s of
                     mean of (m - p_s)^2 exp(-D_s) / mean of exp(-D_s) + mean of D_s

Deviates from [0]: the plan's U-Net; nnU-Net's loss with deep supervision, each output at its own
resolution (there: all at full size, with equal weights); two or three outputs where the plan has no
four; several classes, and regions with a divergence each; the ramp is a fraction of training.
nnU-Net gives its lowest output no weight: where it is one of the four, it learns from labels by
half the weight of the one above, for it would else learn from the others alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from nnunet_semisup.errors import UserError
from nnunet_semisup.losses.pyramid import at_full_size, pyramid_consistency
from nnunet_semisup.training.batches import Labeled, Terms, Unlabeled
from nnunet_semisup.training.passes import Pass
from nnunet_semisup.training.ranges import Weight
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer
from nnunet_semisup.training.settings import Settings

SCALES = 4
"""Outputs that are compared, as in [0]."""


class nnUNetTrainerURPC(SemiSupervisedTrainer):
    """Uncertainty-rectified consistency of a pyramid of outputs ([0])."""

    unlabeled_weight: Weight = 0.1
    """Greatest weight of the consistency ([0])."""

    def check_settings(self, settings: Settings) -> None:
        """Refuse a training without deep supervision, which has one output."""
        super().check_settings(settings)
        if not settings.values.get("enable_deep_supervision", True):
            raise UserError(
                "enable_deep_supervision=False leaves the network a single output, and "
                "nnUNetTrainerURPC compares several. Leave enable_deep_supervision away, or train "
                "another method (nnUNetv2_semisup_info lists them)."
            )

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled) -> Iterator[Terms]:
        weight = self.current_unlabeled_weight
        seen = self.student_pass(labeled.image, "labeled")
        terms = self.supervised_terms(seen, labeled)
        if weight > 0:
            terms |= self.lowest_terms(seen, labeled)
        yield terms
        del seen, terms  # Memory for the next pass.
        if weight == 0:
            return

        seen = self.student_pass(unlabeled.image, "unlabeled", unlabeled.valid)
        outputs = at_full_size(seen.logits[:SCALES])
        distances = pyramid_consistency(outputs, self.regions, unlabeled.valid)
        yield {"consistency": weight * distances.mean(), **seen.terms}

    def lowest_terms(self, seen: Pass, labeled: Labeled) -> Terms:
        """Return the loss of the lowest output on labels, where it is one of those compared."""
        lowest = len(seen.logits) - 1
        if lowest >= SCALES:
            return {}
        loss = self.loss.loss(seen.logits[lowest], labeled.target[lowest])
        weight = 0.5 * self.deep_supervision_weights[lowest - 1]
        return {"supervised_lowest": weight * loss}
